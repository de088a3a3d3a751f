//! The program's commands: what they print, write, refuse and survive.

mod automatic;
mod cached;
mod cards;
#[cfg(unix)]
mod changed;
mod chat;
mod checkpointed;
mod columns;
mod converted;
mod corpus;
mod damaged;
mod data;
mod data_files;
mod documents;
mod hostile;
#[cfg(feature = "hub")]
mod hub;
mod inspected;
mod interrupted;
#[cfg(unix)]
mod killed;
mod limits;
mod lora;
mod not_finite;
mod ollama;
mod onnx;
#[cfg(feature = "parquet")]
mod parquet;
mod protected;
mod recipes;
mod refused;
mod repeated;
mod reported;
mod sampled;
mod several;
mod signal;
#[cfg(unix)]
mod special_files;
mod splits;
mod tasks;
mod templates;
mod trained;
mod variants;

use std::path::Path;

use crate::support::fixture::demo;
use crate::support::program;

/// A folder for one test's files.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// Trains an adapter for two steps on a few matrices, so that U is not zero.
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
