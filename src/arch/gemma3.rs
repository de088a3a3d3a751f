//! Gemma 3: Gemma 2 with norms of each head of q and k in place of the soft caps, and a RoPE of its own in
//! the windowed blocks, which are five of every six.

use super::gemma::GEMMA_ENDS;
use super::gemma2::{GEMMA_NORMS, GEMMA2};
use super::groups::{ATTENTION, FEED_FORWARD, HEAD_NORMS, SIZES, VISION, WITHIN_VISION};
use super::schema::*;

const GEMMA_HEAD_NORMS: &[TensorNames] = &[HEAD_NORMS[0].unit_offset(), HEAD_NORMS[1].unit_offset()];

pub(super) const GEMMA3: Architecture = Architecture {
    models: "Gemma 3",
    name: "gemma3",
    tensors: Tensors {
        groups: &[GEMMA_ENDS, GEMMA_NORMS, GEMMA_HEAD_NORMS, ATTENTION, FEED_FORWARD],
        prefixes: WITHIN_VISION,
        ..GEMMA2.tensors
    },
    gguf: Gguf {
        soft_caps: Some([None, None]),
        windows: Some(Windows { rope_base: Some(1e4), scaling: WindowScaling::Factor, ..Windows::every(6) }),
        // Gemma 3 27B.
        width_scaled_layers: &[62],
        ..GEMMA2.gguf
    },
    converter: Converter {
        vocabularies: &[VocabularySource::SentencePiece, VocabularySource::ByteLevel],
        keys: &[
            SIZES,
            &[
                Key::RopeScaling,
                Key::RopeBase,
                Key::LocalRopeBase,
                Key::RmsEpsilon,
                Key::HeadLengths,
                Key::FileType,
                Key::GivenLogitCap,
                Key::Window,
            ],
        ],
        rope_types: &[RopeType::ByKeys],
        writes_head: true,
        dropped_prefixes: VISION,
        ..GEMMA2.converter
    },
    hugging_face: HuggingFace {
        model_types: &["gemma3_text", "gemma3"],
        class: "Gemma3ForCausalLM",
        defaults: &[
            ("vocab_size", 262_208.0),
            ("hidden_size", 2304.0),
            ("intermediate_size", 9216.0),
            ("num_hidden_layers", 26.0),
            ("num_attention_heads", 8.0),
            ("num_key_value_heads", 4.0),
            ("head_dim", 256.0),
            ("max_position_embeddings", 131_072.0),
            ("rope_theta", 1e6),
            ("rope_local_base_freq", 1e4),
            ("query_pre_attn_scalar", 256.0),
            ("sliding_window", 4096.0),
            ("sliding_window_pattern", 6.0),
        ],
        options: &[ClassOption::SoftCaps, ClassOption::QueryScalar, ClassOption::LocalRope],
        ..GEMMA2.hugging_face
    },
    onnx: Onnx { genai_type: Some("gemma3_text") },
    ..GEMMA2
};
