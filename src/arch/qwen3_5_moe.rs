//! Qwen 3.5 with a mixture of experts as its feed-forward part, and an expert that every token goes through. Folders have
//! the matrices of all experts in one tensor.

use super::gemma::GEMMA_ENDS;
use super::groups::{QWEN_EXPERTS, SIZES_OF_EXPERTS};
use super::qwen3_5::{DELTA_NET, GATED_ATTENTION, NORMS, PREDICTION, QWEN3_5};
use super::schema::Size::{Model, One, SharedFf};
use super::schema::*;

/// An expert that every token goes through, with its gate.
pub(super) const SHARED_EXPERT: &[TensorNames] = &[
    TensorNames::new("blk.{}.ffn_gate_inp_shexp", "model.layers.{}.mlp.shared_expert_gate", &[One, Model]),
    TensorNames::new(
        "blk.{}.ffn_gate_shexp",
        "model.layers.{}.mlp.shared_expert.gate_proj",
        &[SharedFf, Model],
    ),
    TensorNames::new("blk.{}.ffn_up_shexp", "model.layers.{}.mlp.shared_expert.up_proj", &[SharedFf, Model]),
    TensorNames::new(
        "blk.{}.ffn_down_shexp",
        "model.layers.{}.mlp.shared_expert.down_proj",
        &[Model, SharedFf],
    ),
];

pub(super) const QWEN3_5_MOE: Architecture = Architecture {
    models: "Qwen 3.5 MoE",
    name: "qwen35moe",
    tensors: Tensors {
        groups: &[GEMMA_ENDS, NORMS, GATED_ATTENTION, DELTA_NET, QWEN_EXPERTS, SHARED_EXPERT, PREDICTION],
        targets: &[
            ("q", "attn_q"),
            ("k", "attn_k"),
            ("v", "attn_v"),
            ("qkv", "attn_qkv"),
            ("z", "attn_gate"),
            ("beta", "ssm_beta"),
            ("alpha", "ssm_alpha"),
            ("o", "attn_output"),
            ("o", "ssm_out"),
            ("gate", "ffn_gate_shexp"),
            ("up", "ffn_up_shexp"),
            ("down", "ffn_down_shexp"),
        ],
        joined_experts: &[
            JoinedExperts {
                hugging_face: "model.layers.{}.mlp.experts.gate_up_proj",
                ending: "",
                parts: &["blk.{}.ffn_gate_exps[{}]", "blk.{}.ffn_up_exps[{}]"],
                interleaved: false,
                transposed: false,
            },
            JoinedExperts {
                hugging_face: "model.layers.{}.mlp.experts.down_proj",
                ending: "",
                parts: &["blk.{}.ffn_down_exps[{}]"],
                interleaved: false,
                transposed: false,
            },
        ],
        ..QWEN3_5.tensors
    },
    converter: Converter {
        keys: &[
            SIZES_OF_EXPERTS,
            &[
                Key::RopeScaling,
                Key::Sections,
                Key::RopeBase,
                Key::RmsEpsilon,
                Key::Experts,
                Key::HeadLengths,
                Key::FileType,
            ],
            &[
                Key::ExpertFeedForward,
                Key::SharedFeedForward,
                Key::PredictionBlocks,
                Key::LinearAttention,
                Key::PartialRopeDimensions,
                Key::UsualSections,
            ],
        ],
        experts: &["ffn_down_exps", "ffn_gate_exps", "ffn_up_exps"],
        ..QWEN3_5.converter
    },
    hugging_face: HuggingFace {
        model_types: &["qwen3_5_moe_text", "qwen3_5_moe"],
        class: "Qwen3_5MoeForCausalLM",
        defaults: &[
            ("vocab_size", 248_320.0),
            ("hidden_size", 2048.0),
            ("moe_intermediate_size", 512.0),
            ("shared_expert_intermediate_size", 512.0),
            ("num_experts", 256.0),
            ("num_experts_per_tok", 8.0),
            ("norm_topk_prob", 1.0),
            ("num_hidden_layers", 40.0),
            ("num_attention_heads", 16.0),
            ("num_key_value_heads", 2.0),
            ("head_dim", 256.0),
            ("max_position_embeddings", 32_768.0),
            ("partial_rotary_factor", 0.25),
            ("linear_conv_kernel_dim", 4.0),
            ("linear_key_head_dim", 128.0),
            ("linear_value_head_dim", 128.0),
            ("linear_num_key_heads", 16.0),
            ("linear_num_value_heads", 32.0),
            ("full_attention_interval", 4.0),
        ],
        flags: &[("attention_bias", false), ("output_router_logits", false)],
        ..QWEN3_5.hugging_face
    },
    ..QWEN3_5
};
