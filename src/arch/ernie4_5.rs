//! ERNIE 4.5: llama whose rotary pairs are neighbours in the folder, too.

use super::groups::{ATTENTION, ENDS, FEED_FORWARD, FIRST_KEYS, NORMS_BEFORE};
use super::llama::LLAMA;
use super::schema::*;

pub(super) const ERNIE4_5: Architecture = Architecture {
    models: "ERNIE 4.5",
    name: "ernie4_5",
    tensors: Tensors {
        groups: &[ENDS, NORMS_BEFORE, ATTENTION, FEED_FORWARD],
        prefixes: &[("ernie.", "model.")],
        ..LLAMA.tensors
    },
    gguf: Gguf::USUAL,
    converter: Converter {
        vocabularies: &[VocabularySource::SentencePiece],
        space_prefix: SpacePrefix::LastFromFolder,
        keys: &[FIRST_KEYS, &[Key::HeadLengths, Key::FileType]],
        ..Converter::USUAL
    },
    hugging_face: HuggingFace {
        model_types: &["ernie4_5"],
        class: "Ernie4_5ForCausalLM",
        defaults: &[
            ("vocab_size", 103_424.0),
            ("hidden_size", 1024.0),
            ("intermediate_size", 3072.0),
            ("num_hidden_layers", 18.0),
            ("num_attention_heads", 16.0),
            ("num_key_value_heads", 2.0),
            ("head_dim", 128.0),
            ("max_position_embeddings", 131_072.0),
            ("rope_theta", 500_000.0),
            ("rms_norm_eps", 1e-5),
        ],
        options: &[],
        flags: &[("use_bias", false)],
        ..LLAMA.hugging_face
    },
    onnx: Onnx { genai_type: Some("ernie4_5") },
    ..LLAMA
};
