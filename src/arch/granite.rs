//! Granite 3: llama with four multipliers: of embeddings, of attention scores, of what each part of a block
//! adds, and of logits.

use super::groups::FIRST_KEYS;
use super::llama::LLAMA;
use super::schema::*;

pub(super) const GRANITE: Architecture = Architecture {
    models: "Granite 3, Granite 4 without state spaces (GGUF)",
    name: "granite",
    forward: Forward { unrotated: Unrotated::Switched, ..LLAMA.forward },
    gguf: Gguf::USUAL,
    converter: Converter {
        keys: &[FIRST_KEYS, &[Key::FileType, Key::Vocabulary, Key::RopeDimensions, Key::Scales]],
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
