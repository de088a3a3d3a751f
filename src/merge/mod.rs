//! `W + s C U R`, and LoRA adapters of other programs, into a new model file, as a stream.
//!
//! Every tensor that the adapter leaves alone is copied byte for byte; the others are decoded, changed and rounded a few
//! blocks of rows at a time ([`requantize`] says how), so that a merge needs some megabytes whatever the model's size.
//! The output has the base's container, metadata, names and order, and where asked for the size of its files limited.

mod blocks;
mod carried;
mod gain;
mod onnx;
mod pieces;
pub mod report;
pub mod requantize;
mod shards;
mod storage;
mod tensor;
mod terms;

use std::path::{Path, PathBuf};

use curmerge_formats::adapter::Adapter;
use curmerge_formats::gguf::Value;
use curmerge_formats::imatrix::Imatrix;
use curmerge_formats::output::{OutputFile, OutputFolder};
use curmerge_formats::safetensors::SafeTensors;

use crate::base::folder::{Folder, SAFETENSORS_INDEX};
use crate::base::{Base, Files};
use crate::convert::FileType;
use crate::convert::retype::{self, Retyped};
use crate::lora::Lora;
use crate::{Error, Result};

pub(crate) use carried::carry_companions;
pub use report::{MergeReport, TensorReport};
pub use storage::Storage;

use pieces::{Change, Changes, Piece};
use tensor::Adapted;

/// How to merge.
#[derive(Clone, Default)]
pub struct MergeOptions<'a> {
    /// Called once before anything is computed, while what stays is copied already, to say whether the adapters belong
    /// to the base: an error ends the merge.
    pub confirm: Option<&'a dyn Fn() -> Result<()>>,
    /// llama-quantize's mixture for the whole of a GGUF file; `None` leaves every tensor that no adapter changes as it is.
    pub file_type: Option<FileType>,
    /// Weights by which rounding errors of columns count in that mixture.
    pub imatrix: Option<&'a Imatrix>,
    /// The types of the changed tensors.
    pub storage: Storage,
    /// Bytes of tensors that one file of the output may hold; `None` writes a GGUF model as one file and a folder in
    /// the base's own shards.
    pub max_shard_size: Option<u64>,
    /// Replace an output folder that stands.
    pub force: bool,
    /// Further files that the output must not replace, such as the adapter's.
    pub protect: Vec<PathBuf>,
}

impl MergeOptions<'_> {
    /// The files that an output must not replace.
    fn inputs<'a>(&'a self, base: &'a Base) -> Vec<&'a Path> {
        base.inputs().into_iter().chain(self.protect.iter().map(PathBuf::as_path)).collect()
    }
}

/// An adapter to merge.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// curmerge's own. Whether it belongs to the base is for [`MergeOptions::confirm`] to say, by
    /// [`crate::cur::fingerprint::check`]; here only names and shapes must fit.
    Cur(&'a Adapter),
    /// A LoRA of another program.
    Lora(&'a Lora),
}

/// Write the merged model to `out`: a file for a GGUF base, or a folder of its splits where the size of files is limited; a
/// folder for a Hugging Face folder; for an ONNX base a file (with one beside it where the base's weights are apart), or
/// where `out` has not its ending a folder that has the configurations and the tokenizer too. Each source comes with a
/// factor of its change; changes of one matrix add up.
///
/// # Errors
/// Before anything is written: an output whose ending asks for another container, a target that the base has not, a
/// type that cannot be written or does not divide a row. Later: a changed value that its type cannot hold, a full disk.
/// After an error nothing stands at `out` that did not before. `progress` is told how many of how many tensors are done.
pub fn merge(
    base: &Base,
    sources: &[(Source<'_>, f32)],
    options: &MergeOptions<'_>,
    out: &Path,
    progress: impl Fn(u64, u64),
) -> Result<MergeReport> {
    check_ending(base, options, out)?;
    let terms = terms::by_tensor(base, sources)?;
    let mut confirm = options.confirm;
    let mut confirm = move || confirm.take().map_or(Ok(()), |confirm| confirm());
    if matches!(options.storage, Storage::Narrowest { .. }) {
        // Choosing computes already.
        confirm()?;
    }
    let mut report = MergeReport { model: out.into(), ..Default::default() };
    if let (Files::Onnx(model), None) = (base.files(), options.file_type) {
        report.types_are_fixed = true;
        let terms = &terms::by_stored_tensor(base, terms);
        let merging = onnx::Merge { base, model, terms, options };
        let tensors = &mut report.tensors;
        let done = |tensor, count| {
            tensors.push(tensor);
            progress(tensors.len() as u64, count);
        };
        if ending(out) == "onnx" {
            merging.write(out, &mut confirm, done)?;
        } else {
            report.model = merging.write_folder(out, &mut confirm, done)?;
        }
        return Ok(report);
    }
    let (mut changes, metadata) = match options.file_type {
        Some(file_type) => {
            let (changes, metadata, notes) = retyped(base, file_type, options.imatrix)?;
            report.notes = notes;
            (changes, Some(metadata))
        }
        None => (Changes::new(), None),
    };
    for (name, terms) in &terms {
        let weight = base.weight(name)?;
        // `by_tensor` found it.
        let tensor = &base.tensors()[*name];
        let mut adapted = Adapted { name, terms, weight, weights: None, dtype: tensor.dtype };
        if let Some(Change::Retyped(retyped)) = changes.get(tensor.stored_name.as_str()) {
            adapted.dtype = retyped.choice.dtype;
            adapted.weights = retyped.weights;
        }
        adapted.dtype = storage::choose(options.storage, base, tensor, &adapted)?;
        changes.insert(tensor.stored_name.as_str(), Change::Adapted(adapted));
    }
    let inputs = options.inputs(base);

    let (mut done, mut tensors) = (0, Vec::new());
    let mut write = |pieces: &[Piece<'_>], file: OutputFile| -> Result<()> {
        pieces::write(pieces, base.path(), &file, &mut confirm, |tensor| {
            tensors.extend(tensor);
            done += 1;
            progress(done, changes.len() as u64);
        })?;
        Ok(file.commit()?)
    };
    match (base.files(), options.max_shard_size) {
        (Files::Gguf(model), None) => {
            let file = OutputFile::create(out, &inputs)?;
            write(&pieces::of_gguf(model, metadata.as_deref(), &changes)?, file)?;
        }
        (Files::Gguf(model), Some(limit)) => {
            let splits = shards::of_gguf(model, metadata.as_deref(), &changes, limit, folder_name(out)?)?;
            let folder = OutputFolder::create(out, &inputs, options.force)?;
            for (name, pieces) in &splits {
                write(pieces, folder.file(name)?)?;
            }
            folder.commit()?;
            report.model = out.join(&splits[0].0);
        }
        (Files::HuggingFace(files), limit) => {
            let (shards, index) = match limit {
                None => (own_shards(files, &changes)?, None),
                Some(limit) => shards::of_safetensors(
                    files,
                    &changes,
                    limit,
                    Folder::new(base.path()).object(SAFETENSORS_INDEX)?,
                )?,
            };
            let folder = OutputFolder::create(out, &inputs, options.force)?;
            for (name, pieces) in &shards {
                write(pieces, folder.file(name)?)?;
            }
            if let Some(index) = index {
                let mut file = folder.file(SAFETENSORS_INDEX)?;
                file.append(index.as_bytes())?;
                file.commit()?;
            }
            report.notes.extend(carried::carry(base.path(), files, &changes, limit.is_some(), &folder)?);
            folder.commit()?;
        }
        // Done above, and a mixture is refused.
        (Files::Onnx(_), _) => {}
    }
    report.tensors = tensors;
    Ok(report)
}

/// What a mixture makes of a base: the tensors whose types change, the metadata, and what the user should know.
type Retyping<'a> = (Changes<'a>, Vec<(String, Value)>, Vec<String>);

fn retyped<'a>(base: &'a Base, file_type: FileType, imatrix: Option<&'a Imatrix>) -> Result<Retyping<'a>> {
    let Files::Gguf(model) = base.files() else {
        let problem = format!("{file_type} is a mixture of types for a whole GGUF file, and this is none");
        let help = "store the changed tensors in another type with --type-adapted, or convert the base first";
        return Err(Error::input(base.path(), "container", problem, help));
    };
    let tensors = retype::retyped(model, file_type, imatrix)?;
    let notes = retype::notes(&tensors);
    let changing = tensors.into_iter().filter(Retyped::changes);
    let changes = changing.map(|t| (t.tensor.name.as_str(), Change::Retyped(t))).collect();
    Ok((changes, retype::metadata(model.whole_metadata(), file_type), notes))
}

/// The files of a Hugging Face folder under their own names.
fn own_shards<'a>(files: &'a [SafeTensors], changes: &Changes<'a>) -> Result<Vec<shards::NamedPieces<'a>>> {
    let own = |file: &'a SafeTensors| {
        // Opened by a name that is UTF-8.
        let name = file.path().file_name().and_then(|n| n.to_str()).unwrap_or_default();
        Ok((name.to_string(), pieces::of_safetensors(file, changes)?))
    };
    files.iter().map(own).collect()
}

/// The name that splits are called after.
fn folder_name(out: &Path) -> Result<&str> {
    out.file_name().and_then(|name| name.to_str()).ok_or_else(|| {
        Error::input(out, "output", "no name that splits can be called after", "name a new folder")
    })
}

/// The ending of the output's name.
fn ending(out: &Path) -> String {
    out.extension().and_then(|ending| ending.to_str()).unwrap_or("").to_ascii_lowercase()
}

/// What the output is follows from its ending, and must be what the base is.
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
