//! Phi 1, 1.5 and 2: both parts of a block read its input after one LayerNorm, a part of each head is rotated, GELU
//! without a gate, and biases everywhere, of the output head too.

use super::groups::{ATTENTION, EMBEDDING, HEAD, NORMS_BEFORE, UNGATED_TARGETS};
use super::llama::LLAMA;
use super::schema::Size::{Ff, Model, Query};
use super::schema::*;

const TENSORS: &[TensorNames] = &[
    EMBEDDING,
    TensorNames::new("output_norm", "model.final_layernorm", &[Model]).biased(),
    HEAD.biased().required(),
    NORMS_BEFORE[0].biased(),
    ATTENTION[0].biased(),
    ATTENTION[1].biased(),
    ATTENTION[2].biased(),
    TensorNames::new("blk.{}.attn_output", "model.layers.{}.self_attn.dense", &[Model, Query]).biased(),
    TensorNames::new("blk.{}.ffn_up", "model.layers.{}.mlp.fc1", &[Ff, Model]).biased(),
    TensorNames::new("blk.{}.ffn_down", "model.layers.{}.mlp.fc2", &[Model, Ff]).biased(),
];

pub(super) const PHI2: Architecture = Architecture {
    models: "Phi 1, Phi 1.5, Phi 2",
    name: "phi2",
    tensors: Tensors {
        groups: &[TENSORS],
        targets: UNGATED_TARGETS,
        norms: BlockNorms { before_feed_forward: "attn_norm", ..BlockNorms::USUAL },
        ..LLAMA.tensors
    },
    forward: Forward {
        norm: NormKind::Layer,
        positions: Positions::RopeHalf,
        parallel: true,
        activation: Activation::Gelu,
        ..LLAMA.forward
    },
    gguf: Gguf { needs_head: true, ..Gguf::USUAL },
    converter: Converter {
        keys: &[&[
            Key::Context,
            Key::Width,
            Key::FeedForward,
            Key::Blocks,
            Key::Heads,
            Key::KeyValueHeads,
            Key::LayerEpsilon,
            Key::PartialRopeDimensions,
            Key::FileType,
            Key::NoBos,
        ]],
        rope_types: &[],
        ..Converter::USUAL
    },
    hugging_face: HuggingFace {
        model_types: &["phi"],
        class: "PhiForCausalLM",
        keys: &[("rms_norm_eps", "layer_norm_eps")],
        defaults: &[
            ("vocab_size", 51_200.0),
            ("hidden_size", 2048.0),
            ("intermediate_size", 8192.0),
            ("num_hidden_layers", 24.0),
            ("num_attention_heads", 32.0),
            ("max_position_embeddings", 2048.0),
            ("layer_norm_eps", 1e-5),
            ("partial_rotary_factor", 0.5),
        ],
        heads: HeadKeys::Grouped,
        activation: ActivationKey {
            key: "hidden_act",
            names: &["gelu_new", "gelu_pytorch_tanh"],
            also_written: &[],
        },
        options: &[ClassOption::PartialRotary],
        flags: &[("qk_layernorm", false)],
        ..LLAMA.hugging_face
    },
    onnx: Onnx { genai_type: Some("phi") },
};
