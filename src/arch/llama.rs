//! Llama 1 to 3, SmolLM2, TinyLlama and other models of the same design: RMSNorm, rotary embeddings,
//! grouped-query attention, SwiGLU.

use super::groups::{ENDS, FEED_FORWARD_BIASED, NORMS_BEFORE, PERMUTED_ATTENTION, SILU, TARGETS};
use super::schema::*;

pub(super) const LLAMA: Architecture = Architecture {
    name: "llama",
    tensors: Tensors {
        groups: &[ENDS, NORMS_BEFORE, PERMUTED_ATTENTION, FEED_FORWARD_BIASED],
        targets: TARGETS,
        fused: &[],
        prefixes: &[],
    },
    forward: Forward {
        norm: NormKind::Rms,
        positions: Positions::RopeInterleaved,
        activation: Activation::Silu,
        scales_embedding: false,
    },
    gguf: Gguf { soft_caps: None, windows: None, width_scaled_layers: &[], layers_of_70b: Some(80) },
    converter: Converter {
        vocabularies: &[
            VocabularySource::SentencePiece,
            VocabularySource::SentencePieceJson,
            VocabularySource::ByteLevel,
        ],
        space_prefix: SpacePrefix::FromFolder,
        // CodeLlama, and Granite's first small models.
        by_vocabulary_size: &[
            (32016, TokenizerOverride::EndOfTurn(32010)),
            (49152, TokenizerOverride::NoBos),
        ],
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
            Key::HeadLengths,
            Key::FileType,
            Key::Vocabulary,
            Key::RopeDimensions,
        ],
        rope_types: &[RopeType::Linear, RopeType::Llama3],
        ..Converter::USUAL
    },
    hugging_face: HuggingFace {
        model_types: &["llama"],
        class: "LlamaForCausalLM",
        keys: &[],
        defaults: &[],
        heads: HeadKeys::GroupedWithLength,
        activation: SILU,
        ff_ratio: None,
        windows: WindowedLayers::None,
        options: &[ClassOption::Biases],
        flags: &[],
    },
    onnx: Onnx { genai_type: Some("llama") },
};
