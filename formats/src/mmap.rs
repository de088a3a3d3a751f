//! A file mapped read-only into memory: weights stay on disk, and the system loads the pages that are read.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A read-only mapped file with the path it was opened by.
#[derive(Debug)]
pub struct MappedFile {
    path: PathBuf,
    file: File,
    /// `None` for an empty file, which some systems refuse to map.
    map: Option<memmap2::Mmap>,
}

impl MappedFile {
    /// Maps the whole of an ordinary file. An empty file gives no bytes and no error.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be opened or mapped, or is not an ordinary file.
    pub fn open(path: &Path) -> Result<Self> {
        let fail = |action| move |source| Error::io(path, action, source);
        // Checked before it is opened, because opening a named pipe would wait for its writer.
        let kind = std::fs::metadata(path).map_err(fail("open"))?;
        if !kind.is_file() {
            let what = if kind.is_dir() { "it is a folder" } else { "it is not an ordinary file" };
            return Err(fail("read")(std::io::Error::new(std::io::ErrorKind::InvalidInput, what)));
        }
        let file = File::open(path).map_err(fail("open"))?;
        let length = file.metadata().map_err(fail("read the size"))?.len();
        let map = if length == 0 { None } else { Some(map(&file).map_err(fail("map"))?) };
        Ok(MappedFile { path: path.to_owned(), file, map })
    }

    /// The path as it was given to [`MappedFile::open`].
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The whole file.
    pub fn bytes(&self) -> &[u8] {
        self.map.as_deref().unwrap_or(&[])
    }

    /// The mapped file itself, for copies inside the kernel.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }
}

#[allow(unsafe_code)]
fn map(file: &File) -> std::io::Result<memmap2::Mmap> {
    // SAFETY: the map is private to this module, read-only, and handed out as shared bytes only. Another
    // program that rewrites the file meanwhile can change those bytes (or end this process with SIGBUS by
    // cutting the file short), as with every memory-mapped model; so parsers copy what they check and never
    // rely on the map for memory safety. This program never writes into an input: outputs go to new files
    // that are renamed into place.
    unsafe { memmap2::Mmap::map(file) }
}
