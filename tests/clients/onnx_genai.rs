//! ONNX models in onnxruntime-genai's form, in plain onnxruntime: attention in one operator computes what curmerge does,
//! past the windows too, and genai_config.json says what the graph has. tests/onnx_large.rs asks onnxruntime-genai itself.

use std::ffi::OsStr;

use curmerge::base::Base;
use curmerge::model::Transformer;
use curmerge_formats::onnx::Onnx;
use serde_json::{Value, json};

use crate::support::decoder::{error, logits, numbers, written};
use crate::support::families::{Container, Family};
use crate::support::venv;

const FAMILIES: [&str; 6] = ["llama3", "mistral", "qwen3", "gemma2", "gemma3", "phi3"];

#[test]
fn client_onnxruntime_gives_the_same_logits_and_tokens() {
    const WRITTEN: usize = 6;
    let scratch = tempfile::tempdir().unwrap();
    let (mut jobs, mut right) = (Vec::new(), Vec::new());
    for name in FAMILIES {
        let (model, folder) = (Family::open(name).path(Container::Folder), scratch.path().join(name));
        curmerge!("convert", model, folder, "--format", "onnx", "--genai").done();
        let base = Base::open(&model).unwrap();
        let ids: Vec<u32> = (0..24).map(|i| (i * 37 + 5) % base.config().vocab as u32).collect();
        assert!(base.config().window.is_none_or(|window| window < ids.len()), "{name}: nothing is hidden");
        let head = base.config().head_dim;
        jobs.push(json!({ "model": folder.join("model.onnx"), "ids": ids, "head": head, "decode": WRITTEN }));
        let mut transformer = Transformer::<f32>::new(&base).unwrap();
        transformer.for_context(ids.len() + WRITTEN).unwrap();
        right.push((name, logits(&transformer, &ids), written(&transformer, &ids, WRITTEN)));
    }
    let answers = venv::answer("onnx_logits.py", &[OsStr::new("OUT")], json!(jobs).to_string().as_bytes());
    let answers = answers.as_array().unwrap();
    assert_eq!(answers.len(), FAMILIES.len());
    for (answer, (name, (last, greatest), tokens)) in answers.iter().zip(right) {
        assert_eq!(answer["error"], Value::Null, "{name}");
        let apart =
            error(&numbers(&answer["logits"]), &last).max(error(&numbers(&answer["last"]), &greatest));
        println!("{name}: {apart:.1e}");
        assert!(apart < 2e-5, "{name}: {apart:e}");
        assert_eq!(answer["written"], json!(tokens), "{name}");
    }
}

#[test]
fn the_configuration_is_the_graphs() {
    let scratch = tempfile::tempdir().unwrap();
    for name in FAMILIES {
        let (model, folder) = (Family::open(name).path(Container::Folder), scratch.path().join(name));
        curmerge!("convert", model, folder, "--format", "onnx", "--genai").done();
        let text = std::fs::read(folder.join("genai_config.json")).unwrap();
        let config: Value = serde_json::from_slice(&text).unwrap();
        let (model, decoder) = (&config["model"], &config["model"]["decoder"]);
        let base = Base::open(&folder).unwrap();
        let own = base.config();
        for (found, right) in [
            (&model["vocab_size"], own.vocab),
            (&model["context_length"], own.context),
            (&decoder["hidden_size"], own.d_model),
            (&decoder["head_size"], own.head_dim),
            (&decoder["num_attention_heads"], own.heads),
            (&decoder["num_key_value_heads"], own.kv_heads),
            (&decoder["num_hidden_layers"], own.layers),
        ] {
            assert_eq!(found, &json!(right), "{name}: {config}");
        }
        let onnx = Onnx::open(&folder.join(decoder["filename"].as_str().unwrap())).unwrap();
        let inputs: Vec<&str> = onnx.graph().inputs.iter().map(|value| value.name.as_str()).collect();
        for input in decoder["inputs"].as_object().unwrap().values() {
            let input = input.as_str().unwrap().replace("%d", "0");
            assert!(inputs.contains(&input.as_str()), "{name}: {input} is none of {inputs:?}");
        }
        let attention = onnx.graph().nodes.iter().filter(|node| node.op_type == "GroupQueryAttention");
        assert_eq!(attention.count(), own.layers, "{name}");
    }
}
