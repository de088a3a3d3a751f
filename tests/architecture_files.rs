//! Folders of every architecture into GGUF files, against those that llama.cpp's converter made of them, and back:
//! `fixtures/arch/README.md` says what the folders are.

use std::fs;
use std::path::{Path, PathBuf};

use curmerge_formats::gguf::{Gguf, Value};
use serde_json::{Value as Json, json};

#[macro_use]
#[path = "support/program.rs"]
mod program;

/// Every fixture.
const ALL: [&str; 15] = [
    "gemma2",
    "gemma3",
    "gemma3-linear",
    "gpt2",
    "granite",
    "llama2",
    "llama3",
    "mistral",
    "mixtral",
    "olmo2",
    "phi3",
    "phi3-long",
    "qwen2",
    "qwen3",
    "qwen3moe",
];
/// Pre-tokenizers that split texts alike: what the converter was told that its hash says, and the name that curmerge knows
/// the pipeline by, as no hash of a vocabulary so small is known.
const ALIKE: [(&str, &str); 2] = [("dbrx", "smaug-bpe"), ("refact", "smollm")];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/arch").join(name)
}

/// A copy of a folder, named as the converter was given it, with keys of config.json changed.
fn changed(name: &str, scratch: &Path, keys: Json) -> PathBuf {
    let folder = scratch.join(name).join("hf");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    for entry in fs::read_dir(fixture(name).join("hf")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
    }
    let path = folder.join("config.json");
    let mut json: Json = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for (key, value) in keys.as_object().unwrap() {
        json[key] = value.clone();
    }
    fs::write(path, json.to_string()).unwrap();
    folder
}

/// The folder of a fixture, but for what a GGUF file cannot say of it, and of which the converter says nothing.
fn sayable(name: &str, scratch: &Path) -> PathBuf {
    match name {
        "gemma2" => changed(name, scratch, json!({"query_pre_attn_scalar": 32})),
        _ => fixture(name).join("hf"),
    }
}

#[test]
fn files_are_those_of_the_converter() {
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().join("out.gguf");
    for name in ALL {
        curmerge!("convert", sayable(name, scratch.path()), out, "--type", "bf16").done();
        let (ours, theirs) =
            (Gguf::open(&out).unwrap(), Gguf::open(&fixture(name).join("model.gguf")).unwrap());
        let keys = |gguf: &Gguf| gguf.metadata().to_vec();
        let (mut keys_of_ours, keys_of_theirs) = (keys(&ours), keys(&theirs));
        for ((key, value), (_, other)) in keys_of_ours.iter_mut().zip(&keys_of_theirs) {
            let same =
                |(told, known): &&(&str, &str)| other.as_str() == Some(told) && value.as_str() == Some(known);
            if let Some((told, _)) = ALIKE.iter().find(same).filter(|_| key == "tokenizer.ggml.pre") {
                *value = Value::String((*told).into());
            }
        }
        for (our, their) in keys_of_ours.iter().zip(&keys_of_theirs) {
            assert_eq!(our, their, "{name}");
        }
        assert_eq!(keys_of_ours.len(), keys_of_theirs.len(), "{name}");
        let tensors = |gguf: &Gguf| -> Vec<_> {
            let all = gguf.tensors().iter();
            all.map(|t| (t.name.clone(), t.dtype, t.dims.clone(), gguf.data(t).to_vec())).collect()
        };
        for (our, their) in tensors(&ours).iter().zip(&tensors(&theirs)) {
            assert_eq!((&our.0, our.1, &our.2), (&their.0, their.1, &their.2), "{name}");
            assert!(our.3 == their.3, "{name}: the bytes of {}", our.0);
        }
        assert_eq!(ours.tensors().len(), theirs.tensors().len(), "{name}");
        if keys(&ours) == keys_of_theirs {
            let bytes = |path: &Path| fs::read(path).unwrap();
            assert!(bytes(&out) == bytes(&fixture(name).join("model.gguf")), "{name}: the file's bytes");
        }
    }
}
