//! stub
use crate::error::Result;
use crate::mmap::MappedFile;
use std::path::Path;

/// An output file.
#[derive(Debug)]
pub struct OutputFile;

impl OutputFile {
    /// Begins a file.
    pub fn create(_path: &Path, _inputs: &[&Path]) -> Result<Self> {
        todo!()
    }
    /// Writes at a place, leaving [`OutputFile::position`] as it was.
    pub fn write_all_at(&mut self, _offset: u64, _bytes: &[u8]) -> Result<()> {
        todo!()
    }
    /// Writes at the position.
    pub fn append(&mut self, _bytes: &[u8]) -> Result<()> {
        todo!()
    }
    /// Appends a range of another file.
    pub fn copy_from(&mut self, _source: &MappedFile, _source_offset: u64, _len: u64) -> Result<()> {
        todo!()
    }
    /// Where the next append goes.
    pub fn position(&self) -> u64 {
        todo!()
    }
    /// Syncs and renames.
    pub fn commit(self) -> Result<()> {
        todo!()
    }
}

impl std::io::Write for OutputFile {
    fn write(&mut self, _bytes: &[u8]) -> std::io::Result<usize> {
        todo!()
    }
    fn flush(&mut self) -> std::io::Result<()> {
        todo!()
    }
}
