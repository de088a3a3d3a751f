//! `W + s C U R`, and LoRA adapters of other programs, into a new model file, as a stream.
//!
//! Every tensor that the adapter leaves alone is copied byte for byte; the others are decoded, changed and rounded a few
//! blocks of rows at a time ([`requantize`] says how), so that a merge needs some megabytes whatever the model's size.
//! The output has the base's container, metadata, names and order.

mod carried;
mod pieces;
pub mod report;
pub mod requantize;
mod tensor;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use curmerge_formats::adapter::Adapter;
use curmerge_formats::dtype::DType;
use curmerge_formats::output::{OutputFile, OutputFolder};

use crate::base::{Base, BaseTensor, Files};
use crate::lora::Lora;
use crate::{Error, Result};

pub use report::{MergeReport, TensorReport};

use pieces::Changes;
use tensor::{Adapted, Term};

/// How to merge.
#[derive(Clone, Debug, Default)]
pub struct MergeOptions {
    /// The type of the changed tensors; `None` keeps each as the base stores it.
    pub dtype: Option<DType>,
    /// Replace an output folder that stands.
    pub force: bool,
    /// Further files that the output must not replace, such as the adapter's.
    pub protect: Vec<PathBuf>,
}

/// An adapter to merge.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// curmerge's own. Whether it belongs to the base is for [`crate::cur::binding::check`] to say; here only names and
    /// shapes must fit.
    Cur(&'a Adapter),
    /// A LoRA of another program.
    Lora(&'a Lora),
}

/// Write the merged model to `out`: a file for a GGUF base, a folder for a Hugging Face folder. Each source comes with a
/// factor of its change; changes of one matrix add up.
///
/// # Errors
/// Before anything is written: an output whose ending asks for another container, a target that the base has not, a
/// type that cannot be written or does not divide a row. Later: a changed value that its type cannot hold, a full disk.
/// After an error nothing stands at `out` that did not before. `progress` is told how many of how many tensors are done.
pub fn merge(
    base: &Base,
    sources: &[(Source<'_>, f32)],
    options: &MergeOptions,
    out: &Path,
    progress: impl Fn(usize, usize),
) -> Result<MergeReport> {
    check_ending(base, out)?;
    let terms = terms(sources)?;
    let mut changes = Changes::new();
    for (name, terms) in &terms {
        let weight = base.weight(name)?;
        // `weight` found it.
        let tensor = &base.tensors()[*name];
        let dtype = options.dtype.unwrap_or(tensor.dtype);
        check_type(base, name, tensor, dtype, weight.cols())?;
        changes.insert(tensor.stored_name.as_str(), Adapted { name, terms, weight, dtype });
    }
    let mut inputs: Vec<&Path> = vec![base.path()];
    inputs.extend(options.protect.iter().map(PathBuf::as_path));

    let mut report = MergeReport::default();
    let done = |tensors: &[TensorReport]| progress(tensors.len(), changes.len());
    match base.files() {
        Files::Gguf(gguf) => {
            let mut file = OutputFile::create(out, &inputs)?;
            let pieces = pieces::of_gguf(gguf, &changes)?;
            pieces::write(&pieces, gguf.file(), base.path(), &mut file, |tensor| {
                report.tensors.push(tensor);
                done(&report.tensors);
            })?;
            file.commit()?;
        }
        Files::HuggingFace(shards) => {
            let folder = OutputFolder::create(out, &inputs, options.force)?;
            for shard in shards {
                // Opened by a name that is UTF-8.
                let name = shard.path().file_name().and_then(|n| n.to_str()).unwrap_or_default();
                let mut file = folder.file(name)?;
                let pieces = pieces::of_safetensors(shard, &changes)?;
                pieces::write(&pieces, shard.file(), base.path(), &mut file, |tensor| {
                    report.tensors.push(tensor);
                    done(&report.tensors);
                })?;
                file.commit()?;
            }
            report.notes = carried::carry(base.path(), shards, &changes, &folder)?;
            folder.commit()?;
        }
    }
    Ok(report)
}

/// What each matrix gets, in the order of the sources.
fn terms<'a>(sources: &[(Source<'a>, f32)]) -> Result<BTreeMap<&'a str, Vec<Term<'a>>>> {
    let mut terms = BTreeMap::<&str, Vec<Term<'_>>>::new();
    for &(source, factor) in sources {
        let scale = if let Source::Cur(adapter) = source { adapter.scale * factor } else { factor };
        if !scale.is_finite() {
            return Err(Error::request(
                format!("a scale of {scale} cannot be used"),
                "give a finite --scale",
            ));
        }
        match source {
            Source::Cur(adapter) => adapter
                .targets
                .iter()
                .for_each(|target| terms.entry(&target.name).or_default().push(Term::Cur { target, scale })),
            Source::Lora(lora) => lora
                .targets()
                .for_each(|name| terms.entry(name).or_default().push(Term::Lora { lora, scale })),
        }
    }
    Ok(terms)
}

/// What the output is follows from its ending, and must be what the base is.
fn check_ending(base: &Base, out: &Path) -> Result<()> {
    let ending = out.extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase();
    let problem = match (base.files(), ending.as_str()) {
        (Files::Gguf(_), "gguf") => return Ok(()),
        (Files::Gguf(_), _) => "the base is a GGUF file, and the output's name does not end in .gguf",
        (Files::HuggingFace(_), "gguf" | "safetensors" | "onnx") => {
            "the base is a Hugging Face folder, and the output's name ends like a file's"
        }
        (Files::HuggingFace(_), _) => return Ok(()),
    };
    let mend = match base.files() {
        Files::Gguf(_) => "give it that ending; other containers are not written yet",
        Files::HuggingFace(_) => "name a folder; other containers are not written yet",
    };
    Err(Error::input(out, "output", problem, mend))
}

fn check_type(base: &Base, name: &str, tensor: &BaseTensor, dtype: DType, cols: usize) -> Result<()> {
    let refuse = |problem: String, mend: &str| {
        Err(Error::input(base.path(), format!("tensor '{name}'"), problem, mend))
    };
    if !dtype.can_encode() {
        if dtype == tensor.dtype {
            let problem = format!("stored as {dtype}, which curmerge reads but does not write");
            return refuse(problem, "choose how to store it with --type, for example q4_1 or q8_0");
        }
        return refuse(format!("cannot be written as {dtype}"), "choose f32, f16, bf16, q8_0 or q4_1");
    }
    if matches!(base.files(), Files::HuggingFace(_)) && dtype.safetensors_name().is_none() {
        let problem = format!("safetensors files cannot hold {dtype}");
        return refuse(problem, "merge into a GGUF file of this model, or use --type f32, f16 or bf16");
    }
    if dtype.bytes_for(cols as u64).is_none() {
        let problem = format!("its rows of {cols} values are no whole number of {dtype} blocks");
        return refuse(problem, "choose a type with smaller blocks, for example q8_0 or f16");
    }
    Ok(())
}
