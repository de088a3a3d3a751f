//! One cache folder for curmerge and huggingface_hub, which both read what the other has downloaded.
#![cfg(feature = "hub")]

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::fixture;
use crate::support::hub::Server;
use crate::support::program::{Ran, finish};
use crate::support::venv;

const FOLDER: &str = "models/some-one/Arcee-1B";
const GGUF: &str = "models/some-one/tiny-GGUF";
const DATA: &str = "datasets/some-one/sst";

fn server() -> Server {
    let server = Server::start();
    server.add_folder(FOLDER, &fixture::path("arch/arcee/hf"));
    server.add(FOLDER, "additional_chat_templates/tool_use.jinja", "{{ messages }}");
    server.add(GGUF, "Q4_K_M/tiny-Q4_K_M.gguf", fs::read(fixture::demo("model.gguf")).unwrap());
    server.add(DATA, "data/train.jsonl", fs::read(fixture::demo("train.jsonl")).unwrap());
    server
}

/// What huggingface_hub answers; see hub.py.
fn huggingface_hub(server: &Server, home: &Path, offline: bool, files: &Value, folders: &Value) -> Value {
    let environment = json!({ "HF_ENDPOINT": server.address, "HF_HOME": home, "HF_HUB_OFFLINE": if offline { "1" } else { "0" } });
    let asked = json!({ "environment": environment, "files": files, "folders": folders });
    venv::answer("hub.py", &[OsStr::new("OUT")], asked.to_string().as_bytes())
}

fn curmerge(server: &Server, home: &Path, offline: bool, words: &[&str]) -> Ran {
    let mut program = server.program(home);
    if offline {
        program.env("HF_HUB_OFFLINE", "1");
    }
    finish(program, &words.iter().map(OsStr::new).collect::<Vec<_>>()).done()
}

/// All that is used of the three repositories.
fn use_all(server: &Server, home: &Path, offline: bool) {
    let out = tempfile::tempdir().unwrap();
    let gguf = out.path().join("out.gguf");
    curmerge(
        server,
        home,
        offline,
        &["convert", "hf:some-one/Arcee-1B", gguf.to_str().unwrap(), "--type", "f32"],
    );
    curmerge(server, home, offline, &["inspect", "--no-checksums", "hf:some-one/tiny-GGUF:Q4_K_M"]);
    curmerge(server, home, offline, &["data", "hf:some-one/sst:train"]);
}

#[test]
fn huggingface_hub_reads_what_curmerge_downloads() {
    let (server, home) = (server(), tempfile::tempdir().unwrap());
    use_all(&server, home.path(), false);
    server.asked();
    let files = json!([
        ["model", "some-one/tiny-GGUF", "Q4_K_M/tiny-Q4_K_M.gguf"],
        ["dataset", "some-one/sst", "data/train.jsonl"],
        ["model", "some-one/Arcee-1B", "config.json"],
    ]);
    let folders = json!([["model", "some-one/Arcee-1B"]]);
    let answer = huggingface_hub(&server, home.path(), true, &files, &folders);
    assert_eq!(server.asked(), [""; 0], "all is in the cache");
    let hex =
        |path: &Path| fs::read(path).unwrap().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(answer["files"]["Q4_K_M/tiny-Q4_K_M.gguf"], hex(&fixture::demo("model.gguf")));
    assert_eq!(answer["files"]["data/train.jsonl"], hex(&fixture::demo("train.jsonl")));
    let mut all: Vec<String> =
        ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
            .map(str::to_owned)
            .into();
    all.insert(0, "additional_chat_templates/tool_use.jinja".into());
    assert_eq!(answer["folders"], json!([all]));
    assert_eq!(answer["warnings"], json!([]));
    let cache = &answer["cache"]["some-one/Arcee-1B"];
    assert_eq!((&cache["refs"], &cache["files"]), (&json!(["main"]), &json!(all)));

    // Online it finds nothing to download.
    huggingface_hub(&server, home.path(), false, &files, &json!([]));
    assert!(!server.asked().iter().any(|asked| asked.starts_with("storage")));
}

#[test]
fn curmerge_reads_what_huggingface_hub_downloads() {
    let (server, home) = (server(), tempfile::tempdir().unwrap());
    let files = json!([
        ["model", "some-one/tiny-GGUF", "Q4_K_M/tiny-Q4_K_M.gguf"],
        ["dataset", "some-one/sst", "data/train.jsonl"],
    ]);
    let folders = json!([["model", "some-one/Arcee-1B"]]);
    huggingface_hub(&server, home.path(), false, &files, &folders);
    server.asked();
    use_all(&server, home.path(), true);
    assert_eq!(server.asked(), [""; 0]);
    use_all(&server, home.path(), false);
    let asked = server.asked();
    let listings = asked.iter().filter(|asked| asked.contains("/revision/main")).count();
    assert_eq!((asked.len(), listings), (3, 3), "{asked:?}");
}
