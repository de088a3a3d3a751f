//! Qwen 3 with a mixture of experts as its feed-forward part.

use super::groups::{ATTENTION, ATTENTION_TARGETS, ENDS, FIRST_KEYS, HEAD_NORMS, NORMS_BEFORE, QWEN_EXPERTS};
use super::qwen3::QWEN3;
use super::schema::*;

pub(super) const QWEN3_MOE: Architecture = Architecture {
    models: "Qwen 3 MoE",
    name: "qwen3moe",
    tensors: Tensors {
        groups: &[ENDS, NORMS_BEFORE, HEAD_NORMS, ATTENTION, QWEN_EXPERTS],
        targets: ATTENTION_TARGETS,
        ..QWEN3.tensors
    },
    converter: Converter {
        keys: &[FIRST_KEYS, &[Key::Experts, Key::GivenHeadLengths, Key::FileType, Key::ExpertFeedForward]],
        experts: &["ffn_down_exps", "ffn_gate_exps", "ffn_up_exps"],
        ..Converter::USUAL
    },
    hugging_face: HuggingFace {
        model_types: &["qwen3_moe"],
        class: "Qwen3MoeForCausalLM",
        defaults: &[("sliding_window", 4096.0), ("max_position_embeddings", 32768.0)],
        windows: WindowedLayers::Switched,
        options: &[ClassOption::SparseBlocks],
        flags: &[("attention_bias", false), ("norm_topk_prob", true), ("output_router_logits", false)],
        ..QWEN3.hugging_face
    },
    onnx: Onnx { genai_type: None },
    ..QWEN3
};
