//! GLM 4: norms before and after both parts of a block, half of each head rotated in neighbouring pairs, and gate and up
//! in one matrix.

use super::groups::{ATTENTION, ENDS, FEED_FORWARD, FIRST_KEYS};
use super::llama::LLAMA;
use super::phi3::PHI3;
use super::schema::Size::{GateUp, Model};
use super::schema::*;

const BLOCKS: &[TensorNames] = &[
    TensorNames::new("blk.{}.attn_norm", "model.layers.{}.input_layernorm", &[Model]),
    TensorNames::new("blk.{}.post_attention_norm", "model.layers.{}.post_self_attn_layernorm", &[Model]),
    TensorNames::new("blk.{}.ffn_norm", "model.layers.{}.post_attention_layernorm", &[Model]),
    TensorNames::new("blk.{}.post_ffw_norm", "model.layers.{}.post_mlp_layernorm", &[Model]),
    ATTENTION[0].may_be_biased(),
    ATTENTION[1].may_be_biased(),
    ATTENTION[2].may_be_biased(),
    ATTENTION[3],
    TensorNames::new("blk.{}.ffn_up", "model.layers.{}.mlp.gate_up_proj", &[GateUp, Model]),
    FEED_FORWARD[2],
];

pub(super) const GLM4: Architecture = Architecture {
    models: "GLM 4",
    name: "glm4",
    tensors: Tensors {
        groups: &[ENDS, BLOCKS],
        targets: &[
            ("q", "attn_q"),
            ("k", "attn_k"),
            ("v", "attn_v"),
            ("o", "attn_output"),
            ("gate", "ffn_up[gate]"),
            ("up", "ffn_up[up]"),
            ("down", "ffn_down"),
        ],
        fused: &[PHI3.tensors.fused[1]],
        ..LLAMA.tensors
    },
    gguf: Gguf::USUAL,
    converter: Converter {
        special_tokens: &[
            ("eos", "<|endoftext|>"),
            ("eot", "<|user|>"),
            ("unk", "<|endoftext|>"),
            ("bos", "<|endoftext|>"),
        ],
        keys: &[FIRST_KEYS, &[Key::GivenHeadLengths, Key::FileType, Key::PartialRopeDimensions]],
        ..Converter::USUAL
    },
    hugging_face: HuggingFace {
        model_types: &["glm4"],
        class: "Glm4ForCausalLM",
        defaults: &[
            ("vocab_size", 151_552.0),
            ("hidden_size", 4096.0),
            ("intermediate_size", 13_696.0),
            ("num_hidden_layers", 40.0),
            ("num_attention_heads", 32.0),
            ("num_key_value_heads", 2.0),
            ("head_dim", 128.0),
            ("max_position_embeddings", 131_072.0),
            ("rms_norm_eps", 0.000_000_156_25),
            ("partial_rotary_factor", 0.5),
        ],
        heads: HeadKeys::GroupedWithLength,
        options: &[ClassOption::PartialRotary, ClassOption::InputBiases("attention_bias")],
        flags: &[],
        ..LLAMA.hugging_face
    },
    onnx: Onnx { genai_type: None },
    ..LLAMA
};
