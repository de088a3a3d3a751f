//! An open ONNX file with the bytes of its tensors, and the folder of its configuration and tokenizer.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use curmerge_formats::dtype::DType;
use curmerge_formats::onnx::{Onnx, OnnxTensor};

use crate::base::folder::{CONFIG, GENAI_CONFIG, SAFETENSORS_INDEX};
use crate::base::tensor::StoredTensor;
use crate::{Error, Result};

/// An open ONNX model.
#[derive(Debug)]
pub struct OnnxModel {
    onnx: Onnx,
    /// Decoded bytes of tensors that the file stores in another form than raw data.
    copied: Vec<Vec<u8>>,
    /// File and offset of the tensors located so far, by name.
    places: BTreeMap<String, (usize, u64)>,
    folder: PathBuf,
    in_subfolder: bool,
}

impl OnnxModel {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let onnx = Onnx::open(path)?;
        let (folder, in_subfolder) = folder_of(path);
        Ok(Self { onnx, copied: Vec::new(), places: BTreeMap::new(), folder, in_subfolder })
    }

    /// The model's graph and initializers.
    pub fn onnx(&self) -> &Onnx {
        &self.onnx
    }

    /// The folder of its configuration and tokenizer: its own, or the parent if its own is called `onnx`.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether [`Self::folder`] is the parent of the file's folder.
    pub fn is_in_subfolder(&self) -> bool {
        self.in_subfolder
    }

    /// The bytes of a file by number: 0 is the model, then come external data files, then the decoded
    /// tensors.
    pub fn bytes(&self, file: usize) -> &[u8] {
        let external = self.onnx.external_files();
        match file.checked_sub(1) {
            None => self.onnx.bytes(),
            Some(file) if file < external.len() => external[file].file.bytes(),
            Some(file) => &self.copied[file - external.len()],
        }
    }

    /// Refuses a file of this number that was changed or replaced since it was opened.
    pub(in crate::base) fn must_be_unchanged(&self, file: usize) -> Result<()> {
        match file.checked_sub(1) {
            None => self.onnx.file().unchanged()?,
            Some(file) => {
                if let Some(external) = self.onnx.external_files().get(file) {
                    external.file.unchanged()?;
                }
            }
        }
        Ok(())
    }

    /// Where the bytes of the tensor with this name are stored.
    pub(super) fn place(&mut self, name: &str, tensor: &OnnxTensor) -> Result<StoredTensor> {
        let (file, offset) = match self.places.get(name) {
            Some(&place) => place,
            None => {
                let place = match self.onnx.position(tensor)? {
                    Some((file, offset)) => (file.map_or(0, |file| file + 1), offset),
                    None => {
                        self.copied.push(self.onnx.data(tensor)?.into_owned());
                        (self.onnx.external_files().len() + self.copied.len(), 0)
                    }
                };
                self.places.insert(name.to_string(), place);
                place
            }
        };
        let dtype = tensor.element.dtype().unwrap_or(DType::U8);
        Ok(StoredTensor { stored_name: name.to_string(), dtype, file, offset, bytes: tensor.bytes })
    }
}

/// The folder of the configuration, and whether it is the parent of the file's own.
fn folder_of(path: &Path) -> (PathBuf, bool) {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let configured = |folder: &Path| CONFIGS.iter().any(|name| folder.join(name).is_file());
    // transformers.js puts models in a subfolder called `onnx`.
    let within = folder.canonicalize().is_ok_and(|folder| folder.file_name().is_some_and(|n| n == "onnx"));
    let above = folder.join("..");
    let up = !configured(folder) && within && configured(&above);
    (if up { above } else { folder.to_path_buf() }, up)
}

/// Files that tell a model's architecture.
const CONFIGS: &[&str] = &[CONFIG, GENAI_CONFIG];

/// The ONNX file of a folder that has no other weights; any other path unchanged.
///
/// # Errors
/// A folder with several ONNX files; one that cannot be read.
pub(in crate::base) fn file_in(path: PathBuf) -> Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path);
    }
    let (mut found, safetensors) = list(&path)?;
    let below = path.join("onnx");
    if found.is_empty() && below.is_dir() {
        found = list(&below)?.0;
    }
    if safetensors {
        return Ok(path);
    }
    match found.as_slice() {
        [] => Ok(path),
        [file] => Ok(file.clone()),
        [first, second, ..] => {
            let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let problem =
                format!("it has {} ONNX files, such as {} and {}", found.len(), name(first), name(second));
            Err(Error::file(path, problem, "name one of them"))
        }
    }
}

/// The ONNX files of a folder, sorted by name, and whether it has a model in safetensors files.
fn list(folder: &Path) -> Result<(Vec<PathBuf>, bool)> {
    let fail = |e| Error::io(folder, "list", e);
    let (mut found, mut safetensors) = (Vec::new(), false);
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let name = path.file_name().unwrap_or_default();
        // An adapter is a safetensors file too.
        safetensors |= name == "model.safetensors" || name == SAFETENSORS_INDEX;
        if path.extension().is_some_and(|ending| ending == "onnx") && path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok((found, safetensors))
}
