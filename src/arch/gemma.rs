//! Gemma 2 and 3: norms before and behind both parts of a block, GELU, embeddings scaled up, windowed blocks between
//! others; soft caps in Gemma 2, norms of the heads of q and k and two rotary bases in Gemma 3.

use super::Size::{Head, Model};
use super::groups::{ATTENTION, ENDS, FEED_FORWARD};
use super::{Activation, Architecture, Positions, TensorNames, Windows, llama};

const OUTER: &[TensorNames] = &[ENDS[0], ENDS[1].unit_offset(), ENDS[2]];

const NORMS: &[TensorNames] = &[
    norm("blk.{}.attn_norm", "model.layers.{}.input_layernorm"),
    norm("blk.{}.post_attention_norm", "model.layers.{}.post_attention_layernorm"),
    norm("blk.{}.ffn_norm", "model.layers.{}.pre_feedforward_layernorm"),
    norm("blk.{}.post_ffw_norm", "model.layers.{}.post_feedforward_layernorm"),
];

const HEAD_NORMS: &[TensorNames] = &[
    TensorNames::new("blk.{}.attn_q_norm", "model.layers.{}.self_attn.q_norm", &[Head]).unit_offset(),
    TensorNames::new("blk.{}.attn_k_norm", "model.layers.{}.self_attn.k_norm", &[Head]).unit_offset(),
];

const fn norm(canonical: &'static str, hugging_face: &'static str) -> TensorNames {
    TensorNames::new(canonical, hugging_face, &[Model]).unit_offset()
}

pub(super) const GEMMA2: Architecture = Architecture {
    gguf: "gemma2",
    hugging_face: &["gemma2"],
    tensors: &[OUTER, NORMS, ATTENTION, FEED_FORWARD],
    config_defaults: &[
        ("head_dim", 256.0),
        ("query_pre_attn_scalar", 256.0),
        ("max_position_embeddings", 8192.0),
        ("sliding_window", 4096.0),
        ("sliding_window_pattern", 2.0),
        ("attn_logit_softcapping", 50.0),
        ("final_logit_softcapping", 30.0),
    ],
    positions: Positions::RopeHalf,
    activation: Activation::Gelu,
    scales_embedding: true,
    soft_caps: Some([Some(50.0), Some(30.0)]),
    windows: Some(Windows { period: 2, length: Some(4096), rope_base: None, scaled: true }),
    scaled_by_width: &[46],
    ..llama::LLAMA
};

pub(super) const GEMMA3: Architecture = Architecture {
    gguf: "gemma3",
    hugging_face: &["gemma3_text", "gemma3"],
    tensors: &[OUTER, NORMS, HEAD_NORMS, ATTENTION, FEED_FORWARD],
    // The language model within the one that sees, as older and as newer folders name it.
    prefixes: &[("language_model.", ""), ("model.language_model.", "model.")],
    config_defaults: &[
        ("vocab_size", 262_208.0),
        ("hidden_size", 2304.0),
        ("intermediate_size", 9216.0),
        ("num_hidden_layers", 26.0),
        ("num_attention_heads", 8.0),
        ("num_key_value_heads", 4.0),
        ("head_dim", 256.0),
        ("max_position_embeddings", 131_072.0),
        ("rope_theta", 1e6),
        ("rope_local_base_freq", 1e4),
        ("query_pre_attn_scalar", 256.0),
        ("sliding_window", 4096.0),
        ("sliding_window_pattern", 6.0),
    ],
    soft_caps: Some([None, None]),
    windows: Some(Windows { period: 6, length: None, rope_base: Some(1e4), scaled: false }),
    scaled_by_width: &[62],
    ..GEMMA2
};
