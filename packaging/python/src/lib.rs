//! `curmerge._native`: adapters in Python. Commands are run as programs by the module around it
//! (`python/curmerge/__init__.py`), so that Ctrl-C and memory are those of a process of their own.

use std::path::PathBuf;

use curmerge::export::{Format, export};
use curmerge::{Adapter as Inner, Base, BaseCheck, MergeOptions, Source, fingerprint};
use pyo3::exceptions::{PyKeyError, PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// An error of the library as one line: OSError for a file that cannot be read or written, else ValueError.
fn raised(error: curmerge::Error) -> PyErr {
    match &error {
        curmerge::Error::Io { .. } => PyOSError::new_err(error.to_string()),
        _ => PyValueError::new_err(error.to_string()),
    }
}

/// A CURLoRA adapter, read and verified.
#[pyclass(module = "curmerge", frozen)]
struct Adapter {
    inner: Inner,
    path: PathBuf,
}

impl Adapter {
    /// The base, if the adapter was made on its values.
    fn base(&self, base: PathBuf, allow_other_base: bool) -> curmerge::Result<Base> {
        let base = Base::open(base)?;
        let check = if allow_other_base { BaseCheck::AllowOtherValues } else { BaseCheck::SameValues };
        fingerprint::check(&base, &self.inner, check)?;
        Ok(base)
    }

    fn export(&self, py: Python<'_>, base: PathBuf, out: PathBuf, format: Format, force: bool, other: bool) -> PyResult<()> {
        py.detach(|| {
            let base = self.base(base, other)?;
            export(&base, &self.inner, format, out, &[&self.path], force)
        })
        .map_err(raised)
    }

    fn target(&self, name: &str) -> PyResult<&curmerge::AdapterTarget> {
        let found = self.inner.targets.iter().find(|target| target.name == name);
        found.ok_or_else(|| PyKeyError::new_err(name.to_owned()))
    }
}

#[pymethods]
impl Adapter {
    /// Reads an adapter file; every checksum is verified.
    #[staticmethod]
    fn load(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let inner = py.detach(|| Inner::read(&path)).map_err(|error| raised(error.into()))?;
        Ok(Self { inner, path })
    }

    #[getter]
    fn rank(&self) -> u32 {
        self.inner.rank
    }

    #[getter]
    fn scale(&self) -> f32 {
        self.inner.scale
    }

    #[getter]
    fn selection(&self) -> &str {
        &self.inner.selection
    }

    #[getter]
    fn seed(&self) -> u64 {
        self.inner.seed
    }

    #[getter]
    fn base_name(&self) -> &str {
        &self.inner.base.name
    }

    #[getter]
    fn architecture(&self) -> &str {
        &self.inner.base.architecture
    }

    /// The canonical names of the matrices that it changes.
    #[getter]
    fn targets(&self) -> Vec<&str> {
        self.inner.targets.iter().map(|target| target.name.as_str()).collect()
    }

    /// The chosen columns of a matrix, ascending.
    fn columns(&self, name: &str) -> PyResult<Vec<u32>> {
        Ok(self.target(name)?.cols.clone())
    }

    /// The chosen rows of a matrix, ascending.
    fn rows(&self, name: &str) -> PyResult<Vec<u32>> {
        Ok(self.target(name)?.rows.clone())
    }

    /// U of a matrix, row by row, as little-endian float32.
    fn _u<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyBytes>> {
        let bytes: Vec<u8> = self.target(name)?.u.iter().flat_map(|value| value.to_le_bytes()).collect();
        Ok(PyBytes::new(py, &bytes))
    }

    /// Writes it as a PEFT folder.
    #[pyo3(signature = (base, output, *, force = false, allow_other_base = false))]
    fn to_peft(&self, py: Python<'_>, base: PathBuf, output: PathBuf, force: bool, allow_other_base: bool) -> PyResult<()> {
        self.export(py, base, output, Format::Peft, force, allow_other_base)
    }

    /// Writes it as a LoRA for llama.cpp.
    #[pyo3(signature = (base, output, *, allow_other_base = false))]
    fn to_gguf(&self, py: Python<'_>, base: PathBuf, output: PathBuf, allow_other_base: bool) -> PyResult<()> {
        self.export(py, base, output, Format::Gguf, false, allow_other_base)
    }

    /// Writes the base with the adapter's change added, in the base's container and types.
    #[pyo3(signature = (base, output, *, factor = 1.0, force = false, allow_other_base = false))]
    fn merge_into(
        &self,
        py: Python<'_>,
        base: PathBuf,
        output: PathBuf,
        factor: f32,
        force: bool,
        allow_other_base: bool,
    ) -> PyResult<()> {
        py.detach(|| {
            let check = if allow_other_base { BaseCheck::AllowOtherValues } else { BaseCheck::SameValues };
            let options =
                MergeOptions { base_check: check, force, protect: vec![self.path.clone()], ..Default::default() };
            let sources = [(Source::Cur(&self.inner), factor)];
            curmerge::merge(&Base::open(base)?, &sources, &options, output, |_, _| ()).map(drop)
        })
        .map_err(raised)
    }

    fn __repr__(&self) -> String {
        let Inner { rank, targets, base, .. } = &self.inner;
        format!("<curmerge.Adapter of {:?}: {} matrices, rank {rank}>", base.name, targets.len())
    }
}

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<Adapter>()
}
