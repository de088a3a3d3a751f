//! Phi 3, 3.5 and 4: q, k and v in one matrix, gate and up in another, and longer contexts by two sets of factors.

use super::Size::{Ff, GateUp, KeyValue, Model, Qkv, Query};
use super::groups::{ENDS, FEED_FORWARD, NORMS_BEFORE, OUTPUT};
use super::{Architecture, Positions, TensorNames, llama};

const MATRICES: &[TensorNames] = &[
    TensorNames::new("blk.{}.attn_qkv", "model.layers.{}.self_attn.qkv_proj", &[Qkv, Model]),
    OUTPUT,
    TensorNames::new("blk.{}.ffn_up", "model.layers.{}.mlp.gate_up_proj", &[GateUp, Model]),
    FEED_FORWARD[2],
];

pub(super) const PHI3: Architecture = Architecture {
    gguf: "phi3",
    hugging_face: &["phi3"],
    tensors: &[ENDS, NORMS_BEFORE, MATRICES],
    targets: &[
        ("q", "attn_qkv[q]"),
        ("k", "attn_qkv[k]"),
        ("v", "attn_qkv[v]"),
        ("o", "attn_output"),
        ("gate", "ffn_up[gate]"),
        ("up", "ffn_up[up]"),
        ("down", "ffn_down"),
    ],
    fused: &[
        ("attn_qkv", &[("q", Query), ("k", KeyValue), ("v", KeyValue)]),
        ("ffn_up", &[("gate", Ff), ("up", Ff)]),
    ],
    config_defaults: &[("max_position_embeddings", 4096.0), ("rms_norm_eps", 1e-5)],
    positions: Positions::RopeHalf,
    ..llama::LLAMA
};
