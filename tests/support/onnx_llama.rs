//! A llama of one block, laid out as TorchScript's exporter does, written field by field.

use std::fs;
use std::path::PathBuf;

use curmerge::base::Base;
use tempfile::TempDir;

use crate::support::onnx_writer::{Graph, Value};

pub const D: u64 = 16;
pub const FF: u64 = 32;
pub const VOCAB: u64 = 6;
pub const CONFIG: &str = r#"{"model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 6, "rms_norm_eps": 1e-5}"#;

/// The matrices of a block, with their numbers of outputs and inputs.
pub const MATRICES: &[(&str, u64, u64)] = &[
    ("self_attn.q_proj", D, D),
    ("self_attn.k_proj", D / 2, D),
    ("self_attn.v_proj", D / 2, D),
    ("self_attn.o_proj", D, D),
    ("mlp.gate_proj", FF, D),
    ("mlp.up_proj", FF, D),
    ("mlp.down_proj", D, FF),
];

/// The path of the node that multiplies by a matrix.
pub fn path_of(part: &str) -> String {
    format!("/model/layers.0/{}", part.replace('.', "/"))
}

/// The graph of the llama without the matrices of these parts.
pub fn llama_without(parts: &[&str]) -> Graph {
    let mut graph = Graph::default();
    graph.floats("model.embed_tokens.weight", &[VOCAB, D]);
    graph.node("Gather", "/model/embed_tokens/Gather", &["model.embed_tokens.weight", "input_ids"], &[]);
    for norm in ["model.layers.0.input_layernorm", "model.layers.0.post_attention_layernorm", "model.norm"] {
        let weight = format!("{norm}.weight");
        graph.floats(&weight, &[D]);
        graph.node("Mul", &format!("/{}/Mul_1", norm.replace('.', "/")), &[&weight, "x"], &[]);
    }
    for (i, (part, outputs, inputs)) in MATRICES.iter().enumerate() {
        if !parts.contains(part) {
            let name = format!("onnx::MatMul_{i}");
            graph.floats(&name, &[*inputs, *outputs]);
            graph.node("MatMul", &format!("{}/MatMul", path_of(part)), &["x", &name], &[]);
        }
    }
    if !parts.contains(&"lm_head") {
        let turned = [("perm", Value::Ints(vec![1, 0]))];
        let head = graph.node("Transpose", "Transpose_9", &["model.embed_tokens.weight"], &turned);
        graph.node("MatMul", "/lm_head/MatMul", &["x", &head], &[]);
    }
    graph
}

/// The whole graph of the llama.
pub fn llama() -> Graph {
    llama_without(&[])
}

/// Writes model.onnx, and config.json if there is one, into a new folder. Returns the folder and the model's
/// path.
pub fn write(graph: &Graph, config: Option<&str>) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    fs::write(&path, graph.model()).unwrap();
    if let Some(config) = config {
        fs::write(folder.path().join("config.json"), config).unwrap();
    }
    (folder, path)
}

/// The values of a matrix, row by row.
pub fn values(base: &Base, name: &str) -> Vec<f32> {
    base.weight(name).unwrap().vector()
}
