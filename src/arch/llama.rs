//! Llama 1 to 3, SmolLM2, TinyLlama and other models of the same design: RMSNorm, rotary embeddings,
//! grouped-query attention, SwiGLU.

use super::groups::{ENDS, FEED_FORWARD_BIASED, FIRST_KEYS, NORMS_BEFORE, PERMUTED_ATTENTION, TARGETS};
use super::schema::*;

pub(super) const LLAMA: Architecture = Architecture {
    models: "Llama 1 to 3, SmolLM2, TinyLlama",
    name: "llama",
    tensors: Tensors {
        groups: &[ENDS, NORMS_BEFORE, PERMUTED_ATTENTION, FEED_FORWARD_BIASED],
        targets: TARGETS,
        small: &[],
        norms: BlockNorms::USUAL,
        last_norm: "output_norm",
        fused: &[],
        joined_experts: &[],
        joined_rows: &[],
        prefixes: &[],
    },
    forward: Forward {
        norm: NormKind::Rms,
        positions: Positions::RopeInterleaved,
        unrotated: Unrotated::Never,
        parallel: false,
        gated_attention: false,
        norms_rotated: false,
        value_norm: false,
        grouped_value_heads: false,
        mlp_beside_experts: false,
        gating: Gating::Softmax,
        added_to_weights: 0.0,
        activation: Activation::Silu,
        scales_embedding: false,
    },
    gguf: Gguf { layers_of_70b: Some(80), ..Gguf::USUAL },
    converter: Converter {
        vocabularies: &[
            VocabularySource::SentencePiece,
            VocabularySource::SentencePieceJson,
            VocabularySource::ByteLevel,
        ],
        space_prefix: SpacePrefix::FromFolder,
        // CodeLlama, and Granite's first small models.
        overrides: &[
            (Some(32016), TokenizerOverride::EndOfTurn(32010)),
            (Some(49152), TokenizerOverride::NoBos),
        ],
        keys: &[FIRST_KEYS, &[Key::HeadLengths, Key::FileType, Key::Vocabulary, Key::RopeDimensions]],
        rope_types: &[RopeType::ByKeys, RopeType::Llama3],
        ..Converter::USUAL
    },
    hugging_face: HuggingFace {
        model_types: &["llama"],
        chosen_by: None,
        within: &[],
        written_type: None,
        class: "LlamaForCausalLM",
        own_code: &[],
        without_lora: &[],
        keys: &[],
        defaults: &[],
        fills_in_rope_scaling: false,
        heads: HeadKeys::GroupedWithLength,
        activation: ActivationKey { key: "hidden_act", names: &["silu", "swish"], also_written: &[] },
        tanh_names: &[],
        ff_ratio: None,
        modules: None,
        prediction: None,
        prediction_key: "mtp_num_hidden_layers",
        windows: WindowedLayers::None,
        options: &[ClassOption::Biases],
        flags: &[],
    },
    onnx: Onnx { genai_type: Some("llama") },
};
