//! Nemotron-H and Nemotron Nano 2 (arXiv 2504.03624): every block is a state space (Mamba-2), attention without positions,
//! or an MLP without a gate.

use super::groups::{HEAD, SIZES};
use super::llama::LLAMA;
use super::schema::Blocks::{Attention, Dense, StateSpace};
use super::schema::Size::{
    Ff, KeyValue, Model, Query, StateSpaceChannels, StateSpaceGroups, StateSpaceHeads, StateSpaceInner,
    StateSpaceOutputs, Taps, Vocab,
};
use super::schema::*;

const fn line(canonical: &'static str, hugging_face: &'static str, shape: &'static [Size]) -> TensorNames {
    TensorNames::new(canonical, hugging_face, shape)
}

const fn of_state_space(
    canonical: &'static str,
    hugging_face: &'static str,
    shape: &'static [Size],
) -> TensorNames {
    line(canonical, hugging_face, shape).only_in(StateSpace)
}

pub(super) const ENDS: &[TensorNames] = &[
    line("token_embd", "backbone.embeddings", &[Vocab, Model]),
    line("output_norm", "backbone.norm_f", &[Model]),
    HEAD,
];

pub(super) const MIXERS: &[TensorNames] = &[
    line("blk.{}.attn_norm", "backbone.layers.{}.norm", &[Model]),
    line("blk.{}.attn_q", "backbone.layers.{}.mixer.q_proj", &[Query, Model])
        .rotary(HeadKind::Query)
        .only_in(Attention),
    line("blk.{}.attn_k", "backbone.layers.{}.mixer.k_proj", &[KeyValue, Model])
        .rotary(HeadKind::KeyValue)
        .only_in(Attention),
    line("blk.{}.attn_v", "backbone.layers.{}.mixer.v_proj", &[KeyValue, Model]).only_in(Attention),
    line("blk.{}.attn_output", "backbone.layers.{}.mixer.o_proj", &[Model, Query]).only_in(Attention),
    of_state_space("blk.{}.ssm_in", "backbone.layers.{}.mixer.in_proj", &[StateSpaceOutputs, Model]),
    of_state_space("blk.{}.ssm_conv1d", "backbone.layers.{}.mixer.conv1d", &[StateSpaceChannels, Taps])
        .convolution()
        .biased(),
    of_state_space("blk.{}.ssm_dt.bias", "backbone.layers.{}.mixer.dt_bias", &[StateSpaceHeads])
        .ending(Endings::NONE),
    of_state_space("blk.{}.ssm_a", "backbone.layers.{}.mixer.A_log", &[StateSpaceHeads])
        .log_of_negative()
        .ending(Endings::NONE)
        .matrix_in_gguf(StateSpaceHeads),
    of_state_space("blk.{}.ssm_d", "backbone.layers.{}.mixer.D", &[StateSpaceHeads])
        .ending(Endings::NONE)
        .matrix_in_gguf(StateSpaceHeads),
    of_state_space("blk.{}.ssm_norm", "backbone.layers.{}.mixer.norm", &[StateSpaceInner])
        .matrix_in_gguf(StateSpaceGroups),
    of_state_space("blk.{}.ssm_out", "backbone.layers.{}.mixer.out_proj", &[Model, StateSpaceInner]),
];

const MLP: &[TensorNames] = &[
    line("blk.{}.ffn_up", "backbone.layers.{}.mixer.up_proj", &[Ff, Model]).only_in(Dense),
    line("blk.{}.ffn_down", "backbone.layers.{}.mixer.down_proj", &[Model, Ff]).only_in(Dense),
];

/// The keys after those of attention.
pub(super) const KEYS: &[Key] = &[
    Key::FileType,
    Key::Vocabulary,
    Key::UnusedRopeDimensions,
    Key::StateSpace,
    Key::Rotated,
    Key::HeadLengths,
];

pub(super) const NEMOTRON_H: Architecture = Architecture {
    models: "Nemotron-H, Nemotron Nano 2",
    name: "nemotron_h",
    tensors: Tensors {
        groups: &[ENDS, MIXERS, MLP],
        targets: &[
            ("q", "attn_q"),
            ("k", "attn_k"),
            ("v", "attn_v"),
            ("in", "ssm_in"),
            ("o", "attn_output"),
            ("o", "ssm_out"),
            ("up", "ffn_up"),
            ("down", "ffn_down"),
        ],
        // A block has one part, and one norm.
        norms: BlockNorms { before_feed_forward: "attn_norm", ..BlockNorms::USUAL },
        prefixes: &[("model.", "backbone.")],
        ..LLAMA.tensors
    },
    forward: Forward { unrotated: Unrotated::Always, activation: Activation::SquaredRelu, ..LLAMA.forward },
    gguf: Gguf { state_spaces: true, one_part: true, ..Gguf::USUAL },
    converter: Converter {
        rope_types: &[],
        keys: &[SIZES, &[Key::UnusedRopeBase, Key::RmsAsLayerEpsilon], KEYS],
        ..Converter::USUAL
    },
    hugging_face: HuggingFace {
        model_types: &["nemotron_h"],
        class: "NemotronHForCausalLM",
        modules: Some(("backbone.", "model.")),
        // PEFT's check of models with Mamba.
        without_lora: &["out_proj"],
        keys: &[
            ("rms_norm_eps", "layer_norm_epsilon"),
            ("mamba_n_heads", "mamba_num_heads"),
            ("mamba_d_head", "mamba_head_dim"),
            ("mamba_n_groups", "n_groups"),
            ("mamba_d_state", "ssm_state_size"),
            ("mamba_d_conv", "conv_kernel"),
            ("mamba_expand", "expand"),
            // Of mixtures of experts, which have the same class.
            ("num_experts", "n_routed_experts"),
            ("shared_expert_intermediate_size", "moe_shared_expert_intermediate_size"),
        ],
        defaults: &[
            ("vocab_size", 131_072.0),
            ("hidden_size", 4096.0),
            ("num_attention_heads", 32.0),
            ("num_key_value_heads", 8.0),
            ("head_dim", 128.0),
            ("max_position_embeddings", 4096.0),
            ("intermediate_size", 21_504.0),
            ("layer_norm_epsilon", 1e-5),
            ("mamba_num_heads", 128.0),
            ("mamba_head_dim", 64.0),
            ("n_groups", 8.0),
            ("ssm_state_size", 128.0),
            ("conv_kernel", 4.0),
            ("expand", 2.0),
            ("n_routed_experts", 8.0),
            ("moe_intermediate_size", 7688.0),
            ("moe_shared_expert_intermediate_size", 7688.0),
            ("num_experts_per_tok", 2.0),
            ("routed_scaling_factor", 1.0),
            ("n_group", 1.0),
            ("topk_group", 1.0),
            ("norm_topk_prob", 1.0),
        ],
        heads: HeadKeys::GroupedWithLength,
        prediction_key: "num_nextn_predict_layers",
        activation: ActivationKey { key: "mlp_hidden_act", names: &["relu2"], also_written: &[] },
        options: &[ClassOption::BlocksOfOnePart],
        flags: &[
            ("attention_bias", false),
            ("mlp_bias", false),
            ("use_bias", false),
            ("use_conv_bias", true),
            ("mamba_proj_bias", false),
        ],
        ..LLAMA.hugging_face
    },
    onnx: Onnx { genai_type: None },
};
