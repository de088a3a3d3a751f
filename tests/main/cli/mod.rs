//! The program through its front door: what it prints, writes, refuses and survives. No Python needed.

mod checkpointed;
mod converted;
mod damaged;
mod hostile;
mod inspected;
mod interrupted;
mod ollama;
mod onnx;
mod refused;
mod repeated;
mod sampled;
mod splits;
mod trained;
mod variants;

use std::path::Path;

use crate::support::fixture::demo;
use crate::support::program;

/// A folder for one test's files.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// Train for two steps on a few matrices: an adapter that is not zero, in little time.
fn small_adapter(out: &Path) {
    let words = [
        "--targets",
        "q,blk.0.ffn_down",
        "--rank",
        "4",
        "--max-steps",
        "2",
        "--batch-size",
        "4",
        "--lr",
        "0.01",
    ];
    let (base, data) = (demo("model.gguf"), demo("train.jsonl"));
    let mut all: Vec<&std::ffi::OsStr> =
        vec!["build".as_ref(), base.as_os_str(), "--data".as_ref(), data.as_os_str()];
    all.extend(["-o".as_ref(), out.as_os_str()]);
    all.extend(words.map(std::ffi::OsStr::new));
    program::run(&all).done();
}
