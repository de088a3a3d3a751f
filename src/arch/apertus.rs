//! Apertus: llama with a norm of each head of q and k, and a feed-forward part without a gate. Its activation is
//! xIELU, with numbers of each block.

use super::groups::{ATTENTION, ENDS, FEED_FORWARD, FIRST_KEYS, HEAD_NORMS, UNGATED_TARGETS};
use super::llama::LLAMA;
use super::schema::Size::{Model, One};
use super::schema::*;

const fn line(canonical: &'static str, hugging_face: &'static str, shape: &'static [Size]) -> TensorNames {
    TensorNames::new(canonical, hugging_face, shape)
}

const BLOCK: &[TensorNames] = &[
    line("blk.{}.attn_norm", "model.layers.{}.attention_layernorm", &[Model]),
    line("blk.{}.ffn_norm", "model.layers.{}.feedforward_layernorm", &[Model]),
    FEED_FORWARD[1],
    FEED_FORWARD[2],
    line("blk.{}.xielu.alpha_p", "model.layers.{}.mlp.act_fn.alpha_p", &[One]).in_metadata(),
    line("blk.{}.xielu.alpha_n", "model.layers.{}.mlp.act_fn.alpha_n", &[One]).in_metadata(),
    line("blk.{}.xielu.beta", "model.layers.{}.mlp.act_fn.beta", &[]).in_metadata(),
    line("blk.{}.xielu.eps", "model.layers.{}.mlp.act_fn.eps", &[]).in_metadata(),
];

pub(super) const APERTUS: Architecture = Architecture {
    models: "Apertus",
    name: "apertus",
    tensors: Tensors {
        groups: &[ENDS, HEAD_NORMS, ATTENTION, BLOCK],
        targets: UNGATED_TARGETS,
        ..LLAMA.tensors
    },
    forward: Forward { positions: Positions::RopeHalf, activation: Activation::Xielu, ..LLAMA.forward },
    gguf: Gguf { needs_head: true, ..Gguf::USUAL },
    converter: Converter {
        keys: &[FIRST_KEYS, &[Key::GivenHeadLengths, Key::FileType, Key::Vocabulary, Key::RopeDimensions]],
        ..LLAMA.converter
    },
    hugging_face: HuggingFace {
        model_types: &["apertus"],
        class: "ApertusForCausalLM",
        defaults: &[
            ("vocab_size", 131_072.0),
            ("hidden_size", 4096.0),
            ("intermediate_size", 14_336.0),
            ("num_hidden_layers", 32.0),
            ("num_attention_heads", 32.0),
            ("max_position_embeddings", 65_536.0),
            ("rms_norm_eps", 1e-5),
            ("rope_theta", 12_000_000.0),
        ],
        fills_in_rope_scaling: true,
        heads: HeadKeys::Grouped,
        options: &[],
        flags: &[("attention_bias", false)],
        activation: ActivationKey { key: "hidden_act", names: &["xielu"], also_written: &[] },
        ..LLAMA.hugging_face
    },
    onnx: Onnx { genai_type: None },
};
