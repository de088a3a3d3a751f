//! Seed-OSS: Qwen 2 with another name for the norm before the feed-forward part.

use super::groups::{ENDS, FEED_FORWARD};
use super::qwen2::{BIASED_ATTENTION, QWEN2};
use super::schema::Size::Model;
use super::schema::*;

const NORMS: &[TensorNames] = &[
    TensorNames::new("blk.{}.attn_norm", "model.layers.{}.input_layernorm", &[Model]),
    TensorNames::new("blk.{}.post_attention_norm", "model.layers.{}.post_attention_layernorm", &[Model]),
];

pub(super) const SEED_OSS: Architecture = Architecture {
    models: "Seed-OSS",
    name: "seed_oss",
    tensors: Tensors {
        groups: &[ENDS, NORMS, BIASED_ATTENTION, FEED_FORWARD],
        norms: BlockNorms {
            after_attention: "",
            before_feed_forward: "post_attention_norm",
            ..BlockNorms::USUAL
        },
        ..QWEN2.tensors
    },
    converter: Converter::USUAL,
    hugging_face: HuggingFace {
        model_types: &["seed_oss"],
        class: "SeedOssForCausalLM",
        defaults: &[
            ("vocab_size", 155_136.0),
            ("hidden_size", 4096.0),
            ("intermediate_size", 27_648.0),
            ("num_hidden_layers", 64.0),
            ("num_attention_heads", 80.0),
            ("num_key_value_heads", 8.0),
            ("head_dim", 128.0),
            ("max_position_embeddings", 524_288.0),
        ],
        heads: HeadKeys::GroupedWithLength,
        windows: WindowedLayers::None,
        flags: &[("attention_bias", true), ("attention_out_bias", false), ("mlp_bias", false)],
        ..QWEN2.hugging_face
    },
    onnx: Onnx { genai_type: None },
    ..QWEN2
};
