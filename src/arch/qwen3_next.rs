//! Qwen 3 Next: Qwen 3.5 MoE whose folders have the matrices of linear attention in two tensors, and value heads that share a
//! key head one after another.

use super::gemma::GEMMA_ENDS;
use super::groups::{QWEN_EXPERTS, SIZES};
use super::qwen3_5::{DELTA_NET, GATED_ATTENTION, NORMS, PREDICTION};
use super::qwen3_5_moe::{QWEN3_5_MOE, SHARED_EXPERT};
use super::qwen3_moe::QWEN3_MOE;
use super::schema::Blocks::LinearAttention;
use super::schema::Size::{LinearChannels, LinearKey, LinearKeyHeads, LinearValue, Model, TwiceLinearHeads};
use super::schema::*;

const JOINED: &[TensorNames] = &[
    TensorNames::new("blk.{}.attn_qkv", "", &[LinearChannels, Model]).only_in(LinearAttention),
    TensorNames::new("blk.{}.attn_gate", "", &[LinearValue, Model]).only_in(LinearAttention),
    TensorNames::new("blk.{}.ssm_ba", "model.layers.{}.linear_attn.in_proj_ba", &[TwiceLinearHeads, Model])
        .only_in(LinearAttention),
    DELTA_NET[4],
    DELTA_NET[5],
    DELTA_NET[6],
    DELTA_NET[7],
    DELTA_NET[8],
];

pub(super) const QWEN3_NEXT: Architecture = Architecture {
    models: "Qwen 3 Next",
    name: "qwen3next",
    tensors: Tensors {
        groups: &[GEMMA_ENDS, NORMS, GATED_ATTENTION, JOINED, QWEN_EXPERTS, SHARED_EXPERT, PREDICTION],
        targets: &[
            ("q", "attn_q"),
            ("k", "attn_k"),
            ("v", "attn_v"),
            ("qkv", "attn_qkv"),
            ("z", "attn_gate"),
            ("ba", "ssm_ba"),
            ("o", "attn_output"),
            ("o", "ssm_out"),
            ("gate", "ffn_gate_shexp"),
            ("up", "ffn_up_shexp"),
            ("down", "ffn_down_shexp"),
        ],
        small: &["ba"],
        joined_rows: &[JoinedRows {
            hugging_face: "model.layers.{}.linear_attn.in_proj_qkvz",
            groups: RowGroups {
                groups: LinearKeyHeads,
                segments: &[LinearKey, LinearKey, LinearValue, LinearValue],
            },
            rotary: 0,
            parts: &[("attn_qkv", 3), ("attn_gate", 1)],
        }],
        prefixes: &[],
        ..QWEN3_5_MOE.tensors
    },
    forward: Forward { grouped_value_heads: true, ..QWEN3_5_MOE.forward },
    gguf: Gguf { linear_attention: Some(4), ..Gguf::USUAL },
    converter: Converter {
        keys: &[
            SIZES,
            &[
                Key::RopeScaling,
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
            ],
        ],
        experts: QWEN3_MOE.converter.experts,
        ..Converter::USUAL
    },
    hugging_face: HuggingFace {
        model_types: &["qwen3_next"],
        class: "Qwen3NextForCausalLM",
        defaults: &[
            ("vocab_size", 151_936.0),
            ("hidden_size", 2048.0),
            ("intermediate_size", 5632.0),
            ("num_hidden_layers", 48.0),
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
            ("moe_intermediate_size", 512.0),
            ("shared_expert_intermediate_size", 512.0),
            ("num_experts", 512.0),
            ("num_experts_per_tok", 10.0),
            ("norm_topk_prob", 1.0),
            ("full_attention_interval", 4.0),
        ],
        within: &[],
        options: &[
            ClassOption::PartialRotary,
            ClassOption::LinearAttention,
            ClassOption::SparseBlocks,
            ClassOption::ExpertsNormalized,
        ],
        flags: &[("attention_bias", false), ("output_router_logits", false)],
        ..QWEN3_5_MOE.hugging_face
    },
    ..QWEN3_5_MOE
};
