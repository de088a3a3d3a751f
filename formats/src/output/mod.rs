//! Outputs appear whole or not at all.
//!
//! An output is written beside its final name, synced to the disk and renamed in one step; then the folder
//! that holds it is synced. A crash at any moment leaves what was there before, and at worst a hidden file or
//! folder whose name begins with `.curmerge-`; [`remove_unfinished`] removes that at Ctrl-C. An output that
//! would replace one of its own inputs is refused before a byte is written, whatever name, link or path leads
//! to it.

mod file;
mod folder;
mod pieces;
mod target;
mod unfinished;
mod write_behind;

pub use file::OutputFile;
pub use folder::OutputFolder;
pub use pieces::{Piece, Pieces};
pub use unfinished::remove_unfinished;
pub use write_behind::{Queue, write_behind};

/// Prefix of the names of temporary files and folders.
pub const TEMPORARY: &str = ".curmerge-";
