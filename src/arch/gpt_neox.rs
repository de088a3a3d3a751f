//! GPT-NeoX and Pythia: both parts of a block read its input, each after a LayerNorm of its own; a quarter of each head is
//! rotated; queries, keys and values are in one matrix. transformers computes GELU itself, and llama.cpp its tanh
//! formula. Models whose two parts follow one another are another variant.

use super::gpt2::GPT2;
use super::llama::LLAMA;
use super::schema::Size::{Ff, Model, Qkv, Query, Vocab};
use super::schema::*;

const fn line(canonical: &'static str, hugging_face: &'static str, shape: &'static [Size]) -> TensorNames {
    TensorNames::new(canonical, hugging_face, shape)
}

const TENSORS: &[TensorNames] = &[
    line("token_embd", "gpt_neox.embed_in", &[Vocab, Model]),
    line("output_norm", "gpt_neox.final_layer_norm", &[Model]).biased(),
    line("output", "embed_out", &[Vocab, Model]).optional(),
    line("blk.{}.attn_norm", "gpt_neox.layers.{}.input_layernorm", &[Model]).biased(),
    line("blk.{}.ffn_norm", "gpt_neox.layers.{}.post_attention_layernorm", &[Model]).biased(),
    line("blk.{}.attn_qkv", "gpt_neox.layers.{}.attention.query_key_value", &[Qkv, Model])
        .grouped(RowGroups::QKV)
        .biased(),
    line("blk.{}.attn_output", "gpt_neox.layers.{}.attention.dense", &[Model, Query]).biased(),
    line("blk.{}.ffn_up", "gpt_neox.layers.{}.mlp.dense_h_to_4h", &[Ff, Model]).biased(),
    line("blk.{}.ffn_down", "gpt_neox.layers.{}.mlp.dense_4h_to_h", &[Model, Ff]).biased(),
];

pub(super) const GPT_NEOX: Architecture = Architecture {
    models: "GPT-NeoX, Pythia",
    name: "gptneox",
    tensors: Tensors {
        groups: &[TENSORS],
        targets: GPT2.tensors.targets,
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
    gguf: Gguf { activation: Some(Activation::Gelu), needs_head: true, square_heads: true, ..Gguf::USUAL },
    converter: Converter {
        keys: &[&[
            Key::Context,
            Key::Width,
            Key::Blocks,
            Key::FeedForward,
            Key::PartialRopeDimensions,
            Key::Heads,
            Key::ParallelResidual,
            Key::LayerEpsilon,
        ]],
        rope_types: &[],
        ..Converter::USUAL
    },
    hugging_face: HuggingFace {
        model_types: &["gpt_neox"],
        class: "GPTNeoXForCausalLM",
        keys: &[
            ("rms_norm_eps", "layer_norm_eps"),
            ("rope_theta", "rotary_emb_base"),
            ("partial_rotary_factor", "rotary_pct"),
        ],
        defaults: &[
            ("vocab_size", 50_432.0),
            ("hidden_size", 6144.0),
            ("intermediate_size", 24_576.0),
            ("num_hidden_layers", 44.0),
            ("num_attention_heads", 64.0),
            ("max_position_embeddings", 2048.0),
            ("layer_norm_eps", 1e-5),
            ("rotary_pct", 0.25),
        ],
        heads: HeadKeys::Ungrouped,
        activation: ActivationKey { key: "hidden_act", names: &["gelu", "gelu_python"], also_written: &[] },
        tanh_names: &["gelu_fast", "gelu_new", "gelu_pytorch_tanh"],
        options: &[ClassOption::PartialRotary],
        flags: &[("use_parallel_residual", true), ("attention_bias", true)],
        ..LLAMA.hugging_face
    },
    onnx: Onnx { genai_type: None },
};
