//! What the fuzz targets share: parsers open files by path, so each input goes through a file.

use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use tempfile::NamedTempFile;

/// Calls `parse` with the path of a file that holds `bytes`.
pub fn with_file(bytes: &[u8], parse: impl FnOnce(&Path)) {
    thread_local! {
        static FILE: std::cell::RefCell<NamedTempFile> =
            std::cell::RefCell::new(NamedTempFile::new().expect("a temporary file"));
    }
    FILE.with_borrow_mut(|named| {
        let file = named.as_file_mut();
        file.set_len(0).expect("an empty file");
        file.seek(SeekFrom::Start(0)).expect("a seek");
        file.write_all(bytes).expect("a write");
        parse(named.path());
    });
}
