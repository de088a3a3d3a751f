//! `W + s C U R`, and LoRA adapters of other programs, as a new model file.
//!
//! [`crate::rewrite`] copies tensors that no adapter changes byte for byte. The others are decoded, changed
//! and rounded a few blocks of rows at a time ([`requantize`] says how). So a merge needs some megabytes,
//! whatever the size of the model. The output has the base's container, metadata, names and order, except
//! that a folder of codes becomes one of their numbers (`decoded.rs`).

mod adapted;
mod base_check;
mod card;
mod decoded;
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

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use curmerge_formats::adapter::Adapter;
use curmerge_formats::imatrix::Imatrix;

use crate::base::{Base, Files};
use crate::card::Kind;
use crate::convert::FileType;
use crate::error::CallerOption;
use crate::lora::{Lora, TrainedLora};
use crate::rewrite::Destination;
use crate::{Error, Result};

pub use crate::cur::fingerprint::BaseCheck;
pub(crate) use card::text as card_text;
pub use report::{MergeReport, TensorReport};
pub use storage::Storage;

use adapted::Adapted;
use deltas::Delta;

/// How to merge.
#[derive(Clone, Debug, Default)]
pub struct MergeOptions<'a> {
    /// Whether the values of the base must be those that the adapters were made on. Default:
    /// [`BaseCheck::SameValues`].
    pub base_check: BaseCheck,
    /// llama-quantize's mixture of types for a whole GGUF file, the program's `--type`. Default: `None`,
    /// which copies every tensor that no adapter changes.
    pub file_type: Option<FileType>,
    /// How much rounding errors of each column count in that mixture. Default: `None`, all alike.
    pub imatrix: Option<&'a Imatrix>,
    /// The types of the changed tensors, the program's `--type-adapted`. Default: [`Storage::AsStored`].
    pub storage: Storage,
    /// Upper limit of the tensors in one output file, in bytes. Default: `None`, which writes a GGUF model as
    /// one file and a folder in the base's own shards.
    pub max_shard_size: Option<u64>,
    /// Whether to replace an existing output folder. Default: false. An existing file is always replaced.
    pub force: bool,
    /// Further files that the output must not replace. Default: none. The base's files are always protected.
    /// List the adapter's file here: an [`Adapter`] does not know where it was read from.
    pub protect: Vec<PathBuf>,
}

/// An adapter to merge.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// curmerge's own. [`MergeOptions::base_check`] decides whether it belongs to the base.
    Cur(&'a Adapter),
    /// A LoRA of another program. Its names and shapes must fit; it does not record its base.
    Lora(&'a Lora),
    /// A LoRA in memory, made for the base.
    Trained(&'a TrainedLora),
}

/// A merge that is about to be written.
struct Merge<'a> {
    base: &'a Base,
    /// What is added to each tensor, by its canonical name.
    deltas: BTreeMap<&'a str, Vec<Delta<'a>>>,
    sources: &'a [(Source<'a>, f32)],
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
            chat_template: self.base.given_chat().template.as_deref(),
            card: None,
        }
    }

    /// The destination of a Hugging Face folder.
    ///
    /// # Errors
    /// A model card of the base that cannot be read.
    fn folder(&self) -> Result<Destination<'_>> {
        let card = card::text(Kind::Model, self.base, self.sources, self.options)?;
        Ok(Destination { card: Some(card), ..self.destination() })
    }
}

/// Writes the merged model to `out`.
///
/// Each source comes with a factor, which multiplies the adapter's own scale: 1 merges its whole change, 0.5
/// half of it, and -1 subtracts it. The changes of one matrix add up, in the order of the sources.
///
/// A GGUF base becomes a file, or with a limited size of files a folder of splits. A Hugging Face folder
/// becomes a folder. An ONNX base becomes a file, with others beside it if the base has its weights apart;
/// or, if `out` does not end in .onnx, a folder that also has the configuration and the tokenizer.
///
/// `progress` gets the number of finished changed tensors, and of all.
///
/// # Errors
/// [`Error::OtherBase`] or [`Error::OtherValues`] for an adapter of another base; an output whose ending asks
/// for another container; a target that the base does not have; a type that cannot be written or does not
/// divide a row; a changed value that its type cannot hold; a full disk. After an error `out` is as it was
/// before.
pub fn merge(
    base: &Base,
    sources: &[(Source<'_>, f32)],
    options: &MergeOptions<'_>,
    out: impl AsRef<Path>,
    progress: impl Fn(u64, u64),
) -> Result<MergeReport> {
    let out = out.as_ref();
    check_ending(base, options, out)?;
    let merge = Merge { base, deltas: deltas::by_tensor(base, sources)?, sources, options, out };
    if let (Some(file_type), false) = (options.file_type, matches!(base.files(), Files::Gguf(_))) {
        let problem = format!("{file_type} is a mixture of types for a whole GGUF file, and this is none");
        let help = "convert the base first, or store the changed tensors alone in another type";
        return Err(Error::input(base.path(), "container", problem, help).avoidable(CallerOption::Storage));
    }
    let deviations = RefCell::new(Vec::new());
    let check = || -> Result<()> {
        deviations.replace(base_check::deviations(base, sources, options.base_check)?);
        Ok(())
    };
    let mut confirm: Option<&dyn Fn() -> Result<()>> = Some(&check);
    if let Storage::Narrowest { .. } = options.storage {
        // Choosing a type computes already.
        confirm.take().map_or(Ok(()), |confirm| confirm())?;
    }
    let report = match base.files() {
        Files::Gguf(model) => gguf::write(&merge, model, confirm, progress),
        Files::HuggingFace(files) if base.decoded_codes_of().is_some() => {
            decoded::write(&merge, files, confirm, progress)
        }
        Files::HuggingFace(files) => folder::write(&merge, files, confirm, progress),
        Files::Onnx(model) => onnx::write(&merge, model, confirm, progress),
    }?;
    Ok(MergeReport { deviations: deviations.take(), ..report })
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
            "give it that ending, or convert the base to another container first",
        ),
        (Files::Gguf(_), Some(_)) if like_a_file => (
            "splits are written as a folder, so that all of them appear or none",
            "name a folder for them, without an ending, or write one file without a limit of its size",
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
            "merge without a limit of a file's size",
        ),
        _ => return Ok(()),
    };
    let error = Error::input(out, "output", problem, help);
    Err(if options.max_shard_size.is_some() { error.avoidable(CallerOption::MaxShardSize) } else { error })
}
