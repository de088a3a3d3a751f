//! Qwen 2 and 2.5: biases of q, k and v.

use super::groups::{ATTENTION, ENDS, FEED_FORWARD, NORMS_BEFORE};
use super::llama::LLAMA;
use super::schema::*;

pub(super) const BIASED_ATTENTION: &[TensorNames] =
    &[ATTENTION[0].biased(), ATTENTION[1].biased(), ATTENTION[2].biased(), ATTENTION[3]];

pub(super) const QWEN2: Architecture = Architecture {
    models: "Qwen 2, Qwen 2.5",
    name: "qwen2",
    tensors: Tensors { groups: &[ENDS, NORMS_BEFORE, BIASED_ATTENTION, FEED_FORWARD], ..LLAMA.tensors },
    forward: Forward { positions: Positions::RopeHalf, ..LLAMA.forward },
    gguf: Gguf::USUAL,
    converter: Converter {
        vocabularies: &[VocabularySource::SentencePiece, VocabularySource::ByteLevel],
        ..Converter::USUAL
    },
    hugging_face: HuggingFace {
        model_types: &["qwen2"],
        class: "Qwen2ForCausalLM",
        defaults: &[("sliding_window", 4096.0), ("max_position_embeddings", 32768.0)],
        heads: HeadKeys::Grouped,
        windows: WindowedLayers::SwitchedUpper,
        options: &[],
        ..LLAMA.hugging_face
    },
    onnx: Onnx { genai_type: Some("qwen2") },
};
