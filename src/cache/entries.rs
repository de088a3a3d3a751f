//! The files of a cache: listing them, clearing them, making room.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use curmerge_formats::SafeTensors;
use curmerge_formats::digest::is_digest;

use super::key::SUFFIX;
use super::{Cache, OF};
use crate::{Error, Result};

/// A file of the cache.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The file.
    pub path: PathBuf,
    /// The kind of result, such as `anchor`.
    pub kind: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// When it was made or last used.
    pub used: SystemTime,
}

/// What was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cleared {
    /// The number of files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

impl Entry {
    /// The entry of a file that has the name of one.
    fn at(path: PathBuf) -> Option<Self> {
        let name = path.file_name()?.to_str()?.strip_suffix(SUFFIX)?;
        let (kind, digest) = name.rsplit_once('-')?;
        let named = !kind.is_empty() && kind.bytes().all(|byte| byte.is_ascii_lowercase());
        // Not through a link: what it leads to is not the cache's.
        let metadata = std::fs::symlink_metadata(&path).ok().filter(std::fs::Metadata::is_file)?;
        let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        let kind = kind.to_owned();
        (named && is_digest(digest)).then_some(Self { path, kind, bytes: metadata.len(), used })
    }

    /// What the result is of, as the file says; `None` for a file that cannot be read.
    pub fn of(&self) -> Option<String> {
        SafeTensors::open(&self.path).ok()?.metadata().get(OF).cloned()
    }
}

impl Cache {
    /// The files of the cache, the last used first. Other files in the folder are none of it.
    ///
    /// # Errors
    /// A folder that cannot be listed.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        let fail = |source| Error::io(self.folder(), "list the folder", source);
        if !self.folder().exists() {
            return Ok(Vec::new());
        }
        let mut entries = Vec::new();
        for file in std::fs::read_dir(self.folder()).map_err(fail)? {
            entries.extend(Entry::at(file.map_err(fail)?.path()));
        }
        entries.sort_by(|a, b| (b.used, &a.path).cmp(&(a.used, &b.path)));
        Ok(entries)
    }

    /// Removes all files of the cache.
    ///
    /// # Errors
    /// A folder that cannot be listed, or a file that cannot be removed.
    pub fn clear(&self) -> Result<Cleared> {
        let mut cleared = Cleared { files: 0, bytes: 0 };
        for entry in self.entries()? {
            remove(&entry.path)?;
            cleared = Cleared { files: cleared.files + 1, bytes: cleared.bytes + entry.bytes };
        }
        Ok(cleared)
    }

    /// Removes the files that were not used for the longest time, until the cache has its size; never the
    /// `newest`.
    pub(super) fn make_room(&self, newest: &Path) -> Result<()> {
        let entries = self.entries()?;
        let mut bytes: u64 = entries.iter().map(|entry| entry.bytes).sum();
        for entry in entries.iter().rev().filter(|entry| entry.path != newest) {
            if bytes <= self.limit {
                break;
            }
            remove(&entry.path)?;
            bytes -= entry.bytes;
        }
        Ok(())
    }
}

/// Removes a file, which another process may have done meanwhile.
fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path, "remove", error)),
        _ => Ok(()),
    }
}
