//! StableLM and StableLM 2: LayerNorm, a quarter of each head rotated. Models whose two parts of a block read the same
//! norm, and which have a norm for each head (StableLM 2 12B), are another variant.

use super::groups::{ATTENTION, EMBEDDING, FEED_FORWARD, HEAD, LAST_NORM, NORMS_BEFORE};
use super::llama::LLAMA;
use super::schema::*;

const TENSORS: &[TensorNames] = &[
    EMBEDDING,
    LAST_NORM.biased(),
    HEAD,
    NORMS_BEFORE[0].biased(),
    NORMS_BEFORE[1].biased(),
    ATTENTION[0].may_be_biased(),
    ATTENTION[1].may_be_biased(),
    ATTENTION[2].may_be_biased(),
    ATTENTION[3],
];

pub(super) const STABLELM: Architecture = Architecture {
    models: "StableLM, StableLM 2",
    name: "stablelm",
    tensors: Tensors { groups: &[TENSORS, FEED_FORWARD], ..LLAMA.tensors },
    forward: Forward { norm: NormKind::Layer, positions: Positions::RopeHalf, ..LLAMA.forward },
    gguf: Gguf { ignored_keys: &["use_parallel_residual"], ..Gguf::USUAL },
    converter: Converter {
        keys: &[&[
            Key::Context,
            Key::Width,
            Key::Blocks,
            Key::FeedForward,
            Key::PartialRopeDimensions,
            Key::Heads,
            Key::KeyValueHeads,
            Key::ParallelResidual,
            Key::LayerEpsilon,
            Key::FileType,
        ]],
        rope_types: &[],
        ..Converter::USUAL
    },
    hugging_face: HuggingFace {
        model_types: &["stablelm"],
        class: "StableLmForCausalLM",
        keys: &[("rms_norm_eps", "layer_norm_eps")],
        defaults: &[
            ("vocab_size", 50_304.0),
            ("hidden_size", 2560.0),
            ("intermediate_size", 6912.0),
            ("num_hidden_layers", 32.0),
            ("num_attention_heads", 32.0),
            ("num_key_value_heads", 32.0),
            ("max_position_embeddings", 4096.0),
            ("layer_norm_eps", 1e-5),
            ("partial_rotary_factor", 0.25),
        ],
        heads: HeadKeys::Grouped,
        options: &[ClassOption::PartialRotary, ClassOption::InputBiases("use_qkv_bias")],
        flags: &[("qk_layernorm", false), ("use_parallel_residual", false)],
        ..LLAMA.hugging_face
    },
    onnx: Onnx { genai_type: None },
};
