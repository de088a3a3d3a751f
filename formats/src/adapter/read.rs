//! Reads an adapter and verifies every byte of its file.
//!
//! The digests of the tensors are checked before the digest of the whole file. So damage to a tensor is
//! named, and the whole-file digest is left with damage to the header.

use std::collections::BTreeMap;
use std::path::Path;

use super::check::{Fault, check};
use super::record::*;
use super::{Adapter, AdapterTarget, BaseInfo};
use crate::detect::{Container, detect};
use crate::dtype::DType;
use crate::error::{Error, FETCH_AGAIN, Result, one_line, quoted};
use crate::mmap::MappedFile;
use crate::safetensors::SafeTensors;
use crate::safetensors::header::Unique;
use crate::safetensors::sealed::{verify_part, verify_seal};

pub(super) fn read(path: &Path) -> Result<Adapter> {
    let file = SafeTensors::open(path).map_err(|error| explain(path, error))?;
    let header = Header { path, texts: file.metadata() };
    header.check_format()?;
    let records: BTreeMap<String, TargetRecord> = header.json::<Unique<_>>(TARGETS)?.0;
    if records.len().checked_mul(3) != Some(file.tensors().len()) {
        let problem =
            format!("{} targets are listed, but there are {} tensors", records.len(), file.tensors().len());
        return Err(malformed(path, TARGETS, problem));
    }
    let targets = records
        .into_iter()
        .map(|(name, record)| read_target(&file, name, record))
        .collect::<Result<Vec<AdapterTarget>>>()?;
    verify_seal(&file)?;

    let adapter = Adapter {
        base: BaseInfo {
            name: header.text(BASE_NAME)?.to_owned(),
            architecture: header.text(BASE_ARCHITECTURE)?.to_owned(),
            container: header.text(BASE_CONTAINER)?.to_owned(),
            other_tensors: header.json::<Unique<_>>(BASE_OTHER_TENSORS)?.0,
        },
        rank: header.number(RANK)?,
        scale: header.number(SCALE)?,
        selection: header.text(SELECTION)?.to_owned(),
        seed: header.number(SEED)?,
        training: header.texts.contains_key(TRAINING).then(|| header.json(TRAINING)).transpose()?,
        targets,
    };
    check(&adapter).map_err(|Fault { place, problem }| malformed(path, place, problem))?;
    Ok(adapter)
}

/// The error of a file that does not open as safetensors: what it is instead, unless it begins as safetensors
/// files do.
fn explain(path: &Path, error: Error) -> Error {
    let (Error::Malformed { .. }, Ok(file)) = (&error, MappedFile::open(path)) else { return error };
    let other = match (detect(path), file.bytes()) {
        (Ok(Container::SafeTensors) | Err(_), _) => return error,
        (Ok(Container::Gguf), _) => "is not an adapter: it is a GGUF file",
        (Ok(Container::Onnx), _) => "is not an adapter: it is an ONNX file",
        (_, [b'P', b'K', 3, 4, ..]) => "is not an adapter: it is a zip archive, as PyTorch writes",
        (_, [b'{' | b'[', ..]) => "is not an adapter: it is a JSON file",
        _ => "is not an adapter, or is damaged",
    };
    Error::malformed(path, "byte 0", other, "name a file that curmerge build wrote, or fetch it again")
}

fn malformed(path: &Path, place: impl Into<String>, problem: impl Into<String>) -> Error {
    Error::malformed(path, place, problem, FETCH_AGAIN)
}

/// The metadata, with errors that name the key.
struct Header<'a> {
    path: &'a Path,
    texts: &'a BTreeMap<String, String>,
}

impl Header<'_> {
    fn check_format(&self) -> Result<()> {
        if self.texts.get(FORMAT).is_none_or(|format| format != FORMAT_NAME) {
            let problem = "the file is safetensors, but not a curmerge adapter";
            return Err(Error::malformed(
                self.path,
                FORMAT,
                problem,
                "name a file that curmerge build wrote",
            ));
        }
        match self.text(VERSION)? {
            VERSION_NUMBER => Ok(()),
            other => Err(Error::unsupported(
                self.path,
                VERSION,
                format!("adapter version {} is not known", quoted(other)),
                "use the curmerge that wrote it, or a newer one",
            )),
        }
    }

    fn text(&self, key: &str) -> Result<&str> {
        self.texts.get(key).map(String::as_str).ok_or_else(|| malformed(self.path, key, "the key is missing"))
    }

    fn number<T: std::str::FromStr>(&self, key: &str) -> Result<T> {
        let text = self.text(key)?;
        text.parse().map_err(|_| malformed(self.path, key, format!("{} is not a valid number", quoted(text))))
    }

    fn json<T: serde::de::DeserializeOwned>(&self, key: &str) -> Result<T> {
        serde_json::from_str(self.text(key)?).map_err(|error| malformed(self.path, key, one_line(&error)))
    }
}

fn read_target(file: &SafeTensors, name: String, record: TargetRecord) -> Result<AdapterTarget> {
    let cols = tensor(file, &name, COLS, DType::U32, None, &record.cols_sha256)?;
    let rows = tensor(file, &name, ROWS, DType::U32, None, &record.rows_sha256)?;
    let shape = [cols.len() as u64, rows.len() as u64];
    let u = tensor(file, &name, U, DType::F32, Some(shape), &record.u_sha256)?;
    Ok(AdapterTarget {
        name,
        cols: cols.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect(),
        rows: rows.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect(),
        u: u.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
        shape: record.shape,
        stored_dtype: record.stored_dtype,
        stored_sha256: record.stored_sha256,
        values_sha256: record.values_sha256,
        sketch: record.sketch,
    })
}

/// The values of one tensor of a target: a vector, or a matrix of the given shape.
fn tensor<'a>(
    file: &'a SafeTensors,
    target: &str,
    end: &str,
    dtype: DType,
    matrix: Option<[u64; 2]>,
    digest: &str,
) -> Result<&'a [[u8; 4]]> {
    let name = format!("{target}{end}");
    let place = format!("tensor {}", quoted(&name));
    let found = file.tensor(&name).ok_or_else(|| malformed(file.path(), &place, "it is missing"))?;
    let shape_fits = match matrix {
        None => found.shape.len() == 1,
        Some(matrix) => found.shape == matrix,
    };
    if found.dtype != dtype || !shape_fits {
        let problem =
            format!("it is {} of shape {:?}, which does not fit its target", found.dtype, found.shape);
        return Err(malformed(file.path(), place, problem));
    }
    let bytes = file.data(found);
    verify_part(file.path(), place, digest, bytes)?;
    Ok(bytes.as_chunks::<4>().0)
}
