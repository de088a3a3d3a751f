//! Granite 3: llama with four multipliers: of embeddings, of attention scores, of what each part of a block
//! adds, and of logits.

use super::llama::LLAMA;
use super::schema::*;

pub(super) const GRANITE: Architecture = Architecture {
    name: "granite",
    gguf: Gguf { layers_of_70b: None, ..LLAMA.gguf },
    converter: Converter {
        keys: &[
            Key::Blocks,
            Key::Context,
            Key::Width,
            Key::FeedForward,
            Key::Heads,
            Key::KeyValueHeads,
            Key::LinearScaling,
            Key::RopeBase,
            Key::RmsEpsilon,
            Key::FileType,
            Key::Vocabulary,
            Key::RopeDimensions,
            Key::Scales,
        ],
        ..LLAMA.converter
    },
    hugging_face: HuggingFace {
        model_types: &["granite"],
        class: "GraniteForCausalLM",
        defaults: &[("attention_multiplier", 1.0)],
        heads: HeadKeys::Grouped,
        options: &[ClassOption::Biases, ClassOption::Multipliers],
        ..LLAMA.hugging_face
    },
    onnx: Onnx { genai_type: Some("granite") },
    ..LLAMA
};
