//! Qwen 3.5: of every four blocks, three have Gated DeltaNet (arXiv 2412.06464) in place of softmax attention, and the
//! fourth has gated attention that rotates a quarter of each head.

use super::gemma::GEMMA_ENDS;
use super::groups::{FEED_FORWARD, OUTPUT, SIZES, WITHIN_VISION};
use super::qwen3::QWEN3;
use super::schema::Blocks::{Attention, LinearAttention, Prediction};
use super::schema::Size::{
    Head, KeyValue, LinearChannels, LinearHead, LinearHeads, LinearValue, Model, QueryAndGate, Taps,
    TwiceModel, Vocab,
};
use super::schema::*;

const fn line(
    canonical: &'static str,
    hugging_face: &'static str,
    shape: &'static [Size],
    blocks: Blocks,
) -> TensorNames {
    TensorNames::new(canonical, hugging_face, shape).only_in(blocks)
}

pub(super) const NORMS: &[TensorNames] = &[
    line("blk.{}.attn_norm", "model.layers.{}.input_layernorm", &[Model], Blocks::All).unit_offset(),
    line("blk.{}.post_attention_norm", "model.layers.{}.post_attention_layernorm", &[Model], Blocks::All)
        .unit_offset(),
    line("blk.{}.attn_q_norm", "model.layers.{}.self_attn.q_norm", &[Head], Attention).unit_offset(),
    line("blk.{}.attn_k_norm", "model.layers.{}.self_attn.k_norm", &[Head], Attention).unit_offset(),
];

pub(super) const GATED_ATTENTION: &[TensorNames] = &[
    line("blk.{}.attn_q", "model.layers.{}.self_attn.q_proj", &[QueryAndGate, Model], Attention),
    line("blk.{}.attn_k", "model.layers.{}.self_attn.k_proj", &[KeyValue, Model], Attention),
    line("blk.{}.attn_v", "model.layers.{}.self_attn.v_proj", &[KeyValue, Model], Attention),
    OUTPUT.only_in(Attention),
];

pub(super) const DELTA_NET: &[TensorNames] = &[
    line(
        "blk.{}.attn_qkv",
        "model.layers.{}.linear_attn.in_proj_qkv",
        &[LinearChannels, Model],
        LinearAttention,
    ),
    line("blk.{}.attn_gate", "model.layers.{}.linear_attn.in_proj_z", &[LinearValue, Model], LinearAttention),
    line("blk.{}.ssm_beta", "model.layers.{}.linear_attn.in_proj_b", &[LinearHeads, Model], LinearAttention),
    line("blk.{}.ssm_alpha", "model.layers.{}.linear_attn.in_proj_a", &[LinearHeads, Model], LinearAttention),
    line("blk.{}.ssm_conv1d", "model.layers.{}.linear_attn.conv1d", &[LinearChannels, Taps], LinearAttention)
        .convolution(),
    line("blk.{}.ssm_dt.bias", "model.layers.{}.linear_attn.dt_bias", &[LinearHeads], LinearAttention)
        .ending(Endings::NONE),
    line("blk.{}.ssm_a", "model.layers.{}.linear_attn.A_log", &[LinearHeads], LinearAttention)
        .log_of_negative()
        .ending(Endings::NONE),
    line("blk.{}.ssm_norm", "model.layers.{}.linear_attn.norm", &[LinearHead], LinearAttention),
    line("blk.{}.ssm_out", "model.layers.{}.linear_attn.out_proj", &[Model, LinearValue], LinearAttention),
];

/// Of the blocks that predict further tokens, beside those of attention.
pub(super) const PREDICTION: &[TensorNames] = &[
    line("blk.{}.nextn.eh_proj", "model.layers.{}.mtp.fc", &[Model, TwiceModel], Prediction),
    line("blk.{}.nextn.enorm", "model.layers.{}.mtp.pre_fc_norm_embedding", &[Model], Prediction)
        .unit_offset(),
    line("blk.{}.nextn.hnorm", "model.layers.{}.mtp.pre_fc_norm_hidden", &[Model], Prediction).unit_offset(),
    // Files of llama.cpp may have these two.
    line("blk.{}.nextn.embed_tokens", "model.layers.{}.mtp.embed_tokens", &[Vocab, Model], Prediction)
        .optional(),
    line("blk.{}.nextn.shared_head_head", "model.layers.{}.mtp.shared_head", &[Vocab, Model], Prediction)
        .optional(),
    line("blk.{}.nextn.shared_head_norm", "model.layers.{}.mtp.norm", &[Model], Prediction).unit_offset(),
];

pub(super) const QWEN3_5: Architecture = Architecture {
    models: "Qwen 3.5",
    name: "qwen35",
    tensors: Tensors {
        groups: &[GEMMA_ENDS, NORMS, GATED_ATTENTION, DELTA_NET, FEED_FORWARD, PREDICTION],
        targets: &[
            ("q", "attn_q"),
            ("k", "attn_k"),
            ("v", "attn_v"),
            ("qkv", "attn_qkv"),
            ("z", "attn_gate"),
            ("beta", "ssm_beta"),
            ("alpha", "ssm_alpha"),
            ("o", "attn_output"),
            ("o", "ssm_out"),
            ("gate", "ffn_gate"),
            ("up", "ffn_up"),
            ("down", "ffn_down"),
        ],
        small: &["beta", "alpha"],
        norms: BlockNorms {
            after_attention: "",
            before_feed_forward: "post_attention_norm",
            ..BlockNorms::USUAL
        },
        prefixes: WITHIN_VISION,
        ..QWEN3.tensors
    },
    forward: Forward { gated_attention: true, ..QWEN3.forward },
    gguf: Gguf { sections: true, linear_attention: Some(4), ..Gguf::USUAL },
    converter: Converter {
        keys: &[
            SIZES,
            &[
                Key::RopeScaling,
                Key::Sections,
                Key::RopeBase,
                Key::RmsEpsilon,
                Key::HeadLengths,
                Key::FileType,
            ],
            &[Key::PredictionBlocks, Key::LinearAttention, Key::PartialRopeDimensions, Key::UsualSections],
        ],
        dropped_prefixes: &["visual.", "model.visual."],
        ..QWEN3.converter
    },
    hugging_face: HuggingFace {
        model_types: &["qwen3_5_text", "qwen3_5"],
        class: "Qwen3_5ForCausalLM",
        defaults: &[
            ("vocab_size", 248_320.0),
            ("hidden_size", 4096.0),
            ("intermediate_size", 12_288.0),
            ("num_hidden_layers", 32.0),
            ("num_attention_heads", 16.0),
            ("num_key_value_heads", 4.0),
            ("head_dim", 256.0),
            ("max_position_embeddings", 32_768.0),
            ("partial_rotary_factor", 0.25),
            ("linear_conv_kernel_dim", 4.0),
            ("linear_key_head_dim", 128.0),
            ("linear_value_head_dim", 128.0),
            ("linear_num_key_heads", 16.0),
            ("linear_num_value_heads", 32.0),
            ("full_attention_interval", 4.0),
        ],
        prediction: Some("mtp."),
        windows: WindowedLayers::None,
        options: &[ClassOption::PartialRotary, ClassOption::Sections, ClassOption::LinearAttention],
        ..QWEN3.hugging_face
    },
    onnx: Onnx { genai_type: None },
};
