//! stub
mod file;
mod folder;
pub use file::OutputFile;
pub use folder::OutputFolder;
