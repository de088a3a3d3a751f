//! The companions of a model: the files in its Hugging Face folder that are not its weights.

use std::fs;
use std::path::{Path, PathBuf};

use curmerge_formats::mmap::MappedFile;
use curmerge_formats::output::{OutputFile, OutputFolder};
use serde::Serialize;

use super::shard_index;
use crate::base::folder::SAFETENSORS_INDEX;
use crate::{Error, Result};

/// Deeper folders are a mistake or a trap.
const MAX_DEPTH: usize = 16;

/// A file of a model's folder that the output lacks, or contains unchanged though it holds weights. Paths are
/// relative to the folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Companion {
    /// Left out, because a shard of the output has its name.
    NameTaken(PathBuf),
    /// Copied unchanged: weights in a form that is not rewritten, which a loader might prefer.
    OldWeights(PathBuf),
    /// Left out, because it is neither an ordinary file nor an ordinary folder.
    NotOrdinary(PathBuf),
}

impl Companion {
    /// The path.
    pub fn path(&self) -> &Path {
        match self {
            Companion::NameTaken(path) | Companion::OldWeights(path) | Companion::NotOrdinary(path) => path,
        }
    }
}

/// Copies all files of a Hugging Face folder except those that `skipped` names, which are given with their
/// full path. The size in the index changes by `growth` bytes. Returns the files that a user should know of,
/// sorted by path.
pub(super) fn copy_folder(
    base: &Path,
    folder: &OutputFolder,
    growth: i128,
    skipped: impl Fn(&Path) -> bool,
) -> Result<Vec<Companion>> {
    let Found { files, mut noted } = Found::in_folder(base)?;
    for file in files {
        let (source, target) = (base.join(&file), folder.path().join(&file));
        if skipped(&source) {
            continue;
        }
        if target.exists() {
            noted.push(Companion::NameTaken(file));
            continue;
        }
        if growth != 0 && file == Path::new(SAFETENSORS_INDEX) {
            let mut index = OutputFile::create(&target, &[])?;
            index.append(shard_index::grown(base, growth)?.as_bytes())?;
            index.commit()?;
        } else {
            copy(&source, &file, folder)?;
        }
        if is_weights(&file) {
            noted.push(Companion::OldWeights(file));
        }
    }
    noted.sort_by(|a, b| a.path().cmp(b.path()));
    Ok(noted)
}

/// Copies all files of a Hugging Face folder except weights in any form, their index, and the files that
/// `skipped` names by their path within the folder. Returns what was left out besides these.
///
/// # Errors
/// A file that cannot be read or written; folders nested too deep.
pub fn copy_companions(
    base: &Path,
    folder: &OutputFolder,
    skipped: impl Fn(&Path) -> bool,
) -> Result<Vec<Companion>> {
    let Found { files, noted } = Found::in_folder(base)?;
    for file in files.iter().filter(|file| !is_weights(file) && *file != Path::new(SAFETENSORS_INDEX)) {
        if !skipped(file) {
            copy(&base.join(file), file, folder)?;
        }
    }
    Ok(noted)
}

/// Copies a file to a relative path of the folder.
pub(super) fn copy(source: &Path, file: &Path, folder: &OutputFolder) -> Result<()> {
    folder.subfolder(file.parent().unwrap_or(Path::new("")))?;
    let mut copy = OutputFile::create(&folder.path().join(file), &[])?;
    let mapped = MappedFile::open(source)?;
    copy.copy_from(&mapped, 0, mapped.bytes().len() as u64)?;
    Ok(copy.commit()?)
}

/// The content of a folder and its subfolders, sorted.
#[derive(Default)]
struct Found {
    /// Ordinary files, also those that links lead to, relative to the folder.
    files: Vec<PathBuf>,
    /// All other entries.
    noted: Vec<Companion>,
}

impl Found {
    fn in_folder(folder: &Path) -> Result<Self> {
        let mut found = Self::default();
        found.walk(folder, Path::new(""), 0)?;
        found.files.sort();
        found.noted.sort();
        Ok(found)
    }

    fn walk(&mut self, root: &Path, below: &Path, depth: usize) -> Result<()> {
        let folder = root.join(below);
        let fail = |e| Error::io(&folder, "list", e);
        for entry in fs::read_dir(&folder).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let (path, below) = (entry.path(), below.join(entry.file_name()));
            // Hugging Face's cache keeps files as links into a store, so links to files are followed. Links
            // to folders are not: one to `/` would copy the disk.
            let kind = fs::metadata(&path).map_err(|e| Error::io(&path, "open", e))?;
            let is_link = entry.file_type().map_err(fail)?.is_symlink();
            if kind.is_file() {
                self.files.push(below);
            } else if !kind.is_dir() || is_link {
                self.noted.push(Companion::NotOrdinary(below));
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
}

/// Whether the file holds weights in a form that is not rewritten.
fn is_weights(path: &Path) -> bool {
    let ending = path.extension().and_then(|e| e.to_str());
    // An ONNX model may come with model.onnx_data, model.onnx_data_1 or model.onnx.data.
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.contains(".onnx") || matches!(ending, Some("bin" | "pth" | "pt" | "gguf" | "h5" | "safetensors"))
}
