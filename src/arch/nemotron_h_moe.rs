//! Nemotron 3 (arXiv 2512.20848): Nemotron-H with mixtures of experts without gates in place of the MLPs, chosen by their
//! sigmoids and a bias, beside one that every token goes through. Experts may read and write a narrower stream of their own.

use super::groups::SIZES;
use super::nemotron_h::{ENDS, KEYS, MIXERS, NEMOTRON_H};
use super::schema::Blocks::{Experts, Prediction, SharedExpert};
use super::schema::Size::{ExpertFf, ExpertModel, Model, SharedFf, TwiceModel};
use super::schema::*;

const fn line(canonical: &'static str, hugging_face: &'static str, shape: &'static [Size]) -> TensorNames {
    TensorNames::new(canonical, hugging_face, shape)
}

const EXPERTS: &[TensorNames] = &[
    line("blk.{}.ffn_gate_inp", "backbone.layers.{}.mixer.gate", &[Size::Experts, Model]).only_in(Experts),
    line(
        "blk.{}.exp_probs_b.bias",
        "backbone.layers.{}.mixer.gate.e_score_correction_bias",
        &[Size::Experts],
    )
    .only_in(Experts)
    .ending(Endings::NONE),
    line("blk.{}.ffn_latent_down", "backbone.layers.{}.mixer.fc1_latent_proj", &[ExpertModel, Model])
        .only_in(Experts)
        .optional(),
    line("blk.{}.ffn_latent_up", "backbone.layers.{}.mixer.fc2_latent_proj", &[Model, ExpertModel])
        .only_in(Experts)
        .optional(),
    line("blk.{}.ffn_up_exps[{}]", "backbone.layers.{}.mixer.experts.{}.up_proj", &[ExpertFf, ExpertModel])
        .only_in(Experts),
    line(
        "blk.{}.ffn_down_exps[{}]",
        "backbone.layers.{}.mixer.experts.{}.down_proj",
        &[ExpertModel, ExpertFf],
    )
    .only_in(Experts),
    line("blk.{}.ffn_up_shexp", "backbone.layers.{}.mixer.shared_experts.up_proj", &[SharedFf, Model])
        .only_in(SharedExpert),
    line("blk.{}.ffn_down_shexp", "backbone.layers.{}.mixer.shared_experts.down_proj", &[Model, SharedFf])
        .only_in(SharedExpert),
];

/// Of the block that predicts further tokens, which has attention and experts. Folders have it in another form.
const PREDICTION: &[TensorNames] = &[
    line("blk.{}.post_attention_norm", "backbone.layers.{}.post_attention_layernorm", &[Model])
        .only_in(Prediction),
    line("blk.{}.nextn.eh_proj", "backbone.layers.{}.eh_proj", &[Model, TwiceModel]).only_in(Prediction),
    line("blk.{}.nextn.enorm", "backbone.layers.{}.enorm", &[Model]).only_in(Prediction),
    line("blk.{}.nextn.hnorm", "backbone.layers.{}.hnorm", &[Model]).only_in(Prediction),
    line("blk.{}.nextn.shared_head_norm", "backbone.layers.{}.shared_head.norm", &[Model])
        .only_in(Prediction),
];

const fn joined(hugging_face: &'static str, parts: &'static [&'static str]) -> JoinedExperts {
    JoinedExperts { hugging_face, ending: "", parts, interleaved: false, transposed: false }
}

pub(super) const NEMOTRON_H_MOE: Architecture = Architecture {
    models: "Nemotron 3",
    name: "nemotron_h_moe",
    tensors: Tensors {
        groups: &[ENDS, MIXERS, EXPERTS, PREDICTION],
        targets: &[
            ("q", "attn_q"),
            ("k", "attn_k"),
            ("v", "attn_v"),
            ("in", "ssm_in"),
            ("o", "attn_output"),
            ("o", "ssm_out"),
            ("up", "ffn_up_shexp"),
            ("down", "ffn_down_shexp"),
        ],
        joined_experts: &[
            joined("backbone.layers.{}.mixer.experts.up_proj", &["blk.{}.ffn_up_exps[{}]"]),
            joined("backbone.layers.{}.mixer.experts.down_proj", &["blk.{}.ffn_down_exps[{}]"]),
        ],
        ..NEMOTRON_H.tensors
    },
    forward: Forward { gating: Gating::Sigmoid, added_to_weights: 1e-20, ..NEMOTRON_H.forward },
    gguf: Gguf { normalizes_experts: None, shared_expert: SharedExpertWidth::Own, ..NEMOTRON_H.gguf },
    converter: Converter {
        keys: &[
            SIZES,
            &[Key::UnusedRopeBase, Key::RmsAsLayerEpsilon, Key::Experts, Key::ExpertGroups],
            KEYS,
            &[
                Key::ExpertFeedForward,
                Key::SharedFeedForward,
                Key::OneSharedExpert,
                Key::ExpertsNormalized,
                Key::ExpertScale,
                Key::LatentWidth,
            ],
        ],
        experts: &["ffn_down_exps", "ffn_up_exps"],
        // The head that predicts further tokens.
        dropped_prefixes: &["mtp."],
        ..NEMOTRON_H.converter
    },
    hugging_face: HuggingFace {
        chosen_by: Some(ChosenBy::BlockWithExperts),
        options: &[
            ClassOption::BlocksOfOnePart,
            ClassOption::ExpertGroups,
            ClassOption::ExpertScale,
            ClassOption::ExpertsNormalized,
            ClassOption::LatentExperts,
        ],
        ..NEMOTRON_H.hugging_face
    },
    ..NEMOTRON_H
};
