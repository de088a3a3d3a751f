//! Mistral: llama with a sliding window in every block. GGUF calls it a llama, and llama.cpp then ignores the
//! window.

use super::groups::{VISION, WITHIN_VISION};
use super::llama::LLAMA;
use super::schema::*;

pub(super) const MISTRAL: Architecture = Architecture {
    models: "Mistral 7B, Mistral Nemo, Mistral Small",
    // Mistral Small 3.
    tensors: Tensors { prefixes: WITHIN_VISION, ..LLAMA.tensors },
    converter: Converter { dropped_prefixes: VISION, ..LLAMA.converter },
    hugging_face: HuggingFace {
        model_types: &["mistral"],
        within: &["mistral3"],
        class: "MistralForCausalLM",
        defaults: &[
            ("sliding_window", 4096.0),
            ("num_key_value_heads", 8.0),
            ("max_position_embeddings", 131_072.0),
        ],
        windows: WindowedLayers::All,
        options: &[],
        ..LLAMA.hugging_face
    },
    onnx: Onnx { genai_type: Some("mistral") },
    ..LLAMA
};
