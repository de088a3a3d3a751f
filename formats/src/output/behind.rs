//! Writing behind computation: one thread copies what stays and writes what others compute, as it comes.
//!
//! Most systems let one thread at a time write to a file, so that threads which write what they computed would wait for
//! the one that copies.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::OutputFile;
use crate::error::{Error, Result};
use crate::mmap::MappedFile;

/// Writes that may wait; who computes faster than the disk waits then.
const WAITING: usize = 32;
/// Bytes that are copied at a time, between two looks at what waits.
const COPIED_BYTES: usize = 4 << 20;

/// What a stretch of an output file is made of without computing.
#[derive(Clone, Copy, Debug)]
pub enum Stretch<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// `len` bytes of another file from `offset` on.
    Copy {
        /// That file.
        source: &'a MappedFile,
        /// Where it begins there.
        offset: u64,
        /// How long it is.
        len: u64,
    },
}

/// Takes what is computed.
#[derive(Debug)]
pub struct Queue<'a> {
    file: &'a OutputFile,
    sender: SyncSender<(u64, Vec<u8>)>,
}

impl Queue<'_> {
    /// Has `bytes` written at `offset` of the file.
    ///
    /// # Errors
    /// [`Error::Io`] once a write has failed, and why [`write_behind`] tells.
    pub fn write_at(&self, offset: u64, bytes: Vec<u8>) -> Result<()> {
        self.sender.send((offset, bytes)).map_err(|_| self.file.error(std::io::ErrorKind::BrokenPipe.into()))
    }
}

/// Writes `stretches`, each at its place in `file`, while `compute` runs and puts what it computes into the queue. After
/// an error of `compute` no more is copied.
///
/// # Errors
/// Those of the writes; those of `compute`.
pub fn write_behind<R, E: From<Error>>(
    file: &OutputFile,
    stretches: &[(u64, Stretch<'_>)],
    compute: impl FnOnce(&Queue<'_>) -> std::result::Result<R, E>,
) -> std::result::Result<R, E> {
    let (sender, receiver) = sync_channel(WAITING);
    let failed = AtomicBool::new(false);
    let queue = Queue { file, sender };
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| write_all(file, stretches, receiver, &failed));
        let computed = compute(&queue);
        failed.store(computed.is_err(), Ordering::Relaxed);
        drop(queue);
        writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        computed
    })
}

fn write_all(
    file: &OutputFile,
    stretches: &[(u64, Stretch<'_>)],
    computed: Receiver<(u64, Vec<u8>)>,
    failed: &AtomicBool,
) -> Result<()> {
    for &(place, stretch) in stretches {
        match stretch {
            Stretch::Bytes(bytes) => file.write_all_at(place, bytes)?,
            Stretch::Copy { source, offset, len } => {
                for start in (0..len).step_by(COPIED_BYTES) {
                    for (place, bytes) in computed.try_iter() {
                        file.write_all_at(place, &bytes)?;
                    }
                    if failed.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                    let len = (len - start).min(COPIED_BYTES as u64);
                    file.copy_from_at(place + start, source, offset + start, len)?;
                }
            }
        }
    }
    computed.iter().try_for_each(|(place, bytes)| file.write_all_at(place, &bytes))
}
