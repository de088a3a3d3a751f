//! Folders converted from GGUF files of every architecture, in transformers.

use std::fs;
use std::path::{Path, PathBuf};

use curmerge_formats::safetensors::SafeTensors;
use serde_json::Value as Json;

use crate::support::environment;
use crate::support::families::{ALL, Family};
use crate::support::goldens::{error, numbers};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/arch").join(name)
}

#[test]
#[ignore = "needs CURMERGE_PYTHON with torch and transformers"]
fn transformers_loads_the_folders_and_gives_the_logits() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = |name: &str| scratch.path().join(name);
    let goldens = |name: &str| -> Json {
        serde_json::from_slice(&fs::read(fixture(name).join("goldens.json")).unwrap()).unwrap()
    };
    let mut asked = serde_json::Map::new();
    // transformers has no class for InternLM 2.
    let known: Vec<&str> = ALL.iter().copied().filter(|&name| name != "internlm2").collect();
    for &name in &known {
        curmerge!("convert", fixture(name).join("model.gguf"), folder(name)).done();
        asked.insert(folder(name).display().to_string(), goldens(name)["sequences"].clone());
    }
    let input = folder("asked.json");
    fs::write(&input, Json::from(asked).to_string()).unwrap();
    let found = environment::answer("hf_logits.py", &[input.as_os_str(), "OUT".as_ref()], b"");
    for name in known {
        let found = &found[folder(name).display().to_string()];
        // transformers has no class for the block that predicts further tokens.
        let predicting = |name: &&Json| name.as_str().unwrap().starts_with("model.layers.2.");
        let unused: Vec<&Json> = found["unused"].as_array().unwrap().iter().collect();
        let unused: Vec<&Json> =
            unused.into_iter().filter(|unused| name != "glm4moe" || !predicting(unused)).collect();
        assert!(unused.is_empty(), "{name}: {unused:?}");
        let file = SafeTensors::open(&fixture(name).join("goldens.safetensors")).unwrap();
        // llama.cpp ignores the window of phi3's file, and has a formula of its own for GELU, but the folder made of the
        // file is as the one that the file was made of.
        let own = name == "phi3" || Family::open(name).architecture().gguf.activation.is_some();
        let of_file = file.tensor("gguf.logits").filter(|_| !own);
        let golden = of_file.or(file.tensor("folder.logits")).unwrap();
        let bytes = &file.bytes()[golden.offset as usize..(golden.offset + golden.bytes) as usize];
        let wanted: Vec<f64> =
            bytes.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes).into()).collect();
        let off = error(numbers(&found["rows"]), &wanted);
        println!("{name:14} {off:.1e}");
        assert!(off < 3e-5, "{name}: {off}");
    }
}
