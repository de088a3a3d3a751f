//! GPT-2: LayerNorm, learned positions, q, k and v in one matrix, GELU without a gate, biases everywhere.
//! Hugging Face stores its matrices as `[in, out]` (Conv1D).

use super::llama::LLAMA;
use super::schema::Size::{Context, Ff, KeyValue, Model, Qkv, Query, Vocab};
use super::schema::*;

const TENSORS: &[TensorNames] = &[
    TensorNames::new("token_embd", "transformer.wte", &[Vocab, Model]),
    TensorNames::new("position_embd", "transformer.wpe", &[Context, Model]),
    TensorNames::new("output_norm", "transformer.ln_f", &[Model]).biased(),
    TensorNames::new("output", "lm_head", &[Vocab, Model]).optional(),
    TensorNames::new("blk.{}.attn_norm", "transformer.h.{}.ln_1", &[Model]).biased(),
    TensorNames::new("blk.{}.attn_qkv", "transformer.h.{}.attn.c_attn", &[Qkv, Model]).transposed().biased(),
    TensorNames::new("blk.{}.attn_output", "transformer.h.{}.attn.c_proj", &[Model, Query])
        .transposed()
        .biased(),
    TensorNames::new("blk.{}.ffn_norm", "transformer.h.{}.ln_2", &[Model]).biased(),
    TensorNames::new("blk.{}.ffn_up", "transformer.h.{}.mlp.c_fc", &[Ff, Model]).transposed().biased(),
    TensorNames::new("blk.{}.ffn_down", "transformer.h.{}.mlp.c_proj", &[Model, Ff]).transposed().biased(),
];

pub(super) const GPT2: Architecture = Architecture {
    models: "GPT-2",
    name: "gpt2",
    tensors: Tensors {
        groups: &[TENSORS],
        targets: &[
            ("q", "attn_qkv[q]"),
            ("k", "attn_qkv[k]"),
            ("v", "attn_qkv[v]"),
            ("o", "attn_output"),
            ("up", "ffn_up"),
            ("down", "ffn_down"),
        ],
        small: &[],
        norms: BlockNorms::USUAL,
        last_norm: "output_norm",
        fused: &[("attn_qkv", &[("q", Query), ("k", KeyValue), ("v", KeyValue)])],
        joined_experts: &[],
        joined_rows: &[],
        // OpenAI's own folder.
        prefixes: &[
            ("wte", "transformer.wte"),
            ("wpe", "transformer.wpe"),
            ("ln_f", "transformer.ln_f"),
            ("h.", "transformer.h."),
        ],
    },
    forward: Forward {
        norm: NormKind::Layer,
        positions: Positions::Learned,
        activation: Activation::Gelu,
        ..LLAMA.forward
    },
    gguf: Gguf::USUAL,
    converter: Converter {
        keys: &[&[
            Key::Blocks,
            Key::Context,
            Key::Width,
            Key::FeedForward,
            Key::Heads,
            Key::LayerEpsilon,
            Key::FileType,
        ]],
        rope_types: &[],
        ..Converter::USUAL
    },
    hugging_face: HuggingFace {
        model_types: &["gpt2"],
        class: "GPT2LMHeadModel",
        keys: &[
            ("hidden_size", "n_embd"),
            ("num_attention_heads", "n_head"),
            ("num_hidden_layers", "n_layer"),
            ("intermediate_size", "n_inner"),
            ("max_position_embeddings", "n_positions"),
            ("rms_norm_eps", "layer_norm_epsilon"),
        ],
        defaults: &[("layer_norm_epsilon", 1e-5), ("n_positions", 1024.0)],
        heads: HeadKeys::Ungrouped,
        activation: ActivationKey {
            key: "activation_function",
            names: &["gelu_new", "gelu_pytorch_tanh"],
            also_written: &[],
        },
        ff_ratio: Some(4),
        options: &[ClassOption::ContextTwice],
        flags: &[("scale_attn_weights", true)],
        ..LLAMA.hugging_face
    },
    onnx: Onnx { genai_type: None },
};
