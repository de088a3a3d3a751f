//! Falcon and Falcon 2: both parts of a block read its input, after one LayerNorm or, in 40B, each after its own;
//! queries, keys and values are in one matrix; GELU without a gate. transformers computes GELU itself, and llama.cpp its tanh
//! formula. Models with ALiBi (Falcon-RW), or whose two parts follow one another, are other variants.

use super::gpt2::GPT2;
use super::llama::LLAMA;
use super::schema::Size::{Ff, Model, Qkv, Query, Vocab};
use super::schema::*;

const fn line(canonical: &'static str, hugging_face: &'static str, shape: &'static [Size]) -> TensorNames {
    TensorNames::new(canonical, hugging_face, shape)
}

const TENSORS: &[TensorNames] = &[
    line("token_embd", "transformer.word_embeddings", &[Vocab, Model]),
    line("output_norm", "transformer.ln_f", &[Model]).biased(),
    line("output", "lm_head", &[Vocab, Model]).optional(),
    line("blk.{}.attn_norm", "transformer.h.{}.input_layernorm", &[Model])
        .named_in(Blocks::TwoNorms, "transformer.h.{}.ln_mlp")
        .biased(),
    line("blk.{}.attn_norm_2", "transformer.h.{}.ln_attn", &[Model]).only_in(Blocks::TwoNorms).biased(),
    line("blk.{}.attn_qkv", "transformer.h.{}.self_attention.query_key_value", &[Qkv, Model])
        .grouped(RowGroups::QKV),
    line("blk.{}.attn_output", "transformer.h.{}.self_attention.dense", &[Model, Query]),
    line("blk.{}.ffn_up", "transformer.h.{}.mlp.dense_h_to_4h", &[Ff, Model]),
    line("blk.{}.ffn_down", "transformer.h.{}.mlp.dense_4h_to_h", &[Model, Ff]),
];

pub(super) const FALCON: Architecture = Architecture {
    models: "Falcon 7B and 40B, Falcon 2",
    name: "falcon",
    tensors: Tensors {
        groups: &[TENSORS],
        targets: GPT2.tensors.targets,
        norms: BlockNorms {
            before_attention: "attn_norm_2",
            before_both: Some("attn_norm"),
            before_feed_forward: "attn_norm",
            ..BlockNorms::USUAL
        },
        fused: GPT2.tensors.fused,
        ..LLAMA.tensors
    },
    forward: Forward {
        norm: NormKind::Layer,
        positions: Positions::RopeHalf,
        parallel: true,
        activation: Activation::ExactGelu,
        ..LLAMA.forward
    },
    gguf: Gguf { activation: Some(Activation::Gelu), square_heads: true, fewer_bits: true, ..Gguf::USUAL },
    converter: Converter {
        keys: &[&[
            Key::UsualContext,
            Key::TensorLayout,
            Key::Width,
            Key::FeedForward,
            Key::Blocks,
            Key::Heads,
            Key::KeyValueHeads,
            Key::LayerEpsilon,
            Key::FileType,
        ]],
        rope_types: &[],
        ..Converter::USUAL
    },
    hugging_face: HuggingFace {
        model_types: &["falcon"],
        class: "FalconForCausalLM",
        keys: &[
            ("rms_norm_eps", "layer_norm_epsilon"),
            ("num_key_value_heads", "num_kv_heads"),
            ("intermediate_size", "ffn_hidden_size"),
        ],
        defaults: &[
            ("vocab_size", 65_024.0),
            ("hidden_size", 4544.0),
            ("num_hidden_layers", 32.0),
            ("num_attention_heads", 71.0),
            ("multi_query", 1.0),
            ("layer_norm_epsilon", 1e-5),
        ],
        heads: HeadKeys::Grouped,
        activation: ActivationKey { key: "activation", names: &["gelu", "gelu_python"], also_written: &[] },
        tanh_names: &["gelu_fast", "gelu_new", "gelu_pytorch_tanh"],
        ff_ratio: Some(4),
        options: &[ClassOption::NewDecoder],
        flags: &[("parallel_attn", true), ("alibi", false), ("bias", false)],
        ..LLAMA.hugging_face
    },
    onnx: Onnx { genai_type: None },
};
