//! SmolLM3: llama with every fourth block without positions (NoPE).

use super::groups::{ENDS, FEED_FORWARD, FIRST_KEYS, NORMS_BEFORE, PERMUTED};
use super::llama::LLAMA;
use super::schema::*;

pub(super) const SMOLLM3: Architecture = Architecture {
    models: "SmolLM3",
    name: "smollm3",
    tensors: Tensors { groups: &[ENDS, NORMS_BEFORE, PERMUTED, FEED_FORWARD], ..LLAMA.tensors },
    forward: Forward { unrotated: Unrotated::EveryLast(4), ..LLAMA.forward },
    gguf: Gguf::USUAL,
    converter: Converter {
        keys: &[FIRST_KEYS, &[Key::GivenHeadLengths, Key::FileType, Key::Vocabulary, Key::RopeDimensions]],
        ..LLAMA.converter
    },
    hugging_face: HuggingFace {
        model_types: &["smollm3"],
        class: "SmolLM3ForCausalLM",
        defaults: &[
            ("vocab_size", 128_256.0),
            ("hidden_size", 2048.0),
            ("intermediate_size", 11_008.0),
            ("num_hidden_layers", 36.0),
            ("num_attention_heads", 16.0),
            ("num_key_value_heads", 4.0),
            ("max_position_embeddings", 32_768.0),
            ("rope_theta", 2_000_000.0),
            ("no_rope_layer_interval", 4.0),
        ],
        heads: HeadKeys::Grouped,
        windows: WindowedLayers::SwitchedUnrotated,
        options: &[ClassOption::UnrotatedLayers],
        // llama.cpp reads no biases.
        flags: &[("attention_bias", false), ("mlp_bias", false)],
        ..LLAMA.hugging_face
    },
    onnx: Onnx { genai_type: Some("smollm3") },
};
