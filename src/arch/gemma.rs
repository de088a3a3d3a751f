//! Gemma 1: llama with GELU, scaled embeddings, and norms that multiply by one more than their weight.

use super::groups::{ATTENTION, EMBEDDING, FEED_FORWARD, HEAD, LAST_NORM, NORMS_BEFORE};
use super::llama::LLAMA;
use super::schema::*;

pub(super) const GEMMA_ENDS: &[TensorNames] = &[EMBEDDING, LAST_NORM.unit_offset(), HEAD];

const NORMS: &[TensorNames] = &[NORMS_BEFORE[0].unit_offset(), NORMS_BEFORE[1].unit_offset()];

/// The keys that the classes of Gemma 1 and 2 write first.
pub(super) const GEMMA_KEYS: &[Key] = &[
    Key::Context,
    Key::Width,
    Key::Blocks,
    Key::FeedForward,
    Key::Heads,
    Key::KeyValueHeads,
    Key::RmsEpsilon,
    Key::HeadLengths,
    Key::FileType,
];

pub(super) const GEMMA: Architecture = Architecture {
    models: "Gemma 1",
    name: "gemma",
    tensors: Tensors { groups: &[GEMMA_ENDS, NORMS, ATTENTION, FEED_FORWARD], ..LLAMA.tensors },
    forward: Forward {
        positions: Positions::RopeHalf,
        activation: Activation::Gelu,
        scales_embedding: true,
        ..LLAMA.forward
    },
    gguf: Gguf::USUAL,
    converter: Converter {
        vocabularies: &[VocabularySource::SentencePiece],
        space_prefix: SpacePrefix::Off,
        // CodeGemma's, and written for every model.
        overrides: &[(None, TokenizerOverride::EndOfTurn(107))],
        keys: &[GEMMA_KEYS],
        rope_types: &[],
        writes_head: false,
        ..Converter::USUAL
    },
    hugging_face: HuggingFace {
        model_types: &["gemma"],
        class: "GemmaForCausalLM",
        defaults: &[
            ("vocab_size", 256_000.0),
            ("hidden_size", 3072.0),
            ("intermediate_size", 24_576.0),
            ("num_hidden_layers", 28.0),
            ("num_attention_heads", 16.0),
            ("num_key_value_heads", 16.0),
            ("head_dim", 256.0),
            ("max_position_embeddings", 8192.0),
        ],
        // The class takes the "gelu" of Google's own configurations for the tanh formula.
        activation: ActivationKey {
            key: "hidden_act",
            names: &["gelu_pytorch_tanh", "gelu_new", "gelu"],
            also_written: &["hidden_activation"],
        },
        options: &[],
        flags: &[("attention_bias", false)],
        ..LLAMA.hugging_face
    },
    onnx: Onnx { genai_type: Some("gemma") },
};
