//! `inspect`: what it shows of models, adapters and ONNX files, and what it says that curmerge can do with
//! them.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::refused::assert_says;
use super::{folder, small_adapter};
use crate::support::families::{self, Container, Family};
use crate::support::fixture::{self, demo};

#[test]
fn inspect_shows_models_and_adapters() {
    let folder = folder();
    let adapter = folder.path().join("adapter.st");
    small_adapter(&adapter);
    let inspected = |file: &Path, words: &[&str]| -> Value {
        let mut all = vec![std::ffi::OsStr::new("inspect"), file.as_os_str(), "--json".as_ref()];
        all.extend(words.iter().map(std::ffi::OsStr::new));
        crate::support::program::run(&all).json()
    };
    let model = inspected(&demo("model.gguf"), &[]);
    assert!(model["tensors"].as_array().unwrap().iter().all(|t| t["sha256"].as_str().unwrap().len() == 64));
    inspected(&demo("model.gguf"), &["--no-checksums"]);
    assert!(!inspected(&adapter, &[])["tensors"].as_array().unwrap().is_empty());
    let text = curmerge!("inspect", adapter).done().stdout;
    for part in ["blk.0.ffn_down.u", "F32", "curmerge demo", "rank"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn inspect_gives_a_second_opinion_on_gguf_files() {
    let shown = curmerge!("inspect", demo("model.gguf"), "--second-opinion", "--json").json();
    let tensors = shown["tensors"].as_array().unwrap().len();
    assert_eq!(shown["second_opinion"]["tensors"], tensors);
    assert_eq!(shown["second_opinion"]["disagreements"], serde_json::json!([]));
    let text = curmerge!("inspect", demo("model.gguf"), "--second-opinion", "--no-checksums").done().stdout;
    assert!(text.contains(&format!("gguf-rs read {tensors} tensors")) && text.contains("0 disagreements"));
    let onnx = fixture::path("onnx/external.onnx");
    let line = curmerge!("inspect", onnx, "--second-opinion").refusal();
    assert!(line.contains("only a GGUF file"), "{line}");
}

#[test]
fn inspect_shows_onnx_models() {
    let file = fixture::path("onnx/external.onnx");
    let shown = curmerge!("inspect", file, "--json").json();
    assert_eq!(shown["metadata"]["input x"]["value"], "FLOAT [2, 4]");
    assert_eq!(shown["metadata"]["opset ai.onnx"]["value"], 21);
    assert_eq!(shown["metadata"]["external file part/bias.data"]["value"], "28 bytes");
    let tensors = shown["tensors"].as_array().unwrap();
    assert_eq!((tensors.len(), &tensors[1]["shape"]), (4, &serde_json::json!([3, 6])));
    assert!(tensors.iter().all(|t| t["sha256"].as_str().unwrap().len() == 64));
    let kinds = fixture::path("onnx/kinds.onnx");
    let text = curmerge!("inspect", kinds).done().stdout;
    for part in ["w.raw", "FLOAT16", "output y", "FLOAT [batch, 3]", "metadata author"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn inspect_lists_the_architectures() {
    let listed = curmerge!("inspect", "--architectures", "--json").json();
    let listed = listed["architectures"].as_array().unwrap();
    let text = curmerge!("inspect", "--architectures").done().stdout;
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("models ") && lines[listed.len() + 1].is_empty(), "{text}");
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    for (entry, line) in listed.iter().zip(&lines[1..]) {
        let (models, gguf) = (entry["models"].as_str().unwrap(), entry["gguf"].as_str().unwrap());
        assert!(line.starts_with(models) && line.contains(gguf), "{line}");
        // The first word of a name, since the README joins those of a series.
        for model in models.split(", ") {
            assert!(readme.contains(model.split(' ').next().unwrap()), "README.md lacks {model}");
        }
    }
    let ran = curmerge!("inspect");
    assert!(ran.status == Some(2) && ran.stderr.contains("<FILE>"), "{}", ran.stderr);
}

#[test]
fn inspect_says_what_curmerge_can_do_with_a_model() {
    let folder = folder();
    let fixture = |name: &str| Family::open(name).path(Container::Folder);
    let (other, variant) = (folder.path().join("other"), folder.path().join("variant"));
    families::renamed("qwen3", "phi9", &other);
    families::renamed("qwen3", "qwen3", &variant);
    let config = variant.join("config.json");
    let relu = fs::read_to_string(&config).unwrap().replace("\"silu\"", "\"relu\"");
    fs::write(&config, relu).unwrap();
    for (model, level, parts) in [
        (demo("model.gguf"), "full", &["llama: build, eval, run, merge, export and convert work"][..]),
        (fixture("gemma"), "full", &["gemma: build"]),
        (fixture("qwen3_5"), "full", &["except into ONNX", "linear attention"]),
        (other, "by name", &["'phi9' is not known", "curmerge knows", "can select", "CONTRIBUTING.md"]),
        (variant, "none", &["inspect only", "hidden_act", "'relu'"]),
    ] {
        let support = &curmerge!("inspect", model, "--json").json()["support"];
        assert_eq!(support["level"], level);
        let text = curmerge!("inspect", model).done().stdout;
        let line = text.lines().nth(1).unwrap();
        assert_eq!(line, format!("architecture: {}", support["line"].as_str().unwrap()));
        assert_says(line, parts);
    }
    // An adapter is no model.
    let adapter = folder.path().join("adapter.st");
    small_adapter(&adapter);
    assert_eq!(curmerge!("inspect", adapter, "--json").json()["support"], Value::Null);
}
