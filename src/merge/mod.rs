//! `W + s C U R`, and LoRA adapters of other programs, as a new model file.
//!
//! Over [`crate::rewrite`]: tensors that no adapter changes are copied byte for byte, and the others are
//! decoded, changed and rounded a few blocks of rows at a time ([`requantize`] says how). So a merge needs
//! some megabytes, whatever the size of the model. The output has the base's container, metadata, names and
//! order.

mod adapted;
mod deltas;
mod folder;
mod gain;
mod gguf;
mod nbits;
mod onnx;
pub mod report;
pub mod requantize;
mod storage;
mod tensor;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use curmerge_formats::adapter::Adapter;
use curmerge_formats::imatrix::Imatrix;

use crate::base::{Base, Files};
use crate::convert::FileType;
use crate::lora::Lora;
use crate::rewrite::Destination;
use crate::{Error, Result};

pub use report::{MergeReport, TensorReport};
pub use storage::Storage;

use adapted::Adapted;
use deltas::Delta;

/// How to merge.
#[derive(Clone, Default)]
pub struct MergeOptions<'a> {
    /// Says whether the adapters belong to the base; an error ends the merge. Called once, before anything is
    /// computed and while unchanged tensors are already being copied.
    pub confirm: Option<&'a dyn Fn() -> Result<()>>,
    /// llama-quantize's mixture of types for a whole GGUF file; `None` copies every tensor that no adapter
    /// changes.
    pub file_type: Option<FileType>,
    /// How much rounding errors of each column count in that mixture.
    pub imatrix: Option<&'a Imatrix>,
    /// The types of the changed tensors.
    pub storage: Storage,
    /// Limit of the tensors in one output file, in bytes; `None` writes a GGUF model as one file and a folder
    /// in the base's own shards.
    pub max_shard_size: Option<u64>,
    /// Replace an existing output folder.
    pub force: bool,
    /// Further files that the output must not replace, such as the adapter's.
    pub protect: Vec<PathBuf>,
}

/// An adapter to merge.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// curmerge's own. Here only names and shapes must fit; [`MergeOptions::confirm`] decides whether it
    /// belongs to the base, by [`crate::cur::fingerprint::check`].
    Cur(&'a Adapter),
    /// A LoRA of another program.
    Lora(&'a Lora),
}

/// A merge that is about to be written.
struct Merge<'a> {
    base: &'a Base,
    /// What is added to each tensor, by its canonical name.
    deltas: BTreeMap<&'a str, Vec<Delta<'a>>>,
    options: &'a MergeOptions<'a>,
    out: &'a Path,
}

impl Merge<'_> {
    /// The tensor of this canonical name with its deltas, in the type that the base stores it in.
    fn adapted<'m>(&'m self, name: &'m str, deltas: &'m [Delta<'m>]) -> Result<Adapted<'m>> {
        let (weight, dtype) = (self.base.weight(name)?, self.base.tensors()[name].dtype);
        Ok(Adapted { name, deltas, weight, importance: None, dtype, path: self.base.path() })
    }

    fn destination(&self) -> Destination<'_> {
        let protect = self.options.protect.iter().map(PathBuf::as_path);
        Destination {
            path: self.out,
            inputs: self.base.inputs().into_iter().chain(protect).collect(),
            max_shard_bytes: self.options.max_shard_size,
            force: self.options.force,
        }
    }
}

/// Writes the merged model to `out`. Each source comes with a factor of its change; changes of one matrix add
/// up.
///
/// A GGUF base becomes a file, or with a limited size of files a folder of splits. A Hugging Face folder
/// becomes a folder. An ONNX base becomes a file, with others beside it if the base has its weights apart;
/// or, if `out` does not end in .onnx, a folder that also has the configuration and the tokenizer.
///
/// `progress` is told how many of how many changed tensors are done.
///
/// # Errors
/// Before anything is written: an output whose ending asks for another container, a target that the base does
/// not have, a type that cannot be written or does not divide a row. Later: a changed value that its type
/// cannot hold, a full disk. After an error `out` is as it was before.
pub fn merge(
    base: &Base,
    sources: &[(Source<'_>, f32)],
    options: &MergeOptions<'_>,
    out: &Path,
    progress: impl Fn(u64, u64),
) -> Result<MergeReport> {
    check_ending(base, options, out)?;
    let merge = Merge { base, deltas: deltas::by_tensor(base, sources)?, options, out };
    if let (Some(file_type), false) = (options.file_type, matches!(base.files(), Files::Gguf(_))) {
        let problem = format!("{file_type} is a mixture of types for a whole GGUF file, and this is none");
        let help = "store the changed tensors in another type with --type-adapted, or convert the base first";
        return Err(Error::input(base.path(), "container", problem, help));
    }
    let mut confirm = options.confirm;
    if let Storage::Narrowest { .. } = options.storage {
        // Choosing a type computes already.
        confirm.take().map_or(Ok(()), |confirm| confirm())?;
    }
    match base.files() {
        Files::Gguf(model) => gguf::write(&merge, model, confirm, progress),
        Files::HuggingFace(files) => folder::write(&merge, files, confirm, progress),
        Files::Onnx(model) => onnx::write(&merge, model, confirm, progress),
    }
}

/// The ending of the output's name.
fn ending(out: &Path) -> String {
    out.extension().and_then(|ending| ending.to_str()).unwrap_or("").to_ascii_lowercase()
}

/// Refuses an output whose ending asks for another container than the base's.
fn check_ending(base: &Base, options: &MergeOptions<'_>, out: &Path) -> Result<()> {
    let ending = ending(out);
    let like_a_file = matches!(ending.as_str(), "gguf" | "safetensors" | "onnx");
    let (problem, help) = match (base.files(), options.max_shard_size) {
        (Files::Gguf(_), None) if ending != "gguf" => (
            "the base is a GGUF file, and the output's name does not end in .gguf",
            "give it that ending; other containers are not written yet",
        ),
        (Files::Gguf(_), Some(_)) if like_a_file => (
            "splits are written as a folder, so that all of them appear or none",
            "name a folder for them, without an ending, or leave out --max-shard-size for one file",
        ),
        (Files::HuggingFace(_), _) if like_a_file => (
            "the base is a Hugging Face folder, and the output's name ends like a file's",
            "name a folder, or convert the base first",
        ),
        (Files::Onnx(_), None) if like_a_file && ending != "onnx" => (
            "the base is an ONNX file, and the output's name ends like another container's",
            "name a .onnx file, or a folder for it, its configuration and tokenizer, or convert the base first",
        ),
        (Files::Onnx(_), Some(_)) => (
            "an ONNX model is one file, with its weights beside it where they are large",
            "leave out --max-shard-size",
        ),
        _ => return Ok(()),
    };
    Err(Error::input(out, "output", problem, help))
}
