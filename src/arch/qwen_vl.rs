//! The language models of Qwen 2-VL, 2.5-VL and 3-VL: those of Qwen 2 and 3. A head has parts with positions of their
//! own (M-RoPE), which are the same in a text. Written as a folder, they are Qwen 2 and Qwen 3.
//!
//! llama.cpp does two things otherwise, which change nothing that one could measure: its qwen2vl adds no epsilon, and
//! its qwen3vl does not rotate the two slowest pairs that the sections of the published models leave over.

use super::groups::{SIZES, WITHIN_VISION};
use super::qwen2::QWEN2;
use super::qwen3::QWEN3;
use super::schema::*;

const VISUAL: &[&str] = &["visual.", "model.visual."];

const ROPE_AND_NORM: &[Key] = &[Key::RopeScaling, Key::Sections, Key::RopeBase, Key::RmsEpsilon];

pub(super) const QWEN2_VL: Architecture = Architecture {
    models: "Qwen 2-VL, Qwen 2.5-VL (text)",
    name: "qwen2vl",
    tensors: Tensors { prefixes: WITHIN_VISION, ..QWEN2.tensors },
    gguf: Gguf { sections: true, ..Gguf::USUAL },
    converter: Converter {
        keys: &[SIZES, ROPE_AND_NORM, &[Key::GivenHeadLengths, Key::FileType]],
        dropped_prefixes: VISUAL,
        ..QWEN2.converter
    },
    hugging_face: HuggingFace {
        model_types: &["qwen2_vl", "qwen2_vl_text", "qwen2_5_vl", "qwen2_5_vl_text"],
        written_type: Some("qwen2"),
        defaults: &[
            ("vocab_size", 152_064.0),
            ("hidden_size", 8192.0),
            ("intermediate_size", 29_568.0),
            ("num_hidden_layers", 80.0),
            ("num_attention_heads", 64.0),
            ("num_key_value_heads", 8.0),
            ("rms_norm_eps", 1e-5),
            ("rope_theta", 1e6),
            ("sliding_window", 4096.0),
            ("max_position_embeddings", 32768.0),
        ],
        ..QWEN2.hugging_face
    },
    onnx: Onnx { genai_type: None },
    ..QWEN2
};

pub(super) const QWEN3_VL: Architecture = Architecture {
    models: "Qwen 3-VL (text)",
    name: "qwen3vl",
    tensors: Tensors { prefixes: WITHIN_VISION, ..QWEN3.tensors },
    gguf: Gguf { sections: true, ..Gguf::USUAL },
    converter: Converter {
        keys: &[SIZES, ROPE_AND_NORM, &[Key::HeadLengths, Key::FileType, Key::Deepstack]],
        dropped_prefixes: VISUAL,
        ..QWEN3.converter
    },
    hugging_face: HuggingFace {
        model_types: &["qwen3_vl", "qwen3_vl_text"],
        written_type: Some("qwen3"),
        defaults: &[
            ("vocab_size", 151_936.0),
            ("hidden_size", 4096.0),
            ("intermediate_size", 22_016.0),
            ("num_hidden_layers", 32.0),
            ("num_attention_heads", 32.0),
            ("num_key_value_heads", 32.0),
            ("head_dim", 128.0),
            ("rope_theta", 500_000.0),
            ("max_position_embeddings", 128_000.0),
        ],
        windows: WindowedLayers::None,
        ..QWEN3.hugging_face
    },
    onnx: Onnx { genai_type: None },
    ..QWEN3
};
