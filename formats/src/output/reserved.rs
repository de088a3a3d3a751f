//! Outputs that a long run writes at its end. Their locks are held from its start, so that a second run with
//! the same output is refused before it computes for hours.

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tempfile::{NamedTempFile, TempDir};

use super::unfinished::Unfinished;

static RESERVED: Mutex<Vec<(PathBuf, Held)>> = Mutex::new(Vec::new());

fn all() -> MutexGuard<'static, Vec<(PathBuf, Held)>> {
    // A list is valid whatever a panicking thread was doing.
    RESERVED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The locked temporary file or folder of an output.
#[derive(Debug)]
pub(super) enum Held {
    File(NamedTempFile, Unfinished),
    Folder(TempDir, Option<File>, Unfinished),
}

/// The lock of an output that is written later. Whoever begins that output takes the lock over.
#[derive(Debug)]
#[must_use = "a reservation ends when it is dropped"]
pub struct Reservation {
    target: PathBuf,
}

impl Reservation {
    pub(super) fn new(target: PathBuf, held: Held) -> Self {
        all().push((target.clone(), held));
        Self { target }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        take(&self.target);
    }
}

/// What is held for this output.
pub(super) fn take(target: &PathBuf) -> Option<Held> {
    let mut all = all();
    let place = all.iter().position(|(own, _)| own == target)?;
    Some(all.swap_remove(place).1)
}
