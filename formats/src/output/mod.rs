//! Outputs appear whole or not at all.
//!
//! What is written goes beside its final name, is synced to the disk, and is renamed in one step; then the folder that
//! holds it is synced. A crash at any moment leaves what stood there before (and at worst a hidden file or folder that
//! begins with `.curmerge-`; [`remove_unfinished`] spares the user that at Ctrl-C). An output that would replace one of its own inputs is refused before a byte is written,
//! by whatever name, link or path it is called.

mod behind;
mod file;
mod folder;
mod target;
mod unfinished;

pub use behind::{Queue, Stretch, write_behind};
pub use file::OutputFile;
pub use folder::OutputFolder;
pub use unfinished::remove_unfinished;

/// How the names of temporary files and folders begin.
const TEMPORARY: &str = ".curmerge-";
