//! Qwen 3: norms of each head of q and k in place of Qwen 2's biases.

use super::groups::{ATTENTION, ENDS, FEED_FORWARD, FIRST_KEYS, HEAD_NORMS, NORMS_BEFORE};
use super::qwen2::QWEN2;
use super::schema::*;

pub(super) const QWEN3: Architecture = Architecture {
    models: "Qwen 3",
    name: "qwen3",
    tensors: Tensors { groups: &[ENDS, NORMS_BEFORE, HEAD_NORMS, ATTENTION, FEED_FORWARD], ..QWEN2.tensors },
    converter: Converter { keys: &[FIRST_KEYS, &[Key::HeadLengths, Key::FileType]], ..QWEN2.converter },
    hugging_face: HuggingFace {
        model_types: &["qwen3"],
        class: "Qwen3ForCausalLM",
        defaults: &[("head_dim", 128.0), ("sliding_window", 4096.0), ("max_position_embeddings", 32768.0)],
        heads: HeadKeys::GroupedWithLength,
        flags: &[("attention_bias", false)],
        ..QWEN2.hugging_face
    },
    onnx: Onnx { genai_type: Some("qwen3") },
    ..QWEN2
};
