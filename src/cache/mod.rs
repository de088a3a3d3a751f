//! Results that are costly to make and small to keep, in a folder from one run to the next: texts that a
//! model writes, what is measured on them.
//!
//! A result is a [sealed](curmerge_formats::safetensors::sealed) safetensors file. Its name is the digest of
//! its [`Key`], which holds all that the result follows from, so a result is never out of date. The metadata
//! hold `format`, `version`, the key's text and what it is of. A file is written whole or not at all, and
//! processes that share the folder need no lock: the same key gives the same bytes.
//!
//! A cache never changes a result. A damaged or foreign file is made again, and a folder that cannot be used
//! costs only the time of making everything anew; both are reported to the caller and are no errors.

mod entries;
mod key;
mod part;

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use curmerge_formats::safetensors::sealed::{seal_into, verify_seal};
use curmerge_formats::{NewSafeTensor, OutputFile, SafeTensors};

pub use entries::{Cleared, Entry};
pub use key::Key;
pub use part::{Element, Part, numbers};

use crate::{Error, Result};

/// The cache's size limit if the user sets none, in bytes.
pub const DEFAULT_LIMIT: u64 = 4_000_000_000;

const FORMAT: &str = "format";
const FORMAT_NAME: &str = "curmerge-cache";
const VERSION: &str = "version";
/// Also part of every key. It changes with the layout of the files, and when the same key would give another
/// result.
const VERSION_NUMBER: &str = "4";
const KEY: &str = "key";
const OF: &str = "of";

/// A result that can be kept.
pub trait Cached {
    /// The tensors that it is stored as.
    fn parts(&self) -> Vec<Part<'_>>;
}

/// A folder of kept results.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
    limit: u64,
}

impl Cache {
    /// The cache in this folder, which is created when something is kept. It holds at most `limit` bytes; the
    /// results that were not used for the longest time make room for new ones.
    pub fn new(folder: PathBuf, limit: u64) -> Self {
        Self { folder, limit }
    }

    /// The folder for a user's cache: `curmerge` in `$XDG_CACHE_HOME` or `~/.cache`, on Windows in
    /// `%LOCALAPPDATA%`. `None` if the user has no home folder.
    pub fn default_folder() -> Option<PathBuf> {
        use etcetera::BaseStrategy;
        Some(etcetera::choose_base_strategy().ok()?.cache_dir().join("curmerge"))
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The size that the cache may have, in bytes.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// The result of this key: `restore`d from its file, or made and kept. `restore` returns `None` for
    /// tensors that do not fit. `warn` gets what is wrong with a file or the folder.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn keep<T: Cached>(
        &self,
        key: &Key,
        restore: impl FnOnce(&SafeTensors) -> Option<T>,
        make: impl FnOnce() -> Result<T>,
        mut warn: impl FnMut(&Error),
    ) -> Result<T> {
        let path = self.folder.join(key.file_name());
        match read(&path, key, restore) {
            Ok(Some(result)) => return Ok(result),
            Ok(None) => {}
            Err(error) => warn(&error),
        }
        let result = make()?;
        if let Err(error) = self.write(&path, key, &result) {
            let help = "set CURMERGE_CACHE to another folder, or leave the cache out with --no-cache";
            warn(&Error::file(&self.folder, format!("the result is not kept: {error}"), help));
        }
        Ok(result)
    }

    fn write(&self, path: &Path, key: &Key, result: &impl Cached) -> Result<()> {
        let parts = result.parts();
        let tensors: Vec<NewSafeTensor> = parts.iter().map(|part| part.tensor.clone()).collect();
        let elements = |tensor: &NewSafeTensor| tensor.shape.iter().product::<u64>();
        let bytes: u64 = tensors.iter().filter_map(|t| t.dtype.bytes_for(elements(t))).sum();
        if bytes > self.limit {
            return Ok(());
        }
        std::fs::create_dir_all(&self.folder)
            .map_err(|source| Error::io(&self.folder, "create the folder", source))?;
        let metadata = BTreeMap::from([
            (FORMAT.to_owned(), FORMAT_NAME.to_owned()),
            (VERSION.to_owned(), VERSION_NUMBER.to_owned()),
            (KEY.to_owned(), key.text()),
            (OF.to_owned(), key.of().to_owned()),
        ]);
        let pieces = parts.iter().map(|part| (part.bytes)());
        let file = match OutputFile::create(path, &[]) {
            // Another program keeps the same result.
            Err(curmerge_formats::Error::Busy { .. }) => return Ok(()),
            file => file?,
        };
        seal_into(file, metadata, tensors, pieces)?;
        self.make_room(path)
    }
}

/// The result in a file; `None` if there is no file.
fn read<T>(path: &Path, key: &Key, restore: impl FnOnce(&SafeTensors) -> Option<T>) -> Result<Option<T>> {
    if std::fs::symlink_metadata(path).is_err() {
        return Ok(None);
    }
    let unusable = |problem: String| Error::file(path, problem, "it is made again");
    let file = SafeTensors::open(path).map_err(|error| unusable(format!("cannot be used ({error})")))?;
    verify_seal(&file).map_err(|_| unusable("damaged: its SHA-256 is not the one recorded".into()))?;
    let says = |key: &str, value: &str| file.metadata().get(key).is_some_and(|found| found == value);
    if !says(FORMAT, FORMAT_NAME) || !says(VERSION, VERSION_NUMBER) || !says(KEY, &key.text()) {
        return Err(unusable("is no cache file of that name".into()));
    }
    let result = restore(&file).ok_or_else(|| unusable("does not hold what its name says".into()))?;
    // The time of the last use. A folder that cannot be written serves as well.
    if let Ok(file) = OpenOptions::new().append(true).open(path) {
        let _ = file.set_modified(SystemTime::now());
    }
    Ok(Some(result))
}

#[cfg(test)]
mod tests;
