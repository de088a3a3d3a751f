//! Gemma 2: Gemma 1 with norms after both parts of a block too, soft caps, and a sliding window in every
//! other block.

use super::gemma::{GEMMA, GEMMA_ENDS, GEMMA_KEYS};
use super::groups::{ATTENTION, FEED_FORWARD};
use super::schema::Size::Model;
use super::schema::*;

pub(super) const GEMMA_NORMS: &[TensorNames] = &[
    norm("blk.{}.attn_norm", "model.layers.{}.input_layernorm"),
    norm("blk.{}.post_attention_norm", "model.layers.{}.post_attention_layernorm"),
    norm("blk.{}.ffn_norm", "model.layers.{}.pre_feedforward_layernorm"),
    norm("blk.{}.post_ffw_norm", "model.layers.{}.post_feedforward_layernorm"),
];

const fn norm(canonical: &'static str, hugging_face: &'static str) -> TensorNames {
    TensorNames::new(canonical, hugging_face, &[Model]).unit_offset()
}

pub(super) const GEMMA2: Architecture = Architecture {
    models: "Gemma 2",
    name: "gemma2",
    tensors: Tensors { groups: &[GEMMA_ENDS, GEMMA_NORMS, ATTENTION, FEED_FORWARD], ..GEMMA.tensors },
    gguf: Gguf {
        soft_caps: Some([Some(50.0), Some(30.0)]),
        windows: Some(Windows { length: Some(4096), ..Windows::every(2) }),
        // Gemma 2 27B.
        width_scaled_layers: &[46],
        ..GEMMA.gguf
    },
    converter: Converter {
        overrides: &[],
        keys: &[GEMMA_KEYS, &[Key::AttentionCap, Key::LogitCap, Key::Window]],
        ..GEMMA.converter
    },
    hugging_face: HuggingFace {
        model_types: &["gemma2"],
        class: "Gemma2ForCausalLM",
        defaults: &[
            ("head_dim", 256.0),
            ("query_pre_attn_scalar", 256.0),
            ("max_position_embeddings", 8192.0),
            ("sliding_window", 4096.0),
            ("sliding_window_pattern", 2.0),
            ("attn_logit_softcapping", 50.0),
            ("final_logit_softcapping", 30.0),
        ],
        activation: ActivationKey {
            key: "hidden_activation",
            names: &["gelu_pytorch_tanh", "gelu_new"],
            also_written: &["hidden_act"],
        },
        windows: WindowedLayers::Listed,
        options: &[ClassOption::SoftCaps, ClassOption::QueryScalar],
        ..GEMMA.hugging_face
    },
    onnx: Onnx { genai_type: Some("gemma2") },
    ..GEMMA
};
