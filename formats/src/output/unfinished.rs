//! The temporary files and folders of this process, so that an interrupted program can remove them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

const ATTEMPTS: usize = 100;
const PAUSE: Duration = Duration::from_millis(5);

static UNFINISHED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn all() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    // A set of paths is valid whatever a panicking thread was doing.
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls `rename`, which gives paths on the list their final names. Nothing is removed meanwhile, and no path
/// may come or go.
pub(super) fn uninterrupted<T>(rename: impl FnOnce() -> T) -> T {
    let held = all();
    let result = rename();
    drop(held);
    result
}

/// A path on the list, until dropped.
#[derive(Debug)]
pub(super) struct Unfinished(PathBuf);

impl Unfinished {
    /// Calls `create` and puts the path of what it created on the list. Nothing is removed in between.
    pub(super) fn begin<T, E>(
        create: impl FnOnce() -> Result<T, E>,
        path: impl FnOnce(&T) -> &Path,
    ) -> Result<(T, Self), E> {
        let mut held = all();
        let created = create()?;
        let path = path(&created).to_owned();
        held.insert(path.clone());
        Ok((created, Unfinished(path)))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        all().remove(&self.0);
    }
}

/// Removes every output that this process has begun and not committed. For a program about to end:
/// afterwards, beginning or committing an output does not return.
pub fn remove_unfinished() {
    let paths = all();
    for path in paths.iter() {
        remove(path);
    }
    std::mem::forget(paths);
}

/// One attempt may not be enough, since another thread may be filling or clearing the folder until the
/// program ends. What cannot be removed stays.
fn remove(path: &Path) {
    for _ in 0..ATTEMPTS {
        let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        if fs::symlink_metadata(path).is_err() {
            return;
        }
        thread::sleep(PAUSE);
    }
}
