//! Ministral 3: llama with YaRN, and queries that are scaled by their position. GGUF calls it mistral3, as it
//! does Mistral Small 3, which has neither.

use super::groups::{FIRST_KEYS, VISION, WITHIN_VISION};
use super::llama::LLAMA;
use super::schema::*;

pub(super) const MINISTRAL3: Architecture = Architecture {
    models: "Ministral 3",
    name: "mistral3",
    tensors: Tensors { prefixes: WITHIN_VISION, ..LLAMA.tensors },
    gguf: Gguf { reads_yarn: true, temperature: true, ..Gguf::USUAL },
    converter: Converter {
        keys: &[
            FIRST_KEYS,
            &[Key::HeadLengths, Key::FileType, Key::Vocabulary, Key::RopeDimensions, Key::Temperature],
        ],
        rope_types: &[RopeType::ByKeys],
        dropped_prefixes: VISION,
        ..LLAMA.converter
    },
    hugging_face: HuggingFace {
        model_types: &["ministral3"],
        within: &["mistral3"],
        class: "Ministral3ForCausalLM",
        defaults: &[
            ("vocab_size", 131_072.0),
            ("hidden_size", 4096.0),
            ("intermediate_size", 14_336.0),
            ("num_hidden_layers", 34.0),
            ("num_attention_heads", 32.0),
            ("num_key_value_heads", 8.0),
            ("head_dim", 128.0),
            ("max_position_embeddings", 262_144.0),
            ("rms_norm_eps", 1e-5),
        ],
        windows: WindowedLayers::All,
        options: &[ClassOption::Temperature],
        ..LLAMA.hugging_face
    },
    onnx: Onnx { genai_type: None },
    ..LLAMA
};
