//! OLMo 2: norms behind both parts of a block instead of before them, and of all of q and of k.

use super::Size::{KeyValue, Model, Query};
use super::groups::{ATTENTION, ENDS, FEED_FORWARD};
use super::{Architecture, Positions, TensorNames, Windows, llama};

const NORMS: &[TensorNames] = &[
    TensorNames::new("blk.{}.attn_q_norm", "model.layers.{}.self_attn.q_norm", &[Query]),
    TensorNames::new("blk.{}.attn_k_norm", "model.layers.{}.self_attn.k_norm", &[KeyValue]),
    TensorNames::new("blk.{}.post_attention_norm", "model.layers.{}.post_attention_layernorm", &[Model]),
    TensorNames::new("blk.{}.post_ffw_norm", "model.layers.{}.post_feedforward_layernorm", &[Model]),
];

pub(super) const OLMO2: Architecture = Architecture {
    gguf: "olmo2",
    hugging_face: &["olmo2"],
    tensors: &[ENDS, NORMS, ATTENTION, FEED_FORWARD],
    config_defaults: &[("rms_norm_eps", 1e-5)],
    positions: Positions::RopeHalf,
    windows: Some(Windows { period: 4, length: None, rope_base: None, scaled: false }),
    ..llama::LLAMA
};
