//! A file mapped read-only into memory: weights stay on disk, and the system loads the pages that are read.
//!
//! Another program can change a mapped file, and then the model is a mixture. So a map remembers the file's
//! size, time and place on the disk. They are compared before its bytes are copied or a tensor is opened. A
//! program that calls [`watch`] also compares all its maps before an output gets its name, and, by
//! [`mapped_unchanged`], before it prints a result.

use std::fs::{File, Metadata};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::SystemTime;

use crate::error::{Error, Result};
use crate::input;

/// The files that are mapped now.
static MAPPED: Mutex<Vec<Weak<Seen>>> = Mutex::new(Vec::new());
static WATCHES: AtomicBool = AtomicBool::new(false);

/// A read-only mapped file with the path it was opened by.
#[derive(Debug)]
pub struct MappedFile {
    seen: Arc<Seen>,
    /// `None` for an empty file, which some systems refuse to map.
    map: Option<memmap2::Mmap>,
}

/// What a file was like when it was mapped. It stays open no longer than that, since a model may have more
/// files than a process may open.
#[derive(Debug)]
struct Seen {
    path: PathBuf,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
struct State {
    bytes: u64,
    modified: Option<SystemTime>,
    /// Device and inode, where there are such.
    place: Option<(u64, u64)>,
}

impl State {
    fn of(file: &Metadata) -> Self {
        #[cfg(unix)]
        let place = {
            use std::os::unix::fs::MetadataExt;
            Some((file.dev(), file.ino()))
        };
        #[cfg(not(unix))]
        let place = None;
        Self { bytes: file.len(), modified: file.modified().ok(), place }
    }
}

impl Seen {
    fn must_be(&self, file: &Metadata) -> Result<()> {
        if State::of(file) == self.state { Ok(()) } else { Err(Error::Changed { path: self.path.clone() }) }
    }

    fn unchanged(&self) -> Result<()> {
        match std::fs::metadata(&self.path) {
            Ok(file) => self.must_be(&file),
            // The map keeps the bytes of a file that has lost its name.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Error::io(&self.path, "look at the file again", error)),
        }
    }
}

/// Asks for [`mapped_unchanged`] before any output gets its name. It is for a program whose every input
/// matters to its every output; a library may serve several callers at once.
pub fn watch() {
    WATCHES.store(true, Ordering::Relaxed);
}

/// Compares every file that is mapped with what it was, if the program called [`watch`].
///
/// # Errors
/// [`Error::Changed`] if one was changed or replaced.
pub fn mapped_unchanged() -> Result<()> {
    if WATCHES.load(Ordering::Relaxed) { all_unchanged() } else { Ok(()) }
}

fn all_unchanged() -> Result<()> {
    let mapped = MAPPED.lock().unwrap_or_else(PoisonError::into_inner).clone();
    mapped.iter().filter_map(Weak::upgrade).try_for_each(|seen| seen.unchanged())
}

impl MappedFile {
    /// Maps the whole of an ordinary file. An empty file gives no bytes and no error.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be opened or mapped, or is not an ordinary file.
    pub fn open(path: &Path) -> Result<Self> {
        let fail = |action| move |source| Error::io(path, action, source);
        let file = input::open(path).map_err(fail("open"))?;
        let state = State::of(&file.metadata().map_err(fail("read the size"))?);
        let map = if state.bytes == 0 { None } else { Some(map(&file).map_err(fail("map"))?) };
        let seen = Arc::new(Seen { path: path.to_owned(), state });
        let mut mapped = MAPPED.lock().unwrap_or_else(PoisonError::into_inner);
        mapped.retain(|other| other.strong_count() > 0);
        mapped.push(Arc::downgrade(&seen));
        Ok(MappedFile { seen, map })
    }

    /// The path as it was given to [`MappedFile::open`].
    pub fn path(&self) -> &Path {
        &self.seen.path
    }

    /// The whole file.
    pub fn bytes(&self) -> &[u8] {
        self.map.as_deref().unwrap_or(&[])
    }

    /// Compares the file with what it was when it was mapped.
    ///
    /// # Errors
    /// [`Error::Changed`] if it was changed or replaced.
    pub fn unchanged(&self) -> Result<()> {
        self.seen.unchanged()
    }

    /// The file opened again, for copies inside the kernel. `None` if it has lost its name.
    pub(crate) fn reopen(&self) -> Result<Option<File>> {
        let path = self.path();
        let fail = |error| Error::io(path, "open again", error);
        match input::open(path) {
            Ok(file) => {
                self.seen.must_be(&file.metadata().map_err(fail)?)?;
                Ok(Some(file))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(fail(error)),
        }
    }
}

#[allow(unsafe_code)]
fn map(file: &File) -> std::io::Result<memmap2::Mmap> {
    // SAFETY: the map is private to this module, read-only, and handed out as shared bytes only. Another
    // program that rewrites the file meanwhile can change those bytes, as with every memory-mapped model; so
    // parsers copy what they check and never rely on the map for memory safety. A file cut short ends this
    // process with SIGBUS if a lost page is read before the next comparison; only a signal handler could
    // catch that. This program never writes into an input: outputs go to new files that are renamed into
    // place.
    unsafe { memmap2::Mmap::map(file) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_changes_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let changes: [&dyn Fn(); 4] = [
            &|| std::fs::write(&path, "longer").unwrap(),
            &|| std::fs::write(&path, "").unwrap(),
            &|| {
                let later = SystemTime::now() + std::time::Duration::from_secs(2);
                File::options().append(true).open(&path).unwrap().set_modified(later).unwrap();
            },
            &|| {
                // Of the same length and time.
                let time = std::fs::metadata(&path).unwrap().modified().unwrap();
                let other = folder.path().join("other");
                std::fs::write(&other, "four").unwrap();
                File::options().append(true).open(&other).unwrap().set_modified(time).unwrap();
                std::fs::rename(other, &path).unwrap();
            },
        ];
        for (number, change) in changes.iter().enumerate() {
            if number == 3 && !cfg!(unix) {
                continue;
            }
            std::fs::write(&path, "four").unwrap();
            let mapped = MappedFile::open(&path).unwrap();
            mapped.unchanged().unwrap();
            assert!(mapped.reopen().unwrap().is_some());
            change();
            assert!(matches!(mapped.unchanged(), Err(Error::Changed { .. })), "change {number}");
            assert!(matches!(mapped.reopen(), Err(Error::Changed { .. })), "change {number}");
            assert!(all_unchanged().is_err(), "change {number}");
        }
        std::fs::write(&path, "four").unwrap();
        let mapped = MappedFile::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        mapped.unchanged().unwrap();
        assert!(mapped.reopen().unwrap().is_none() && mapped.bytes() == b"four");
    }
}
