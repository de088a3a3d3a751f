//! OLMo 2: norms after both parts of a block instead of before them, and norms of all heads of q and of k
//! together.

use super::groups::{ATTENTION, ENDS, FEED_FORWARD};
use super::llama::LLAMA;
use super::schema::Size::{KeyValue, Model, Query};
use super::schema::*;

/// Norms of all heads of q, and of k.
pub(super) const WHOLE_NORMS: &[TensorNames] = &[
    TensorNames::new("blk.{}.attn_q_norm", "model.layers.{}.self_attn.q_norm", &[Query]),
    TensorNames::new("blk.{}.attn_k_norm", "model.layers.{}.self_attn.k_norm", &[KeyValue]),
];

const NORMS: &[TensorNames] = &[
    TensorNames::new("blk.{}.post_attention_norm", "model.layers.{}.post_attention_layernorm", &[Model]),
    TensorNames::new("blk.{}.post_ffw_norm", "model.layers.{}.post_feedforward_layernorm", &[Model]),
];

pub(super) const OLMO2: Architecture = Architecture {
    models: "OLMo 2",
    name: "olmo2",
    tensors: Tensors { groups: &[ENDS, WHOLE_NORMS, NORMS, ATTENTION, FEED_FORWARD], ..LLAMA.tensors },
    forward: Forward { positions: Positions::RopeHalf, ..LLAMA.forward },
    gguf: Gguf::USUAL,
    converter: Converter::USUAL,
    hugging_face: HuggingFace {
        model_types: &["olmo2"],
        class: "Olmo2ForCausalLM",
        defaults: &[("rms_norm_eps", 1e-5)],
        heads: HeadKeys::Grouped,
        options: &[],
        flags: &[("attention_bias", false)],
        ..LLAMA.hugging_face
    },
    onnx: Onnx { genai_type: None },
};
