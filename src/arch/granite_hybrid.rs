//! Granite 4 with state spaces: Mamba-2 (arXiv 2405.21060) in most blocks, and in the others attention without positions.
//! Folders have gate and up in one matrix.

use super::granite::GRANITE;
use super::groups::{ENDS, NORMS_BEFORE, PERMUTED, SIZES};
use super::schema::Blocks::{Attention, StateSpace};
use super::schema::Size::{
    Ff, Model, One, StateSpaceChannels, StateSpaceGroups, StateSpaceHeads, StateSpaceInner,
    StateSpaceOutputs, Taps,
};
use super::schema::*;

const fn line(canonical: &'static str, hugging_face: &'static str, shape: &'static [Size]) -> TensorNames {
    TensorNames::new(canonical, hugging_face, shape).only_in(StateSpace)
}

pub(super) const MIXERS: &[TensorNames] = &[
    PERMUTED[0].only_in(Attention),
    PERMUTED[1].only_in(Attention),
    PERMUTED[2].only_in(Attention),
    PERMUTED[3].only_in(Attention),
    line("blk.{}.ssm_in", "model.layers.{}.mamba.in_proj", &[StateSpaceOutputs, Model]),
    line("blk.{}.ssm_conv1d", "model.layers.{}.mamba.conv1d", &[StateSpaceChannels, Taps])
        .convolution()
        .biased(),
    line("blk.{}.ssm_dt.bias", "model.layers.{}.mamba.dt_bias", &[StateSpaceHeads]).ending(Endings::NONE),
    line("blk.{}.ssm_a", "model.layers.{}.mamba.A_log", &[StateSpaceHeads])
        .log_of_negative()
        .ending(Endings::NONE)
        .matrix_in_gguf(StateSpaceHeads),
    line("blk.{}.ssm_d", "model.layers.{}.mamba.D", &[StateSpaceHeads])
        .ending(Endings::NONE)
        .matrix_in_gguf(StateSpaceHeads),
    line("blk.{}.ssm_norm", "model.layers.{}.mamba.norm", &[StateSpaceInner])
        .matrix_in_gguf(StateSpaceGroups),
    line("blk.{}.ssm_out", "model.layers.{}.mamba.out_proj", &[Model, StateSpaceInner]),
];

const FEED_FORWARD: &[TensorNames] = &[
    TensorNames::new("blk.{}.ffn_gate", "", &[Ff, Model]),
    TensorNames::new("blk.{}.ffn_up", "", &[Ff, Model]),
    TensorNames::new("blk.{}.ffn_down", "model.layers.{}.shared_mlp.output_linear", &[Model, Ff]),
];

/// The keys after the sizes: first those of attention, then those of state spaces.
pub(super) const KEYS: [&[Key]; 2] =
    [&[Key::FileType, Key::Vocabulary, Key::RopeDimensions, Key::Scales], &[Key::StateSpace, Key::Rotated]];

pub(super) const GRANITE_HYBRID: Architecture = Architecture {
    models: "Granite 4 with state spaces",
    name: "granitehybrid",
    tensors: Tensors {
        groups: &[ENDS, NORMS_BEFORE, MIXERS, FEED_FORWARD],
        targets: &[
            ("q", "attn_q"),
            ("k", "attn_k"),
            ("v", "attn_v"),
            ("in", "ssm_in"),
            ("o", "attn_output"),
            ("o", "ssm_out"),
            ("gate", "ffn_gate"),
            ("up", "ffn_up"),
            ("down", "ffn_down"),
        ],
        joined_rows: &[JoinedRows {
            hugging_face: "model.layers.{}.shared_mlp.input_linear",
            groups: RowGroups { groups: One, segments: &[Ff, Ff] },
            rotary: 0,
            parts: &[("ffn_gate", 1), ("ffn_up", 1)],
        }],
        ..GRANITE.tensors
    },
    gguf: Gguf { state_spaces: true, ..Gguf::USUAL },
    converter: Converter {
        keys: &[
            SIZES,
            &[Key::RopeScaling, Key::RopeBase, Key::RmsEpsilon, Key::NoExperts],
            KEYS[0],
            &[Key::DenseAsShared],
            KEYS[1],
        ],
        ..GRANITE.converter
    },
    hugging_face: HuggingFace {
        model_types: &["granitemoehybrid"],
        class: "GraniteMoeHybridForCausalLM",
        keys: &[("intermediate_size", "shared_intermediate_size")],
        defaults: &[
            ("vocab_size", 32_000.0),
            ("hidden_size", 4096.0),
            ("shared_intermediate_size", 1024.0),
            ("num_hidden_layers", 32.0),
            ("num_attention_heads", 32.0),
            ("attention_multiplier", 1.0),
            ("mamba_n_heads", 128.0),
            ("mamba_n_groups", 1.0),
            ("mamba_d_state", 256.0),
            ("mamba_d_conv", 4.0),
            ("mamba_expand", 2.0),
        ],
        options: &[ClassOption::Multipliers, ClassOption::StateSpaces],
        flags: &[
            ("attention_bias", false),
            ("mamba_conv_bias", true),
            ("mamba_proj_bias", false),
            ("output_router_logits", false),
        ],
        ..GRANITE.hugging_face
    },
    onnx: Onnx { genai_type: None },
    ..GRANITE
};
