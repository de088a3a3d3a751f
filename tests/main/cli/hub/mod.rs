//! `hf:` names against a small server of our own: what is downloaded, kept, resumed and refused.

mod choices;
mod downloads;
mod offline;
mod refusals;

use std::ffi::OsStr;
use std::path::Path;

use crate::support::fixture::demo;
use crate::support::hub::Server;
use crate::support::program::{Ran, finish};

/// The repository of the demo's model.
const MODEL: &str = "models/some-one/tiny-GGUF";
const FILE: &str = "tiny-Q4_K_M.gguf";

/// A server with the demo's model.
fn server() -> Server {
    let server = Server::start();
    server.add(MODEL, "README.md", "a model\n");
    server.add(MODEL, FILE, std::fs::read(demo("model.gguf")).unwrap());
    server
}

/// `inspect NAME`, with a cache in this folder.
fn inspect(server: &Server, home: &Path, name: &str) -> Ran {
    finish(server.program(home), &["inspect", "--no-checksums", name].map(OsStr::new))
}

/// The last line of a failed run.
#[track_caller]
fn error(ran: &Ran) -> String {
    let line = ran.stderr.lines().last().unwrap_or_default();
    assert!(line.starts_with("error: ") && ran.status == Some(1), "{:?} {}", ran.status, ran.stderr);
    line.to_owned()
}

/// The cache's folder of [`MODEL`].
fn stored(home: &Path) -> std::path::PathBuf {
    home.join("hub/models--some-one--tiny-GGUF")
}

/// The names of the files in a folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
