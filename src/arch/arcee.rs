//! Arcee's AFM: llama with a feed-forward part without a gate, whose activation is the squared ReLU.

use super::groups::{ENDS, FEED_FORWARD, NORMS_BEFORE, PERMUTED, UNGATED_TARGETS};
use super::llama::LLAMA;
use super::schema::*;

const UNGATED: &[TensorNames] = &[FEED_FORWARD[1], FEED_FORWARD[2]];

pub(super) const ARCEE: Architecture = Architecture {
    models: "Arcee AFM",
    name: "arcee",
    tensors: Tensors {
        groups: &[ENDS, NORMS_BEFORE, PERMUTED, UNGATED],
        targets: UNGATED_TARGETS,
        ..LLAMA.tensors
    },
    forward: Forward { activation: Activation::SquaredRelu, ..LLAMA.forward },
    gguf: Gguf::USUAL,
    hugging_face: HuggingFace {
        model_types: &["arcee"],
        class: "ArceeForCausalLM",
        defaults: &[
            ("vocab_size", 32_000.0),
            ("hidden_size", 2560.0),
            ("intermediate_size", 18_432.0),
            ("num_hidden_layers", 32.0),
            ("num_attention_heads", 32.0),
            ("max_position_embeddings", 4096.0),
            ("rms_norm_eps", 1e-5),
        ],
        // llama.cpp reads no biases.
        options: &[],
        flags: &[("attention_bias", false), ("mlp_bias", false)],
        activation: ActivationKey { key: "hidden_act", names: &["relu2"], also_written: &[] },
        ..LLAMA.hugging_face
    },
    onnx: Onnx { genai_type: None },
    ..LLAMA
};
