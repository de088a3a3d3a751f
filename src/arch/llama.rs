//! Llama 1 to 3, SmolLM2, TinyLlama, Mistral and what else is built like them: RMSNorm, rotary embeddings,
//! grouped-query attention, SwiGLU; and Mixtral, whose feed-forward part is a mixture of experts.

use super::groups::{
    ATTENTION_NEIGHBOURS, ATTENTION_TARGETS, ENDS, FEED_FORWARD_BIASED, MIXTRAL_EXPERTS, NORMS_BEFORE,
    TARGETS,
};
use super::{Activation, Architecture, NormKind, Positions};

pub(super) const LLAMA: Architecture = Architecture {
    gguf: "llama",
    hugging_face: &["llama"],
    tensors: &[ENDS, NORMS_BEFORE, ATTENTION_NEIGHBOURS, FEED_FORWARD_BIASED],
    targets: TARGETS,
    fused: &[],
    prefixes: &[],
    config_keys: &[],
    config_defaults: &[],
    norm: NormKind::Rms,
    positions: Positions::RopeInterleaved,
    activation: Activation::Silu,
    scales_embedding: false,
    soft_caps: None,
    windows: None,
    scaled_by_width: &[],
};

/// In GGUF a llama, and llama.cpp then knows no window.
pub(super) const MISTRAL: Architecture = Architecture {
    hugging_face: &["mistral"],
    config_defaults: &[
        ("sliding_window", 4096.0),
        ("num_key_value_heads", 8.0),
        ("max_position_embeddings", 131_072.0),
    ],
    ..LLAMA
};

pub(super) const MIXTRAL: Architecture = Architecture {
    hugging_face: &["mixtral"],
    tensors: &[ENDS, NORMS_BEFORE, ATTENTION_NEIGHBOURS, MIXTRAL_EXPERTS],
    targets: ATTENTION_TARGETS,
    config_keys: &[("num_experts", "num_local_experts"), ("moe_intermediate_size", "intermediate_size")],
    config_defaults: &[
        ("rope_theta", 1e6),
        ("max_position_embeddings", 131_072.0),
        ("num_local_experts", 8.0),
        ("num_experts_per_tok", 2.0),
        ("num_key_value_heads", 8.0),
        ("rms_norm_eps", 1e-5),
        ("norm_topk_prob", 1.0),
    ],
    ..LLAMA
};
