//! OLMoE: a mixture of experts whose weights do not sum to 1, and norms of all heads of q and of k together.

use super::groups::{ATTENTION, ATTENTION_TARGETS, ENDS, FIRST_KEYS, NORMS_BEFORE, QWEN_EXPERTS};
use super::olmo2::{OLMO2, WHOLE_NORMS};
use super::qwen3_5_moe::QWEN3_5_MOE;
use super::qwen3_moe::QWEN3_MOE;
use super::schema::*;

pub(super) const OLMOE: Architecture = Architecture {
    models: "OLMoE",
    name: "olmoe",
    tensors: Tensors {
        groups: &[ENDS, NORMS_BEFORE, WHOLE_NORMS, ATTENTION, QWEN_EXPERTS],
        targets: ATTENTION_TARGETS,
        joined_experts: QWEN3_5_MOE.tensors.joined_experts,
        ..OLMO2.tensors
    },
    gguf: Gguf { normalizes_experts: Some(false), square_heads: true, needs_head: true, ..Gguf::USUAL },
    converter: Converter {
        keys: &[FIRST_KEYS, &[Key::Experts, Key::GivenHeadLengths, Key::FileType]],
        experts: QWEN3_MOE.converter.experts,
        rms_epsilon: Some(1e-5),
        ..Converter::USUAL
    },
    hugging_face: HuggingFace {
        model_types: &["olmoe"],
        class: "OlmoeForCausalLM",
        keys: &[("moe_intermediate_size", "intermediate_size")],
        defaults: &[
            ("vocab_size", 50_304.0),
            ("hidden_size", 2048.0),
            ("intermediate_size", 2048.0),
            ("num_hidden_layers", 16.0),
            ("num_attention_heads", 16.0),
            ("max_position_embeddings", 4096.0),
            ("rms_norm_eps", 1e-5),
            ("num_experts", 64.0),
            ("num_experts_per_tok", 8.0),
        ],
        flags: &[("attention_bias", false), ("norm_topk_prob", false), ("output_router_logits", false)],
        ..OLMO2.hugging_face
    },
    ..OLMO2
};
