//! stub
use super::OutputFile;
use crate::error::Result;
use std::path::Path;

/// An output folder.
#[derive(Debug)]
pub struct OutputFolder;

impl OutputFolder {
    /// Begins a folder.
    pub fn create(_path: &Path, _inputs: &[&Path], _force: bool) -> Result<Self> {
        todo!()
    }
    /// The temporary folder.
    pub fn path(&self) -> &Path {
        todo!()
    }
    /// Begins a file in it; commit the file before the folder.
    pub fn file(&self, _name: &str) -> Result<OutputFile> {
        todo!()
    }
    /// Syncs all files and renames the folder once.
    pub fn commit(self) -> Result<()> {
        todo!()
    }
}
