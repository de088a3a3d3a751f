//! The folder for onnxruntime-genai: genai_config.json agrees with the graph.

use curmerge::base::Base;
use curmerge_formats::onnx::Onnx;
use serde_json::{Value, json};

use crate::support::families::{Container, Family, genai};

#[test]
fn the_configuration_agrees_with_the_graph() {
    let scratch = tempfile::tempdir().unwrap();
    for name in genai() {
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
            let input = input.as_str().unwrap();
            let has = |layer: usize| inputs.contains(&&*input.replace("%d", &layer.to_string()));
            assert!((0..own.layers).any(has), "{name}: {input} is not among {inputs:?}");
        }
        let attention = onnx.graph().nodes.iter().filter(|node| node.op_type == "GroupQueryAttention");
        let without = own.convolutions.iter().filter(|convolves| **convolves).count();
        assert_eq!(attention.count(), own.layers - without, "{name}");
    }
}
