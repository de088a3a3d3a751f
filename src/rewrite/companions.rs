//! The companions of a model: the files in its Hugging Face folder that are not its weights. Those that belong
//! to every model of these settings (configuration, tokenizer, templates, code, documents) go along. Others
//! would change what a loader makes of the output, or tell what is not its own.

use std::fs;
use std::path::{Path, PathBuf};

use curmerge_formats::mmap::MappedFile;
use curmerge_formats::output::{OutputFile, OutputFolder, TEMPORARY};
use serde::Serialize;

use super::shard_index;
use crate::base::folder::SAFETENSORS_INDEX;
use crate::card;
use crate::lora::peft::CONFIG as ADAPTER_CONFIG;
use crate::{Error, Result};

/// Deeper folders are a mistake or a trap.
const MAX_DEPTH: usize = 16;

/// A file or folder within a model's folder that is left out of the output, and why. Paths are relative to the
/// folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Companion {
    /// Weights in a form that is not rewritten, or of no shard of the model. A loader might prefer them.
    OldWeights(PathBuf),
    /// Part of an adapter, which a loader would apply once more.
    OfAdapter(PathBuf),
    /// What a trainer saves to go on later.
    OfTraining(PathBuf),
    /// A model card of the base. It is in the output under another name, since that has a card of its own.
    BaseCard(PathBuf),
    /// A link that leads out of the folder, or nowhere.
    LeadsOut(PathBuf),
    /// Neither an ordinary file nor an ordinary folder.
    NotOrdinary(PathBuf),
}

impl Companion {
    /// The path.
    pub fn path(&self) -> &Path {
        match self {
            Companion::OldWeights(path)
            | Companion::OfAdapter(path)
            | Companion::OfTraining(path)
            | Companion::BaseCard(path)
            | Companion::LeadsOut(path)
            | Companion::NotOrdinary(path) => path,
        }
    }

    /// Why a file is left out, if its name says so.
    fn of_file(path: &Path) -> Option<Self> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let kind = if is_of_adapter(name) {
            Companion::OfAdapter
        } else if is_of_training(name) {
            Companion::OfTraining
        } else if is_weights(path) {
            Companion::OldWeights
        } else {
            return None;
        };
        Some(kind(path.into()))
    }

    /// Why a folder is left out with all that it holds, if its content or name says so.
    fn of_folder(path: &Path, below: &Path) -> Option<Self> {
        let name = below.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // transformers' Trainer and DeepSpeed.
        let of_step = ["checkpoint-", "global_step"].iter().filter_map(|start| name.strip_prefix(start));
        if of_step
            .into_iter()
            .any(|step| !step.is_empty() && step.bytes().all(|digit| digit.is_ascii_digit()))
        {
            return Some(Companion::OfTraining(below.into()));
        }
        path.join(ADAPTER_CONFIG).is_file().then(|| Companion::OfAdapter(below.into()))
    }
}

/// Copies the files of a Hugging Face folder that belong to every model of these settings: not weights, and
/// none that `skipped` names, which are given with their full path. The size in the index changes by `growth`
/// bytes. With a new model card, the base's is kept as [`renamed_card`] says. Returns what was left out or
/// renamed besides, sorted by path.
///
/// # Errors
/// A file that cannot be read or written; folders nested too deep.
pub fn copy_folder(
    base: &Path,
    folder: &OutputFolder,
    growth: i128,
    card: Option<&str>,
    skipped: impl Fn(&Path) -> bool,
) -> Result<Vec<Companion>> {
    if let Some(text) = card {
        folder.write(card::FILE, text.as_bytes())?;
    }
    let Found { files, mut left_out, .. } = Found::in_folder(base)?;
    for file in files {
        let source = base.join(&file);
        if skipped(&source) {
            continue;
        }
        if let Some(why) = Companion::of_file(&file) {
            left_out.push(why);
        } else if growth != 0 && file == Path::new(SAFETENSORS_INDEX) {
            folder.write(&file, shard_index::grown(base, growth)?.as_bytes())?;
        } else if let Some(name) = card.and_then(|_| renamed_card(&file)) {
            copy(&source, &name, folder)?;
            left_out.push(Companion::BaseCard(file));
        } else {
            copy(&source, &file, folder)?;
        }
    }
    left_out.sort_by(|a, b| a.path().cmp(b.path()));
    Ok(left_out)
}

/// The name that a card of the base gets beside that of the output: README.base.md for README.md,
/// README.base.base.md for README.base.md, and so on. `None` for any other file.
pub fn renamed_card(file: &Path) -> Option<PathBuf> {
    let middle = file.to_str()?.strip_prefix("README")?.strip_suffix(".md")?;
    let bases = middle.split(".base").all(str::is_empty);
    bases.then(|| format!("README{middle}.base.md").into())
}

/// The same for an output in another container: the files that `skipped` names are given by their path within
/// the folder, and the weights are not among what is returned.
///
/// # Errors
/// A file that cannot be read or written; folders nested too deep.
pub fn copy_companions(
    base: &Path,
    folder: &OutputFolder,
    skipped: impl Fn(&Path) -> bool,
) -> Result<Vec<Companion>> {
    let Found { files, mut left_out, .. } = Found::in_folder(base)?;
    for file in files.iter().filter(|file| *file != Path::new(SAFETENSORS_INDEX) && !skipped(file)) {
        match Companion::of_file(file) {
            None => copy(&base.join(file), file, folder)?,
            Some(Companion::OldWeights(_)) => {}
            Some(why) => left_out.push(why),
        }
    }
    left_out.sort_by(|a, b| a.path().cmp(b.path()));
    Ok(left_out)
}

/// Copies a file to a relative path of the folder.
pub(super) fn copy(source: &Path, file: &Path, folder: &OutputFolder) -> Result<()> {
    folder.subfolder(file.parent().unwrap_or(Path::new("")))?;
    let mut copy = OutputFile::create(&folder.path().join(file), &[])?;
    let mapped = MappedFile::open(source)?;
    copy.copy_from(&mapped, 0, mapped.bytes().len() as u64)?;
    Ok(copy.commit()?)
}

/// The content of a folder and its subfolders.
struct Found {
    /// Ordinary files within the folder, sorted, relative to it.
    files: Vec<PathBuf>,
    /// Entries that no output takes.
    left_out: Vec<Companion>,
    /// Where links may lead.
    within: Vec<PathBuf>,
}

impl Found {
    fn in_folder(folder: &Path) -> Result<Self> {
        let own = fs::canonicalize(folder).map_err(|e| Error::io(folder, "open", e))?;
        let mut within = vec![own.clone()];
        // Hugging Face's cache keeps the files of MODEL/snapshots/REVISION as links into MODEL/blobs.
        let snapshots =
            own.parent().filter(|above| above.file_name().is_some_and(|name| name == "snapshots"));
        within.extend(snapshots.and_then(Path::parent).map(|model| model.join("blobs")));
        let mut found = Self { files: Vec::new(), left_out: Vec::new(), within };
        found.walk(folder, Path::new(""), 0)?;
        found.files.sort();
        Ok(found)
    }

    fn walk(&mut self, root: &Path, below: &Path, depth: usize) -> Result<()> {
        let folder = root.join(below);
        let fail = |e| Error::io(&folder, "list", e);
        for entry in fs::read_dir(&folder).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let (path, below) = (entry.path(), below.join(entry.file_name()));
            if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
                continue;
            }
            let is_link = entry.file_type().map_err(fail)?.is_symlink();
            if is_link && !self.leads_within(&path) {
                self.left_out.push(Companion::LeadsOut(below));
                continue;
            }
            let kind = fs::metadata(&path).map_err(|e| Error::io(&path, "open", e))?;
            if kind.is_file() {
                self.files.push(below);
            } else if !kind.is_dir() || is_link {
                // Links to folders may form a circle.
                self.left_out.push(Companion::NotOrdinary(below));
            } else if let Some(why) = Companion::of_folder(&path, &below) {
                self.left_out.push(why);
            } else if entry.file_name() != ".git" {
                if depth == MAX_DEPTH {
                    let help = "name the folder of the model itself";
                    return Err(Error::input(&path, "folder", "nested too deep", help));
                }
                self.walk(root, &below, depth + 1)?;
            }
        }
        Ok(())
    }

    /// Whether a link leads to something within the folder.
    fn leads_within(&self, link: &Path) -> bool {
        fs::canonicalize(link).is_ok_and(|target| self.within.iter().any(|folder| target.starts_with(folder)))
    }
}

/// Whether the file holds weights.
fn is_weights(path: &Path) -> bool {
    let ending = path.extension().and_then(|e| e.to_str());
    // An ONNX model may come with model.onnx_data, model.onnx_data_1 or model.onnx.data.
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let other = ["bin", "pth", "pt", "ckpt", "gguf", "h5", "msgpack", "npz", "safetensors"];
    name.contains(".onnx") || ending.is_some_and(|ending| other.contains(&ending))
}

/// Whether a file of this name is part of an adapter of PEFT or mlx-lm.
fn is_of_adapter(name: &str) -> bool {
    let is_weights = |name: &str| name.ends_with(".safetensors") || name.ends_with(".bin");
    name == ADAPTER_CONFIG
        || (name.starts_with("adapter_model") || name.ends_with("adapters.safetensors")) && is_weights(name)
}

/// Whether a trainer saves a file of this name to go on later.
fn is_of_training(name: &str) -> bool {
    let names = [
        "optimizer.pt",
        "optimizer.bin",
        "scheduler.pt",
        "scaler.pt",
        "training_args.bin",
        "trainer_state.json",
    ];
    names.contains(&name) || name.starts_with("rng_state") && name.ends_with(".pth")
}
