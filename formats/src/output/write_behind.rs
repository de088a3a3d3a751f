//! Write-behind: one thread copies and writes while the others compute.
//!
//! Most systems let one thread at a time write to a file. Threads that wrote their own results would wait for
//! the one that copies.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::{OutputFile, Piece, Pieces};
use crate::error::{Error, Result};

/// Writes that the queue holds. A thread that computes faster than the disk writes waits for a free place.
const QUEUED_WRITES: usize = 32;
/// Bytes copied before the queue is looked at again.
const COPIED_BYTES: usize = 4 << 20;

/// Hands computed bytes to the thread that writes.
#[derive(Debug)]
pub struct Queue<'a> {
    file: &'a OutputFile,
    sender: SyncSender<(u64, Vec<u8>)>,
}

impl Queue<'_> {
    /// Queues `bytes` to be written at `offset` of the file.
    ///
    /// # Errors
    /// [`Error::Io`] once a write has failed; [`write_behind`] returns why.
    pub fn write_at(&self, offset: u64, bytes: Vec<u8>) -> Result<()> {
        self.sender.send((offset, bytes)).map_err(|_| self.file.error(std::io::ErrorKind::BrokenPipe.into()))
    }
}

/// Writes `pieces` to `file` while `compute` runs and queues the values of every [`Piece::Computed`] at its
/// offset. After an error of `compute` nothing more is copied.
///
/// # Errors
/// Those of the writes; those of `compute`.
pub fn write_behind<R, E: From<Error>>(
    file: &OutputFile,
    pieces: &Pieces<'_>,
    compute: impl FnOnce(&Queue<'_>) -> std::result::Result<R, E>,
) -> std::result::Result<R, E> {
    file.must_fit(pieces.bytes())?;
    let (sender, receiver) = sync_channel(QUEUED_WRITES);
    let failed = AtomicBool::new(false);
    let queue = Queue { file, sender };
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| write_all(file, pieces, receiver, &failed));
        let computed = compute(&queue);
        failed.store(computed.is_err(), Ordering::Relaxed);
        drop(queue);
        writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        computed
    })
}

fn write_all(
    file: &OutputFile,
    pieces: &Pieces<'_>,
    computed: Receiver<(u64, Vec<u8>)>,
    failed: &AtomicBool,
) -> Result<()> {
    for (place, piece) in pieces.placed() {
        match piece {
            Piece::Bytes(bytes) => file.write_all_at(place, bytes)?,
            Piece::Copy { source, offset, len } => {
                for start in (0..*len).step_by(COPIED_BYTES) {
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
            Piece::Computed { .. } => {}
        }
    }
    computed.iter().try_for_each(|(place, bytes)| file.write_all_at(place, &bytes))
}
