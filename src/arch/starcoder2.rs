//! StarCoder 2: LayerNorm, grouped-query attention with rotary embeddings, GELU without a gate, biases everywhere.

use super::groups::{ATTENTION, EMBEDDING, HEAD, LAST_NORM, NORMS_BEFORE, SIZES, UNGATED_TARGETS};
use super::llama::LLAMA;
use super::schema::Size::{Ff, Model};
use super::schema::*;

const BIASED: &[TensorNames] = &[
    EMBEDDING,
    LAST_NORM.biased(),
    HEAD,
    NORMS_BEFORE[0].biased(),
    NORMS_BEFORE[1].biased(),
    ATTENTION[0].biased(),
    ATTENTION[1].biased(),
    ATTENTION[2].biased(),
    ATTENTION[3].biased(),
    TensorNames::new("blk.{}.ffn_up", "model.layers.{}.mlp.c_fc", &[Ff, Model]).biased(),
    TensorNames::new("blk.{}.ffn_down", "model.layers.{}.mlp.c_proj", &[Model, Ff]).biased(),
];

pub(super) const STARCODER2: Architecture = Architecture {
    models: "StarCoder 2",
    name: "starcoder2",
    tensors: Tensors { groups: &[BIASED], targets: UNGATED_TARGETS, ..LLAMA.tensors },
    forward: Forward {
        norm: NormKind::Layer,
        positions: Positions::RopeHalf,
        activation: Activation::Gelu,
        ..LLAMA.forward
    },
    gguf: Gguf::USUAL,
    converter: Converter {
        keys: &[
            SIZES,
            &[Key::RopeScaling, Key::RopeBase, Key::LayerEpsilon],
            &[Key::GivenHeadLengths, Key::FileType],
        ],
        ..Converter::USUAL
    },
    hugging_face: HuggingFace {
        model_types: &["starcoder2"],
        class: "Starcoder2ForCausalLM",
        keys: &[("rms_norm_eps", "norm_epsilon")],
        defaults: &[
            ("vocab_size", 49_152.0),
            ("hidden_size", 3072.0),
            ("intermediate_size", 12_288.0),
            ("num_hidden_layers", 30.0),
            ("num_attention_heads", 24.0),
            ("num_key_value_heads", 2.0),
            ("max_position_embeddings", 4096.0),
            ("norm_epsilon", 1e-5),
        ],
        heads: HeadKeys::Grouped,
        activation: ActivationKey {
            key: "hidden_act",
            names: &["gelu_pytorch_tanh", "gelu_new"],
            also_written: &[],
        },
        windows: WindowedLayers::All,
        options: &[],
        flags: &[("use_bias", true)],
        ..LLAMA.hugging_face
    },
    onnx: Onnx { genai_type: None },
};
