//! Qwen 1.5 MoE and Qwen 2 57B: Qwen 2 with a mixture of experts whose weights do not sum to 1, and an expert that every token
//! goes through.

use super::groups::{ENDS, FIRST_KEYS, NORMS_BEFORE, QWEN_EXPERTS};
use super::qwen2::{BIASED_ATTENTION, QWEN2};
use super::qwen3_5_moe::{QWEN3_5_MOE, SHARED_EXPERT};
use super::qwen3_moe::QWEN3_MOE;
use super::schema::*;

pub(super) const QWEN2_MOE: Architecture = Architecture {
    models: "Qwen 1.5 MoE, Qwen 2 57B A14B",
    name: "qwen2moe",
    tensors: Tensors {
        groups: &[ENDS, NORMS_BEFORE, BIASED_ATTENTION, QWEN_EXPERTS, SHARED_EXPERT],
        targets: &[
            ("q", "attn_q"),
            ("k", "attn_k"),
            ("v", "attn_v"),
            ("o", "attn_output"),
            ("gate", "ffn_gate_shexp"),
            ("up", "ffn_up_shexp"),
            ("down", "ffn_down_shexp"),
        ],
        joined_experts: QWEN3_5_MOE.tensors.joined_experts,
        ..QWEN2.tensors
    },
    gguf: Gguf { normalizes_experts: Some(false), square_heads: true, needs_head: true, ..Gguf::USUAL },
    converter: Converter {
        keys: &[
            FIRST_KEYS,
            &[
                Key::Experts,
                Key::GivenHeadLengths,
                Key::FileType,
                Key::ExpertFeedForward,
                Key::SharedFeedForward,
            ],
        ],
        experts: QWEN3_MOE.converter.experts,
        ..Converter::USUAL
    },
    hugging_face: HuggingFace {
        model_types: &["qwen2_moe"],
        class: "Qwen2MoeForCausalLM",
        defaults: &[
            ("vocab_size", 151_936.0),
            ("hidden_size", 2048.0),
            ("intermediate_size", 5632.0),
            ("num_hidden_layers", 24.0),
            ("num_attention_heads", 16.0),
            ("num_key_value_heads", 16.0),
            ("max_position_embeddings", 32_768.0),
            ("sliding_window", 4096.0),
            ("num_experts", 60.0),
            ("num_experts_per_tok", 4.0),
            ("moe_intermediate_size", 1408.0),
            ("shared_expert_intermediate_size", 5632.0),
        ],
        windows: WindowedLayers::SwitchedEveryOther,
        options: &[ClassOption::SparseBlocks],
        flags: &[("qkv_bias", true), ("norm_topk_prob", false), ("output_router_logits", false)],
        ..QWEN2.hugging_face
    },
    onnx: Onnx { genai_type: None },
    ..QWEN2
};
