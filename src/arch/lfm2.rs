//! LFM2 and LFM2.5: gated short convolutions in most blocks, and in the others attention with norms of each head of q and k.

use super::groups::{EMBEDDING, FIRST_KEYS, HEAD};
use super::llama::LLAMA;
use super::schema::Blocks::{Attention, Convolution};
use super::schema::Size::{Ff, Head, KeyValue, Model, Query, Taps, ThreeTimesModel};
use super::schema::*;

const fn line(canonical: &'static str, hugging_face: &'static str, shape: &'static [Size]) -> TensorNames {
    TensorNames::new(canonical, hugging_face, shape)
}

// llama.cpp calls the last norm so, by mistake.
pub(super) const ENDS: &[TensorNames] =
    &[EMBEDDING, line("token_embd_norm", "model.embedding_norm", &[Model]), HEAD];

pub(super) const MIXERS: &[TensorNames] = &[
    line("blk.{}.attn_norm", "model.layers.{}.operator_norm", &[Model]),
    line("blk.{}.ffn_norm", "model.layers.{}.ffn_norm", &[Model]),
    line("blk.{}.attn_q", "model.layers.{}.self_attn.q_proj", &[Query, Model]).only_in(Attention),
    line("blk.{}.attn_k", "model.layers.{}.self_attn.k_proj", &[KeyValue, Model]).only_in(Attention),
    line("blk.{}.attn_v", "model.layers.{}.self_attn.v_proj", &[KeyValue, Model]).only_in(Attention),
    line("blk.{}.attn_output", "model.layers.{}.self_attn.out_proj", &[Model, Query]).only_in(Attention),
    line("blk.{}.attn_q_norm", "model.layers.{}.self_attn.q_layernorm", &[Head]).only_in(Attention),
    line("blk.{}.attn_k_norm", "model.layers.{}.self_attn.k_layernorm", &[Head]).only_in(Attention),
    line("blk.{}.shortconv.in_proj", "model.layers.{}.conv.in_proj", &[ThreeTimesModel, Model])
        .only_in(Convolution),
    line("blk.{}.shortconv.conv", "model.layers.{}.conv.conv", &[Model, Taps])
        .only_in(Convolution)
        .convolution(),
    line("blk.{}.shortconv.out_proj", "model.layers.{}.conv.out_proj", &[Model, Model]).only_in(Convolution),
];

pub(super) const FEED_FORWARD: &[TensorNames] = &[
    line("blk.{}.ffn_gate", "model.layers.{}.feed_forward.w1", &[Ff, Model]),
    line("blk.{}.ffn_up", "model.layers.{}.feed_forward.w3", &[Ff, Model]),
    line("blk.{}.ffn_down", "model.layers.{}.feed_forward.w2", &[Model, Ff]),
];

pub(super) const LFM2: Architecture = Architecture {
    models: "LFM2, LFM2.5",
    name: "lfm2",
    tensors: Tensors {
        groups: &[ENDS, MIXERS, FEED_FORWARD],
        targets: &[
            ("q", "attn_q"),
            ("k", "attn_k"),
            ("v", "attn_v"),
            ("in", "shortconv.in_proj"),
            ("o", "attn_output"),
            ("o", "shortconv.out_proj"),
            ("gate", "ffn_gate"),
            ("up", "ffn_up"),
            ("down", "ffn_down"),
        ],
        last_norm: "token_embd_norm",
        ..LLAMA.tensors
    },
    forward: Forward { positions: Positions::RopeHalf, ..LLAMA.forward },
    gguf: Gguf { convolutions: true, windows: Some(Windows::every(0)), square_heads: true, ..Gguf::USUAL },
    converter: Converter {
        keys: &[FIRST_KEYS, &[Key::GivenHeadLengths, Key::FileType, Key::Vocabulary, Key::ConvolutionTaps]],
        ..Converter::USUAL
    },
    hugging_face: HuggingFace {
        model_types: &["lfm2"],
        class: "Lfm2ForCausalLM",
        keys: &[("rms_norm_eps", "norm_eps")],
        defaults: &[
            ("vocab_size", 65_536.0),
            ("hidden_size", 2560.0),
            ("intermediate_size", 12_288.0),
            ("num_hidden_layers", 32.0),
            ("num_attention_heads", 32.0),
            ("num_key_value_heads", 8.0),
            ("max_position_embeddings", 128_000.0),
            ("norm_eps", 1e-5),
            ("rope_theta", 1e6),
            ("conv_L_cache", 3.0),
        ],
        heads: HeadKeys::Grouped,
        windows: WindowedLayers::None,
        options: &[ClassOption::Convolutions, ClassOption::AdjustedFeedForward],
        flags: &[("conv_bias", false)],
        ..LLAMA.hugging_face
    },
    onnx: Onnx { genai_type: Some("lfm2") },
};
