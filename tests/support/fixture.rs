//! The files under fixtures.

use std::path::{Path, PathBuf};

/// A file of fixtures/demo.
pub fn demo(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/demo").join(name)
}
