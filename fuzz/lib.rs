//! What the fuzz targets share: readers open files by path, so each input goes through a file.

use std::path::{Path, PathBuf};

use curmerge::tokenizer::Tokenizer;

/// A file of the repository's fixtures.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(name)
}

/// Calls `read` with a folder that holds `bytes` as the file `name`, and nothing else.
pub fn with_file(name: &str, bytes: &[u8], read: impl FnOnce(&Path)) {
    thread_local! {
        static FOLDER: tempfile::TempDir = tempfile::tempdir().expect("a temporary folder");
    }
    FOLDER.with(|folder| {
        std::fs::write(folder.path().join(name), bytes).expect("a write");
        read(folder.path());
    });
}

/// Calls `work` with the tokenizer of a small model.
pub fn with_tokenizer(work: impl FnOnce(&Tokenizer)) {
    thread_local! {
        static TOKENIZER: Tokenizer = Tokenizer::from_hf_folder(&fixture("arch/llama3/hf")).expect("a tokenizer");
    }
    TOKENIZER.with(work);
}
