//! Whole files as bytes, which tests change before they open them.

use std::path::PathBuf;

use tempfile::TempDir;

/// A file of this length with this header; byte i of the data is i.
pub fn numbered(header: &[u8], file_bytes: u64) -> Vec<u8> {
    let mut bytes = header.to_vec();
    bytes.extend((0..file_bytes as usize - header.len()).map(|i| i as u8));
    bytes
}

/// Writes these bytes under this name. Returns the path.
pub fn written(folder: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}
