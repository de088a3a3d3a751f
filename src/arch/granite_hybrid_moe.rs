//! Granite 4 with state spaces and a mixture of experts, beside one that every token goes through.

use super::granite_hybrid::{GRANITE_HYBRID, KEYS, MIXERS};
use super::granite_moe::{EXPERTS, GRANITE_MOE};
use super::groups::{ENDS, NORMS_BEFORE, SIZES};
use super::schema::Size::{Model, One, SharedFf};
use super::schema::*;

const SHARED: &[TensorNames] = &[
    TensorNames::new("blk.{}.ffn_gate_shexp", "", &[SharedFf, Model]).only_in(Blocks::SharedExpert),
    TensorNames::new("blk.{}.ffn_up_shexp", "", &[SharedFf, Model]).only_in(Blocks::SharedExpert),
    TensorNames::new("blk.{}.ffn_down_shexp", "model.layers.{}.shared_mlp.output_linear", &[Model, SharedFf])
        .only_in(Blocks::SharedExpert),
];

pub(super) const GRANITE_HYBRID_MOE: Architecture = Architecture {
    models: "Granite 4 with state spaces and experts",
    tensors: Tensors {
        groups: &[ENDS, NORMS_BEFORE, MIXERS, EXPERTS, SHARED],
        targets: &[
            ("q", "attn_q"),
            ("k", "attn_k"),
            ("v", "attn_v"),
            ("in", "ssm_in"),
            ("o", "attn_output"),
            ("o", "ssm_out"),
            ("gate", "ffn_gate_shexp"),
            ("up", "ffn_up_shexp"),
            ("down", "ffn_down_shexp"),
        ],
        joined_experts: GRANITE_MOE.tensors.joined_experts,
        joined_rows: &[JoinedRows {
            hugging_face: "model.layers.{}.shared_mlp.input_linear",
            groups: RowGroups { groups: One, segments: &[SharedFf, SharedFf] },
            rotary: 0,
            parts: &[("ffn_gate_shexp", 1), ("ffn_up_shexp", 1)],
        }],
        ..GRANITE_HYBRID.tensors
    },
    gguf: Gguf { shared_expert: SharedExpertWidth::Own, ..GRANITE_HYBRID.gguf },
    converter: Converter {
        keys: &[
            SIZES,
            &[Key::RopeScaling, Key::RopeBase, Key::RmsEpsilon, Key::Experts],
            KEYS[0],
            &[Key::SharedFeedForward],
            KEYS[1],
        ],
        experts: GRANITE_MOE.converter.experts,
        ..GRANITE_HYBRID.converter
    },
    hugging_face: HuggingFace {
        chosen_by: Some(ChosenBy::KeyOrAbsent("num_local_experts")),
        keys: &[
            ("num_experts", "num_local_experts"),
            ("moe_intermediate_size", "intermediate_size"),
            ("shared_expert_intermediate_size", "shared_intermediate_size"),
        ],
        defaults: &[
            ("vocab_size", 32_000.0),
            ("hidden_size", 4096.0),
            ("intermediate_size", 11_008.0),
            ("shared_intermediate_size", 1024.0),
            ("num_hidden_layers", 32.0),
            ("num_attention_heads", 32.0),
            ("attention_multiplier", 1.0),
            ("num_experts_per_tok", 2.0),
            // The softmax is that of the chosen experts.
            ("norm_topk_prob", 1.0),
            ("mamba_n_heads", 128.0),
            ("mamba_n_groups", 1.0),
            ("mamba_d_state", 256.0),
            ("mamba_d_conv", 4.0),
            ("mamba_expand", 2.0),
        ],
        ..GRANITE_HYBRID.hugging_face
    },
    ..GRANITE_HYBRID
};
