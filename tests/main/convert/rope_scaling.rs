//! Rotary scaling: conversions carry it both ways. A rule that is not computed stops what needs the arithmetic,
//! by its key, and nothing else.

use std::fs;
use std::path::Path;

use curmerge_formats::gguf::{Gguf, Value};
use serde_json::{Value as Json, json};

use crate::support::families::{Container, Family};
use crate::support::folder::copy;
use crate::support::gguf_key;

fn config(folder: &Path) -> Json {
    serde_json::from_slice(&fs::read(folder.join("config.json")).unwrap()).unwrap()
}

/// The keys are those that convert_hf_to_gguf.py writes (conversion/base.py of llama.cpp 11434).
#[test]
fn yarn_goes_along_and_other_rules_are_not_run() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let (hf, gguf, back) = (path("hf"), path("a.gguf"), path("back"));
    copy(&Family::open("qwen2").path(Container::Folder), &hf);
    let mut changed = config(&hf);
    let yarn = json!({
        "rope_type": "yarn", "rope_theta": 5000.0, "factor": 4.0, "original_max_position_embeddings": 128,
        "attention_factor": 1.25, "beta_fast": 16.0,
    });
    changed["rope_parameters"] = yarn;
    fs::write(hf.join("config.json"), changed.to_string()).unwrap();

    curmerge!("convert", hf, gguf, "--type", "f32").done();
    let file = Gguf::open(&gguf).unwrap();
    let key = |name: &str| file.get(&format!("qwen2.rope.scaling.{name}")).cloned();
    assert_eq!(key("type"), Some(Value::String("yarn".into())));
    assert_eq!(key("factor"), Some(Value::F32(4.0)));
    assert_eq!(key("original_context_length"), Some(Value::U32(128)));
    assert_eq!(key("yarn_attn_factor"), Some(Value::F32(1.25)));
    assert_eq!(key("yarn_beta_fast"), Some(Value::F32(16.0)));
    assert_eq!((key("yarn_beta_slow"), key("yarn_ext_factor")), (None, None));
    curmerge!("convert", gguf, back).done();
    // The folder has what llama.cpp computes from the file.
    let read = json!({
        "rope_type": "yarn", "rope_theta": 5000.0, "factor": 4.0, "original_max_position_embeddings": 128,
    });
    assert_eq!(config(&back)["rope_parameters"], read);

    let known = curmerge!("convert", hf, path("again.gguf"), "--type", "f32").done();
    assert!(known.stderr.contains("llama.cpp does not read all of YaRN's options"), "{}", known.stderr);
    with_key("qwen3-yarn", "rope.scaling.attn_factor", Value::F32(0.5), &path("half.gguf"));
    curmerge!("convert", path("half.gguf"), path("half")).done();
    let amplitude = config(&path("half"))["rope_parameters"]["attention_factor"].as_f64().unwrap();
    assert!((amplitude - 0.5 * (1.0 + 0.1 * 4.0f64.ln())).abs() < 1e-6, "{amplitude}");
    changed["rope_parameters"]["rope_type"] = "unheard".into();
    fs::write(hf.join("config.json"), changed.to_string()).unwrap();
    let (adapter, merged, onnx) = (path("a.safetensors"), path("merged"), path("onnx"));
    curmerge!("select", hf, "-o", adapter, "--targets", "q", "--rank", "4").done();
    curmerge!("merge", hf, adapter, "-o", merged).done();
    for ran in
        [curmerge!("run", hf, "-p", "a", "-n", "1"), curmerge!("convert", hf, onnx, "--format", "onnx")]
    {
        let line = ran.refusal();
        assert!(line.contains("rope scaling: rotary scaling 'unheard' is not computed"), "{line}");
    }
    assert!(!onnx.exists());
    changed["rope_parameters"]["rope_type"] = "yarn".into();
    changed["rope_parameters"].as_object_mut().unwrap().remove("factor");
    fs::write(hf.join("config.json"), changed.to_string()).unwrap();
    let line = curmerge!("convert", hf, path("b.gguf"), "--type", "f32").refusal();
    assert!(line.contains("rope_parameters") && line.contains("YaRN without factor"), "{line}");
}

/// Dynamic NTK changes nothing of texts within the context, and llama.cpp's converter writes nothing of it.
#[test]
fn frequencies_that_depend_on_the_length_are_those_of_the_context() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    copy(&Family::open("internlm2").path(Container::Folder), &path("hf"));
    let mut changed = config(&path("hf"));
    changed["max_position_embeddings"] = 8.into();
    fs::write(path("hf").join("config.json"), changed.to_string()).unwrap();
    curmerge!("run", path("hf"), "-p", "a", "-n", "2").done();
    fs::write(path("text"), "one two three four five six seven ".repeat(9)).unwrap();
    let line = curmerge!("eval", path("hf"), "--perplexity", path("text"), "--ctx", "16").refusal();
    assert!(line.contains("dynamic") && line.contains("at most 8 tokens"), "{line}");
    let known = curmerge!("convert", path("hf"), path("a.gguf"), "--type", "f32").done();
    assert!(known.stderr.contains("texts of more than 8 tokens"), "{}", known.stderr);
    let known = curmerge!("convert", path("hf"), path("onnx"), "--format", "onnx").done();
    assert!(known.stderr.contains("texts of more than 8 tokens"), "{}", known.stderr);
}

/// The family's GGUF file with a further key of its architecture.
fn with_key(family: &str, key: &str, value: Value, out: &Path) {
    gguf_key::set(&Family::open(family).path(Container::Gguf), key, value, out);
}

/// transformers takes the older key where both are given.
#[test]
fn the_older_key_takes_precedence() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let likeliest = |model: &Path| {
        let words = ["The river is grey in the evening, and when the wind comes from the west, red"];
        curmerge!("run", model, "-p", words[0], "-n", "1", "--logprobs", "4", "--json").json()["logprobs"]
            .clone()
    };
    let yarn = Family::open("qwen3-yarn").path(Container::Folder);
    let right = likeliest(&yarn);
    let (both, plain) = (path("both"), path("plain"));
    for (folder, scaled) in [(&both, true), (&plain, false)] {
        copy(&yarn, folder);
        let mut changed = config(folder);
        changed["rope_parameters"] = json!({"rope_type": "default", "rope_theta": 5000.0});
        if !scaled {
            changed["rope_scaling"] = Json::Null;
        }
        fs::write(folder.join("config.json"), changed.to_string()).unwrap();
    }
    assert_eq!(likeliest(&both), right);
    assert_ne!(likeliest(&plain), right);
    curmerge!("convert", both, path("both.gguf")).done();
    let file = Gguf::open(&path("both.gguf")).unwrap();
    assert_eq!(file.get("qwen3.rope.scaling.type").and_then(Value::as_str), Some("yarn"));
    // The temperature is in the newer key alone, so a folder has no older one.
    curmerge!("convert", Family::open("ministral3").path(Container::Gguf), path("ministral")).done();
    // A null would replace the newer one in transformers 5.23.
    assert!(config(&path("ministral")).get("rope_scaling").is_none());
}

/// transformers' class has positions in every block, and the graph of an ONNX model would need a form for it.
#[test]
fn a_granite_without_positions_stays_a_gguf_file() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let (model, adapter) = (path("granite.gguf"), path("a.safetensors"));
    with_key("granite", "rope.scaling.finetuned", Value::Bool(true), &model);
    curmerge!("convert", model, path("rotated"), "--type", "f32").done();
    with_key("granite", "rope.scaling.finetuned", Value::Bool(false), &model);
    let line = curmerge!("convert", model, path("folder")).refusal();
    assert!(line.contains("rope.scaling.finetuned: 2 of the 2 blocks have no rotary embedding"), "{line}");
    let line = curmerge!("convert", model, path("onnx"), "--format", "onnx").refusal();
    assert!(line.contains("some blocks have no rotary embedding"), "{line}");
    curmerge!("select", model, "-o", adapter, "--targets", "q", "--rank", "4").done();
    curmerge!("merge", model, adapter, "-o", path("merged.gguf")).done();
    curmerge!("run", path("merged.gguf"), "-p", "a", "-n", "1").done();
}

/// transformers' YaRN keeps every frequency where its factor is 1, and has the factor of cosines and sines.
#[test]
fn a_factor_of_cosines_and_sines_goes_into_a_folder() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let model = path("model.gguf");
    let likeliest = |model: &Path| {
        let found = curmerge!("run", model, "-p", "a cat is", "-n", "3", "--logprobs", "4", "--json").json();
        let numbers = found["logprobs"].as_array().unwrap().iter().flat_map(|row| row.as_array().unwrap());
        numbers.map(|pair| pair[1].as_f64().unwrap()).collect::<Vec<_>>()
    };
    with_key("qwen2", "rope.scaling.attn_factor", Value::F32(1.25), &model);
    curmerge!("convert", model, path("folder"), "--type", "f32").done();
    let parameters = config(&path("folder"))["rope_parameters"].clone();
    assert_eq!((&parameters["rope_type"], &parameters["factor"]), (&json!("yarn"), &json!(1.0)));
    assert_eq!(parameters["attention_factor"], 1.25);
    let (own, folder) = (likeliest(&model), likeliest(&path("folder")));
    assert!(own.iter().zip(&folder).all(|(a, b)| (a - b).abs() < 1e-4), "{own:?} {folder:?}");
    let plain = likeliest(&Family::open("qwen2").path(Container::Gguf));
    assert!(own.iter().zip(&plain).any(|(a, b)| (a - b).abs() > 1e-3), "the factor changes nothing");
    // No rule of transformers has both.
    with_key("llama3", "rope.scaling.attn_factor", Value::F32(1.25), &model);
    let line = curmerge!("convert", model, path("other"), "--type", "f32").refusal();
    assert!(line.contains("llama.rope.scaling.attn_factor"), "{line}");
}

/// Such a key is in Gemma 3 models of Ollama's library, which llama.cpp reads otherwise than Ollama.
#[test]
fn a_key_that_is_not_known_stops_a_computation_alone() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let (model, adapter) = (path("model.gguf"), path("a.safetensors"));
    with_key("gemma3", "rope.global.freq_base", Value::F32(1e6), &model);
    curmerge!("select", model, "-o", adapter, "--targets", "q", "--rank", "4").done();
    curmerge!("merge", model, adapter, "-o", path("merged.gguf")).done();
    for ran in [curmerge!("run", model, "-p", "a", "-n", "1"), curmerge!("convert", model, path("folder"))] {
        let line = ran.refusal();
        assert!(line.contains("gemma3.rope.global.freq_base: this key may change"), "{line}");
    }
    with_key("gemma3", "attention.causal", Value::Bool(true), &model);
    curmerge!("run", model, "-p", "a", "-n", "1").done();
}
