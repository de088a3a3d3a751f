//! Qwen 2 and 2.5 (biases of q, k and v), Qwen 3 (norms of each head of q and k) and its mixture of experts.

use super::groups::{
    ATTENTION, ATTENTION_TARGETS, ENDS, FEED_FORWARD, HEAD_NORMS, NORMS_BEFORE, QWEN_EXPERTS,
};
use super::{Architecture, Positions, TensorNames, llama};

const BIASED_ATTENTION: &[TensorNames] =
    &[ATTENTION[0].biased(), ATTENTION[1].biased(), ATTENTION[2].biased(), ATTENTION[3]];

pub(super) const QWEN2: Architecture = Architecture {
    gguf: "qwen2",
    hugging_face: &["qwen2"],
    tensors: &[ENDS, NORMS_BEFORE, BIASED_ATTENTION, FEED_FORWARD],
    config_defaults: &[("sliding_window", 4096.0), ("max_position_embeddings", 32768.0)],
    positions: Positions::RopeHalf,
    ..llama::LLAMA
};

pub(super) const QWEN3: Architecture = Architecture {
    gguf: "qwen3",
    hugging_face: &["qwen3"],
    tensors: &[ENDS, NORMS_BEFORE, HEAD_NORMS, ATTENTION, FEED_FORWARD],
    config_defaults: &[("head_dim", 128.0), ("sliding_window", 4096.0), ("max_position_embeddings", 32768.0)],
    ..QWEN2
};

pub(super) const QWEN3_MOE: Architecture = Architecture {
    gguf: "qwen3moe",
    hugging_face: &["qwen3_moe"],
    tensors: &[ENDS, NORMS_BEFORE, HEAD_NORMS, ATTENTION, QWEN_EXPERTS],
    targets: ATTENTION_TARGETS,
    config_defaults: &[("sliding_window", 4096.0), ("max_position_embeddings", 32768.0)],
    ..QWEN2
};
