//! gpt-oss: a mixture of experts with a clamped SwiGLU, biases throughout, attention sinks, a sliding window in
//! every other block, and YaRN. Folders have the matrices of all experts in one tensor, mostly in MXFP4.

use super::groups::{ATTENTION, ATTENTION_TARGETS, ENDS, FIRST_KEYS};
use super::qwen3::QWEN3;
use super::schema::Size::{ExpertFf, Experts, Heads, Model};
use super::schema::*;

const BLOCKS: &[TensorNames] = &[
    TensorNames::new("blk.{}.attn_norm", "model.layers.{}.input_layernorm", &[Model]),
    TensorNames::new("blk.{}.post_attention_norm", "model.layers.{}.post_attention_layernorm", &[Model]),
    TensorNames::new("blk.{}.attn_sinks", "model.layers.{}.self_attn.sinks", &[Heads])
        .ending(Endings::ONLY_IN_GGUF),
    ATTENTION[0].biased(),
    ATTENTION[1].biased(),
    ATTENTION[2].biased(),
    ATTENTION[3].biased(),
    TensorNames::new("blk.{}.ffn_gate_inp", "model.layers.{}.mlp.router", &[Experts, Model]).biased(),
    TensorNames::new("blk.{}.ffn_gate_exps[{}]", "", &[ExpertFf, Model]).biased(),
    TensorNames::new("blk.{}.ffn_up_exps[{}]", "", &[ExpertFf, Model]).biased(),
    TensorNames::new("blk.{}.ffn_down_exps[{}]", "", &[Model, ExpertFf]).biased(),
];

pub(super) const GPT_OSS: Architecture = Architecture {
    models: "gpt-oss",
    name: "gpt-oss",
    tensors: Tensors {
        groups: &[ENDS, BLOCKS],
        targets: ATTENTION_TARGETS,
        norms: BlockNorms {
            after_attention: "",
            before_feed_forward: "post_attention_norm",
            ..BlockNorms::USUAL
        },
        joined_experts: &[
            JoinedExperts {
                hugging_face: "model.layers.{}.mlp.experts.gate_up_proj",
                ending: "",
                parts: &["blk.{}.ffn_gate_exps[{}]", "blk.{}.ffn_up_exps[{}]"],
                interleaved: true,
                transposed: true,
            },
            JoinedExperts {
                hugging_face: "model.layers.{}.mlp.experts.down_proj",
                ending: "",
                parts: &["blk.{}.ffn_down_exps[{}]"],
                interleaved: false,
                transposed: true,
            },
        ],
        ..QWEN3.tensors
    },
    forward: Forward { activation: Activation::ClampedSwiglu, ..QWEN3.forward },
    gguf: Gguf { windows: Some(Windows { required: true, ..Windows::every(2) }), ..Gguf::USUAL },
    converter: Converter {
        keys: &[
            FIRST_KEYS,
            &[Key::Experts, Key::GivenHeadLengths, Key::FileType, Key::Window, Key::ExpertFeedForward],
        ],
        experts: &["ffn_down_exps", "ffn_gate_exps", "ffn_up_exps"],
        ..Converter::USUAL
    },
    hugging_face: HuggingFace {
        model_types: &["gpt_oss"],
        class: "GptOssForCausalLM",
        keys: &[("num_experts", "num_local_experts"), ("moe_intermediate_size", "intermediate_size")],
        defaults: &[
            ("vocab_size", 201_088.0),
            ("hidden_size", 2880.0),
            ("intermediate_size", 2880.0),
            ("num_hidden_layers", 36.0),
            ("num_attention_heads", 64.0),
            ("num_key_value_heads", 8.0),
            ("head_dim", 64.0),
            ("num_local_experts", 128.0),
            ("num_experts_per_tok", 4.0),
            ("norm_topk_prob", 1.0),
            ("max_position_embeddings", 131_072.0),
            ("rms_norm_eps", 1e-5),
            ("rope_theta", 150_000.0),
            ("sliding_window", 128.0),
            ("sliding_window_pattern", 2.0),
        ],
        fills_in_rope_scaling: true,
        windows: WindowedLayers::Listed,
        options: &[],
        flags: &[("attention_bias", true), ("output_router_logits", false)],
        ..QWEN3.hugging_face
    },
    onnx: Onnx { genai_type: Some("gptoss") },
};
