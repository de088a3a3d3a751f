//! EXAONE 4: norms after both parts of a block instead of before them, and norms of each head of q and k. The
//! larger models have windows in three of four blocks, and no positions in the others.

use super::groups::{ATTENTION, ENDS, FEED_FORWARD, FIRST_KEYS, HEAD_NORMS};
use super::llama::LLAMA;
use super::schema::Size::Model;
use super::schema::*;

const NORMS: &[TensorNames] = &[
    TensorNames::new("blk.{}.post_attention_norm", "model.layers.{}.post_attention_layernorm", &[Model]),
    TensorNames::new("blk.{}.post_ffw_norm", "model.layers.{}.post_feedforward_layernorm", &[Model]),
];

pub(super) const EXAONE4: Architecture = Architecture {
    models: "EXAONE 4",
    name: "exaone4",
    tensors: Tensors { groups: &[ENDS, NORMS, HEAD_NORMS, ATTENTION, FEED_FORWARD], ..LLAMA.tensors },
    forward: Forward { positions: Positions::RopeHalf, unrotated: Unrotated::Global, ..LLAMA.forward },
    gguf: Gguf {
        // EXAONE 4.0 32B.
        windows: Some(Windows {
            length: Some(4096),
            own_base: false,
            only_layers: Some(64),
            ..Windows::every(4)
        }),
        ..Gguf::USUAL
    },
    converter: Converter {
        keys: &[
            FIRST_KEYS,
            &[Key::GivenHeadLengths, Key::FileType, Key::Vocabulary, Key::Window, Key::WindowPattern],
        ],
        rope_types: &[RopeType::ByKeys, RopeType::Llama3],
        ..Converter::USUAL
    },
    hugging_face: HuggingFace {
        model_types: &["exaone4"],
        class: "Exaone4ForCausalLM",
        defaults: &[
            ("vocab_size", 102_400.0),
            ("hidden_size", 4096.0),
            ("intermediate_size", 16_384.0),
            ("num_hidden_layers", 32.0),
            ("num_attention_heads", 32.0),
            ("num_key_value_heads", 32.0),
            ("rms_norm_eps", 1e-5),
            ("sliding_window", 4096.0),
            ("sliding_window_pattern", 4.0),
        ],
        heads: HeadKeys::Grouped,
        windows: WindowedLayers::Listed,
        options: &[],
        ..LLAMA.hugging_face
    },
    onnx: Onnx { genai_type: None },
};
