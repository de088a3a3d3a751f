//! Folders made of GGUF files of every architecture, in transformers.

use std::fs;
use std::path::{Path, PathBuf};

use curmerge_formats::safetensors::SafeTensors;
use serde_json::{Value as Json, json};

use crate::support::environment;
use crate::support::families::ALL;

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
    for &name in ALL {
        curmerge!("convert", fixture(name).join("model.gguf"), folder(name)).done();
        asked.insert(folder(name).display().to_string(), goldens(name)["sequences"].clone());
    }
    let (input, output) = (folder("asked.json"), folder("found.json"));
    fs::write(&input, Json::from(asked).to_string()).unwrap();
    environment::ask("hf_logits.py", &[input.as_os_str(), output.as_os_str()], b"");
    let found: Json = serde_json::from_slice(&fs::read(&output).unwrap()).unwrap();
    for &name in ALL {
        let found = &found[folder(name).display().to_string()];
        assert_eq!(found["unused"], json!([]), "{name}");
        let file = SafeTensors::open(&fixture(name).join("goldens.safetensors")).unwrap();
        // What phi3's file says of the window llama.cpp does not read, but the folder made of it has it.
        let of_file = file.tensor("gguf.logits").filter(|_| name != "phi3");
        let golden = of_file.or(file.tensor("folder.logits")).unwrap();
        let bytes = &file.bytes()[golden.offset as usize..(golden.offset + golden.bytes) as usize];
        let wanted: Vec<f32> =
            bytes.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        let rows = found["rows"].as_array().unwrap().iter().flat_map(|row| row.as_array().unwrap());
        let rows: Vec<f32> = rows.map(|logit| logit.as_f64().unwrap() as f32).collect();
        assert_eq!(rows.len(), wanted.len(), "{name}");
        let largest = wanted.iter().fold(0.0f32, |most, logit| most.max(logit.abs()));
        let off = rows.iter().zip(&wanted).fold(0.0f32, |most, (a, b)| most.max((a - b).abs())) / largest;
        println!("{name:14} {off:.1e}");
        assert!(off < 3e-5, "{name}: {off}");
    }
}
