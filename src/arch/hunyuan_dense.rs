//! HunYuan's dense models: llama whose heads of q and k are normed after their rotation.

use super::groups::{ATTENTION, ENDS, FEED_FORWARD, FIRST_KEYS, NORMS_BEFORE};
use super::llama::LLAMA;
use super::schema::Size::Head;
use super::schema::*;

const HEAD_NORMS: &[TensorNames] = &[
    TensorNames::new("blk.{}.attn_q_norm", "model.layers.{}.self_attn.query_layernorm", &[Head]),
    TensorNames::new("blk.{}.attn_k_norm", "model.layers.{}.self_attn.key_layernorm", &[Head]),
];

pub(super) const HUNYUAN_DENSE: Architecture = Architecture {
    models: "HunYuan 0.5B to 7B",
    name: "hunyuan-dense",
    tensors: Tensors { groups: &[ENDS, NORMS_BEFORE, HEAD_NORMS, ATTENTION, FEED_FORWARD], ..LLAMA.tensors },
    forward: Forward { positions: Positions::RopeHalf, norms_rotated: true, ..LLAMA.forward },
    gguf: Gguf { sections: true, ..Gguf::USUAL },
    converter: Converter {
        overrides: &[(None, TokenizerOverride::EndOfDocument(3))],
        keys: &[FIRST_KEYS, &[Key::GivenHeadLengths, Key::FileType, Key::RaisedBase]],
        ..Converter::USUAL
    },
    hugging_face: HuggingFace {
        model_types: &["hunyuan_v1_dense"],
        class: "HunYuanDenseV1ForCausalLM",
        defaults: &[
            ("vocab_size", 290_943.0),
            ("hidden_size", 4096.0),
            ("intermediate_size", 11_008.0),
            ("num_hidden_layers", 32.0),
            ("num_attention_heads", 32.0),
            ("rms_norm_eps", 1e-5),
        ],
        options: &[ClassOption::NtkAlpha],
        flags: &[("attention_bias", false)],
        ..LLAMA.hugging_face
    },
    onnx: Onnx { genai_type: Some("hunyuandensev1") },
};
