//! The files of fixtures/.

use std::path::{Path, PathBuf};

/// The file or folder of fixtures/ with this path.
pub fn path(name: impl AsRef<Path>) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// A file of fixtures/demo.
pub fn demo(name: &str) -> PathBuf {
    path("demo").join(name)
}

/// A file or folder of a family's fixture in fixtures/arch.
pub fn family(name: &str, file: &str) -> PathBuf {
    path("arch").join(name).join(file)
}
