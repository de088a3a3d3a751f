//! Folders whose files contradict each other: what holds is used, and said.

use std::path::Path;

use curmerge::base::Base;
use curmerge::convert::to_gguf;
use serde_json::{Value as Json, json};

use crate::support::fixture::family;
use crate::support::folder::copy;

/// A copy of the fixture's folder with this key of config.json.
fn folder(name: &str, key: &str, value: Json) -> (tempfile::TempDir, Base) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    copy(&family(name, "hf"), &path);
    let config = path.join("config.json");
    let mut json: Json = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    json[key] = value;
    std::fs::write(&config, json.to_string()).unwrap();
    let base = Base::open(&path).unwrap();
    (folder, base)
}

fn converted(base: &Base, out: &Path) -> Vec<u8> {
    to_gguf(base, &Default::default(), out, &[], |_, _| ()).unwrap();
    std::fs::read(out).unwrap()
}

#[test]
fn a_vocabulary_has_the_size_of_its_embedding() {
    let vocab = Base::open(family("qwen2", "hf")).unwrap().config().vocab;
    let (_folder, plain) = folder("qwen2", "vocab_size", json!(vocab));
    assert!(plain.notes().is_empty(), "{:?}", plain.notes());
    let (stale, base) = folder("qwen2", "vocab_size", json!(vocab - 8));
    assert_eq!(base.config().vocab, vocab);
    let note = base.notes().join("\n");
    assert!(note.contains("config.json: vocab_size is ") && note.contains("is used"), "{note}");
    let path = |name: &str| stale.path().join(name);
    assert!(converted(&base, &path("stale.gguf")) == converted(&plain, &path("plain.gguf")));
}

#[test]
fn a_head_that_is_missing_is_the_embedding() {
    let (_folder, base) = folder("qwen2", "tie_word_embeddings", json!(false));
    assert!(base.place("output").is_none(), "this test needs a fixture with a tied head");
    let note = base.notes().join("\n");
    assert!(note.contains("there is no lm_head") && note.contains("the embedding is used"), "{note}");
}
