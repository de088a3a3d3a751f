//! Phi 3, 3.5 and 4: q, k and v in one matrix, gate and up in another, and LongRoPE for longer contexts.

use super::groups::{ENDS, FEED_FORWARD, NORMS_BEFORE, OUTPUT};
use super::llama::LLAMA;
use super::schema::Size::{Ff, GateUp, KeyValue, Model, Qkv, Query};
use super::schema::*;

const MATRICES: &[TensorNames] = &[
    TensorNames::new("blk.{}.attn_qkv", "model.layers.{}.self_attn.qkv_proj", &[Qkv, Model]),
    OUTPUT,
    TensorNames::new("blk.{}.ffn_up", "model.layers.{}.mlp.gate_up_proj", &[GateUp, Model]),
    FEED_FORWARD[2],
];

pub(super) const PHI3: Architecture = Architecture {
    models: "Phi 3, Phi 3.5, Phi 4",
    name: "phi3",
    tensors: Tensors {
        groups: &[ENDS, NORMS_BEFORE, MATRICES],
        targets: &[
            ("q", "attn_qkv[q]"),
            ("k", "attn_qkv[k]"),
            ("v", "attn_qkv[v]"),
            ("o", "attn_output"),
            ("gate", "ffn_up[gate]"),
            ("up", "ffn_up[up]"),
            ("down", "ffn_down"),
        ],
        fused: &[
            ("attn_qkv", &[("q", Query), ("k", KeyValue), ("v", KeyValue)]),
            ("ffn_up", &[("gate", Ff), ("up", Ff)]),
        ],
        ..LLAMA.tensors
    },
    forward: Forward { positions: Positions::RopeHalf, ..LLAMA.forward },
    gguf: Gguf::USUAL,
    converter: Converter {
        vocabularies: &[VocabularySource::Phi3, VocabularySource::ByteLevel],
        keys: &[&[
            Key::Context,
            Key::OriginalContext,
            Key::Width,
            Key::FeedForward,
            Key::Blocks,
            Key::Heads,
            Key::KeyValueHeads,
            Key::RmsEpsilon,
            Key::PartialRopeDimensions,
            Key::RopeBase,
            Key::FileType,
            Key::WindowOrZero,
        ]],
        rope_types: &[RopeType::LongRope],
        ..Converter::USUAL
    },
    hugging_face: HuggingFace {
        model_types: &["phi3"],
        class: "Phi3ForCausalLM",
        defaults: &[
            ("max_position_embeddings", 4096.0),
            ("original_max_position_embeddings", 4096.0),
            ("rms_norm_eps", 1e-5),
        ],
        heads: HeadKeys::Grouped,
        windows: WindowedLayers::All,
        options: &[ClassOption::PartialRotary, ClassOption::OriginalContext],
        ..LLAMA.hugging_face
    },
    onnx: Onnx { genai_type: Some("phi3") },
};
