//! Outputs appear whole or not at all.
//!
//! An output is written beside its final name, synced to the disk and renamed; then the folder that holds it
//! is synced. An output of several files is renamed under a journal (`journal.rs`), which the next command
//! finishes. A crash at any moment leaves what was there before or the new output, and at worst hidden files
//! whose names begin with `.curmerge-`; [`remove_unfinished`] removes those at Ctrl-C, and the next command
//! that writes the same output does so after a kill. While one program writes an output, another one that
//! would write it is refused (`temporary.rs`). An output that would replace one of its own inputs is refused
//! before a byte is written, whatever name, link or path leads to it.

mod file;
mod folder;
mod journal;
mod pieces;
mod replaceable;
mod reserved;
mod space;
mod target;
mod temporary;
mod unfinished;
mod write_behind;

pub use file::OutputFile;
pub use folder::OutputFolder;
pub use journal::finish_interrupted;
pub use pieces::{Piece, Pieces};
pub use reserved::Reservation;
pub use temporary::TEMPORARY;
pub use unfinished::remove_unfinished;
pub use write_behind::{Queue, write_behind};
