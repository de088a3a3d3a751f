//! What a Hugging Face folder holds beside the merged safetensors files, carried along.

use std::fs;
use std::path::{Path, PathBuf};

use curmerge_formats::mmap::MappedFile;
use curmerge_formats::output::{OutputFile, OutputFolder};
use curmerge_formats::safetensors::SafeTensors;

use super::pieces::Changes;
use crate::base::folder::{Folder, SAFETENSORS_INDEX as INDEX};
use crate::{Error, Result};

/// Deeper folders are a mistake or a trap.
const MAX_DEPTH: usize = 16;

/// Copy all files of the base's folder but the safetensors files of the model into `folder`; the index gets the new
/// total size, or stays behind where the tensors were `regrouped` into other files. Returns a line for each file that a
/// reader may stumble over.
pub(super) fn carry(
    base: &Path,
    shards: &[SafeTensors],
    changes: &Changes<'_>,
    regrouped: bool,
    folder: &OutputFolder,
) -> Result<Vec<String>> {
    let grown: i128 =
        changes.values().map(|c| i128::from(c.output_bytes()) - i128::from(c.stored_bytes())).sum();
    let mut found = Found::default();
    found.walk(base, Path::new(""), 0)?;
    found.files.sort();
    for file in &std::mem::take(&mut found.files) {
        let source = base.join(file);
        let target = folder.path().join(file);
        if shards.iter().any(|s| s.path() == source) || regrouped && file == Path::new(INDEX) {
            continue;
        }
        let name = file.to_string_lossy();
        if target.exists() {
            // No shard of the base, but called like one of the output.
            found.notes.push(format!("{name} was left out: a shard of the output has its name"));
            continue;
        }
        if is_weights(file) {
            found.notes.push(format!("{name} was carried along without the adapter"));
        }
        if grown != 0 && file == Path::new(INDEX) {
            folder.subfolder(file.parent().unwrap_or(Path::new("")))?;
            let mut copy = OutputFile::create(&target, &[])?;
            let index = Folder::new(base).text(INDEX)?.unwrap_or_default();
            copy.append(with_size(&index, grown).unwrap_or(index).as_bytes())?;
            copy.commit()?;
        } else {
            copy(&source, file, folder)?;
        }
    }
    found.notes.sort();
    Ok(found.notes)
}

/// Copy all files of a folder but weights in any form, their index and those that `skipped` names. Returns a line for
/// each that was left out.
pub(crate) fn carry_companions(
    base: &Path,
    folder: &OutputFolder,
    skipped: impl Fn(&Path) -> bool,
) -> Result<Vec<String>> {
    let mut found = Found::default();
    found.walk(base, Path::new(""), 0)?;
    found.files.sort();
    for file in found.files.iter().filter(|file| !is_weights(file) && *file != Path::new(INDEX)) {
        if !skipped(file) {
            copy(&base.join(file), file, folder)?;
        }
    }
    found.notes.sort();
    Ok(found.notes)
}

/// Copy a file to a relative path of the folder.
pub(super) fn copy(source: &Path, file: &Path, folder: &OutputFolder) -> Result<()> {
    folder.subfolder(file.parent().unwrap_or(Path::new("")))?;
    let mut copy = OutputFile::create(&folder.path().join(file), &[])?;
    let mapped = MappedFile::open(source)?;
    copy.copy_from(&mapped, 0, mapped.bytes().len() as u64)?;
    Ok(copy.commit()?)
}

/// What lies in a folder.
#[derive(Default)]
struct Found {
    /// Ordinary files, those behind links included, relative to the folder.
    files: Vec<PathBuf>,
    notes: Vec<String>,
}

impl Found {
    fn walk(&mut self, root: &Path, below: &Path, depth: usize) -> Result<()> {
        let folder = root.join(below);
        let fail = |e| Error::io(&folder, "list", e);
        for entry in fs::read_dir(&folder).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let (path, below) = (entry.path(), below.join(entry.file_name()));
            // Hugging Face's cache keeps files as links into a store, so links are followed, but not to folders: one
            // to `/` would copy the disk.
            let kind = fs::metadata(&path).map_err(|e| Error::io(&path, "open", e))?;
            let is_link = entry.file_type().map_err(fail)?.is_symlink();
            let name = below.to_string_lossy().into_owned();
            if kind.is_file() {
                self.files.push(below);
            } else if !kind.is_dir() || is_link {
                self.notes.push(format!("{name} was left out: it is no ordinary file or folder"));
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

/// Whether the file holds weights in a form that is not merged into, which a loader might prefer.
fn is_weights(path: &Path) -> bool {
    let ending = path.extension().and_then(|e| e.to_str());
    // Beside an ONNX model lie model.onnx_data, model.onnx_data_1 or model.onnx.data.
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.contains(".onnx") || matches!(ending, Some("bin" | "pth" | "pt" | "gguf" | "h5" | "safetensors"))
}

/// The text of the index with its `total_size` grown by so many bytes and nothing else changed; `None` where it has no
/// such number.
fn with_size(text: &str, grown: i128) -> Option<String> {
    const KEY: &str = "\"total_size\"";
    let after = text.find(KEY)? + KEY.len();
    let number = after + text[after..].find(|c: char| c.is_ascii_digit())?;
    let between = &text[after..number];
    if between.trim() != ":" {
        return None;
    }
    let end = number + text[number..].find(|c: char| !c.is_ascii_digit())?;
    let size: i128 = text[number..end].parse().ok()?;
    Some(format!("{}{}{}", &text[..number], size.checked_add(grown)?, &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_size_changes_in_the_index() {
        let text = "{\"metadata\": {\"total_size\" : 120, \"x\": 1},\n \"weight_map\": {}}";
        let mended = "{\"metadata\": {\"total_size\" : 70, \"x\": 1},\n \"weight_map\": {}}";
        assert_eq!(with_size(text, -50).as_deref(), Some(mended));
        assert_eq!(with_size("{\"metadata\": {}}", 1), None);
        assert_eq!(with_size("{\"total_size\": \"9\"}", 1), None);
    }
}
