//! Files beside a model that hold the bytes of its tensors. They must lie in the model's folder; each is
//! mapped once.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use crate::error::{Error, Result, quoted};
use crate::mmap::MappedFile;

/// Smaller tensors (in bytes) stay in the model file by default, as onnx's own writer has it.
pub(super) const MIN_EXTERNAL: u64 = 1024;

/// A file that holds tensors of a model.
#[derive(Debug)]
pub struct ExternalFile {
    /// Its path relative to the model's folder, as the model's first tensor in it writes it.
    pub location: String,
    /// The mapped file.
    pub file: MappedFile,
}

/// Where a tensor lies.
pub(super) struct Place {
    /// Position among the files.
    pub(super) file: usize,
    /// First byte there.
    pub(super) offset: u64,
}

/// The external files of a model while it is read.
pub(super) struct ExternalFiles<'a> {
    model: &'a Path,
    /// The folders that a file may lie in, canonical: the folder of the model's path and the folder of the
    /// real file. They differ where a cache keeps links, as Hugging Face's does. Resolved when first needed.
    folders: Option<Vec<PathBuf>>,
    pub(super) files: Vec<ExternalFile>,
    /// Positions by location, and by canonical path.
    locations: BTreeMap<String, usize>,
    paths: BTreeMap<PathBuf, usize>,
}

const KEEP_FILES: &str = "keep the model's external files beside it, as the exporter wrote them";

impl<'a> ExternalFiles<'a> {
    pub(super) fn new(model: &'a Path) -> Self {
        ExternalFiles {
            model,
            folders: None,
            files: Vec::new(),
            locations: BTreeMap::new(),
            paths: BTreeMap::new(),
        }
    }

    /// Opens the file that the entries of a tensor at `place` name, and checks that its `needed` bytes lie in
    /// it.
    pub(super) fn place(&mut self, place: &str, entries: &[(String, String)], needed: u64) -> Result<Place> {
        let model = self.model;
        let malformed = |problem: String| Error::malformed(model, place, problem, KEEP_FILES);
        let find = |wanted: &str| -> Result<Option<&str>> {
            let mut found = entries.iter().filter(|(key, _)| key == wanted);
            match (found.next(), found.next()) {
                (Some(_), Some(_)) => Err(malformed(format!("external_data has {wanted} twice"))),
                (first, _) => Ok(first.map(|(_, value)| value.as_str())),
            }
        };
        let number = |key: &str| -> Result<Option<u64>> {
            let Some(text) = find(key)? else { return Ok(None) };
            let number = text.parse::<u64>();
            Ok(Some(number.map_err(|_| malformed(format!("its {key} is {}", quoted(text))))?))
        };
        let location =
            find("location")?.ok_or_else(|| malformed("external_data has no location".to_owned()))?;
        let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?);
        if let Some(length) = length.filter(|&length| length != needed) {
            let problem = format!("its shape takes {needed} bytes, but its external data have {length}");
            return Err(malformed(problem));
        }
        let file = self.open(place, location)?;
        let size = self.files[file].file.bytes().len() as u64;
        if offset.checked_add(needed).is_none_or(|end| end > size) {
            let problem = format!(
                "{needed} bytes from byte {offset} on go past the end of {} ({size} bytes)",
                quoted(location)
            );
            return Err(malformed(problem));
        }
        Ok(Place { file, offset })
    }

    fn open(&mut self, place: &str, location: &str) -> Result<usize> {
        if let Some(&known) = self.locations.get(location) {
            return Ok(known);
        }
        let model = self.model;
        let refuse = |problem: &str| {
            let problem = format!("its external file {} {problem}", quoted(location));
            Error::malformed(model, place, problem, KEEP_FILES)
        };
        check_location(location).map_err(refuse)?;
        let folder = match self.model.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let path = folder.join(location);
        let real = path.canonicalize().map_err(|error| refuse(&format!("cannot be opened ({error})")))?;
        let folders = match &self.folders {
            Some(folders) => folders,
            None => self.folders.insert(own_folders(model, folder)?),
        };
        if !folders.iter().any(|folder| real.starts_with(folder)) {
            return Err(refuse("is a link that leads out of the model's folder"));
        }
        if self.model.canonicalize().is_ok_and(|model| model == real) {
            return Err(refuse("is the model itself"));
        }
        let position = match self.paths.get(&real) {
            Some(&position) => position,
            None => {
                let file = MappedFile::open(&path)?;
                self.files.push(ExternalFile { location: location.to_owned(), file });
                self.paths.insert(real, self.files.len() - 1);
                self.files.len() - 1
            }
        };
        self.locations.insert(location.to_owned(), position);
        Ok(position)
    }
}

fn own_folders(model: &Path, folder: &Path) -> Result<Vec<PathBuf>> {
    let fail = |error| Error::io(model, "resolve the path", error);
    let mut folders = vec![folder.canonicalize().map_err(fail)?];
    folders.extend(model.canonicalize().map_err(fail)?.parent().map(Path::to_owned));
    Ok(folders)
}

/// Checks that a location stays within the folder that it is relative to, as onnx's checker does.
pub(super) fn check_location(location: &str) -> std::result::Result<(), &'static str> {
    if location.contains('\0') {
        return Err("is not a path");
    }
    // Other systems give these characters another meaning.
    if location.contains('\\') || location.contains(':') {
        return Err("is not a portable path");
    }
    let mut named = false;
    for component in Path::new(location).components() {
        match component {
            Component::Normal(_) => named = true,
            Component::CurDir => {}
            _ => return Err("is not relative to the model's folder, or leads out of it"),
        }
    }
    if named { Ok(()) } else { Err("is not the name of a file") }
}
