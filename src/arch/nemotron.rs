//! Nemotron-3 8B, Nemotron-4 and Minitron, not the later hybrids: LayerNorm whose folder stores its factors less 1, half of each head rotated, and a squared
//! ReLU without a gate.

use super::groups::{
    ATTENTION, EMBEDDING, FEED_FORWARD_BIASED, HEAD, LAST_NORM, NORMS_BEFORE, SIZES, UNGATED_TARGETS,
};
use super::llama::LLAMA;
use super::schema::*;

const TENSORS: &[TensorNames] = &[
    EMBEDDING,
    LAST_NORM.unit_offset().biased(),
    HEAD,
    NORMS_BEFORE[0].unit_offset().biased(),
    NORMS_BEFORE[1].unit_offset().biased(),
    ATTENTION[0].may_be_biased(),
    ATTENTION[1].may_be_biased(),
    ATTENTION[2].may_be_biased(),
    ATTENTION[3].may_be_biased(),
    FEED_FORWARD_BIASED[1],
    FEED_FORWARD_BIASED[2],
];

pub(super) const NEMOTRON: Architecture = Architecture {
    models: "Nemotron-3 8B, Nemotron-4, Minitron",
    name: "nemotron",
    tensors: Tensors { groups: &[TENSORS], targets: UNGATED_TARGETS, ..LLAMA.tensors },
    forward: Forward {
        norm: NormKind::Layer,
        positions: Positions::RopeHalf,
        activation: Activation::SquaredRelu,
        ..LLAMA.forward
    },
    gguf: Gguf { square_heads: true, ..Gguf::USUAL },
    converter: Converter {
        vocabularies: &[VocabularySource::SentencePiece],
        overrides: &[(None, TokenizerOverride::Padding(0)), (None, TokenizerOverride::Unknown(1))],
        keys: &[
            SIZES,
            // The base class finds the epsilon, and takes it for RMSNorm's.
            &[Key::RopeBase, Key::RmsEpsilon, Key::GivenHeadLengths, Key::FileType, Key::Vocabulary],
            &[Key::LayerEpsilon, Key::PartialRopeDimensions, Key::Unscaled],
        ],
        rope_types: &[],
        ..Converter::USUAL
    },
    hugging_face: HuggingFace {
        model_types: &["nemotron"],
        class: "NemotronForCausalLM",
        keys: &[("rms_norm_eps", "norm_eps")],
        defaults: &[
            ("vocab_size", 256_000.0),
            ("hidden_size", 6144.0),
            ("intermediate_size", 24_576.0),
            ("num_hidden_layers", 32.0),
            ("num_attention_heads", 48.0),
            ("max_position_embeddings", 4096.0),
            ("norm_eps", 1e-5),
            ("partial_rotary_factor", 0.5),
        ],
        heads: HeadKeys::GroupedWithLength,
        activation: ActivationKey { key: "hidden_act", names: &["relu2"], also_written: &[] },
        options: &[ClassOption::Biases, ClassOption::PartialRotary],
        flags: &[],
        ..LLAMA.hugging_face
    },
    onnx: Onnx { genai_type: Some("nemotron") },
};
