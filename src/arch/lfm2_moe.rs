//! LFM2 with a mixture of experts that are chosen by their sigmoids and a bias. The first blocks have no experts.

use super::groups::FIRST_KEYS;
use super::lfm2::{ENDS, FEED_FORWARD, LFM2, MIXERS};
use super::schema::Blocks::{Dense, Experts, SelectionBias};
use super::schema::Size::{ExpertFf, Model};
use super::schema::*;

const fn line(canonical: &'static str, hugging_face: &'static str, shape: &'static [Size]) -> TensorNames {
    TensorNames::new(canonical, hugging_face, shape).only_in(Experts)
}

const FEED_FORWARDS: &[TensorNames] = &[
    FEED_FORWARD[0].only_in(Dense),
    FEED_FORWARD[1].only_in(Dense),
    FEED_FORWARD[2].only_in(Dense),
    line("blk.{}.ffn_gate_inp", "model.layers.{}.feed_forward.gate", &[Size::Experts, Model]),
    line("blk.{}.ffn_gate_exps[{}]", "model.layers.{}.feed_forward.experts.{}.w1", &[ExpertFf, Model]),
    line("blk.{}.ffn_up_exps[{}]", "model.layers.{}.feed_forward.experts.{}.w3", &[ExpertFf, Model]),
    line("blk.{}.ffn_down_exps[{}]", "model.layers.{}.feed_forward.experts.{}.w2", &[Model, ExpertFf]),
    line("blk.{}.exp_probs_b.bias", "model.layers.{}.feed_forward.expert_bias", &[Size::Experts])
        .only_in(SelectionBias)
        .ending(Endings::NONE),
];

pub(super) const LFM2_MOE: Architecture = Architecture {
    models: "LFM2 MoE",
    name: "lfm2moe",
    tensors: Tensors {
        groups: &[ENDS, MIXERS, FEED_FORWARDS],
        joined_experts: &[
            JoinedExperts {
                hugging_face: "model.layers.{}.feed_forward.experts.gate_up_proj",
                ending: "",
                parts: &["blk.{}.ffn_gate_exps[{}]", "blk.{}.ffn_up_exps[{}]"],
                interleaved: false,
                transposed: false,
            },
            JoinedExperts {
                hugging_face: "model.layers.{}.feed_forward.experts.down_proj",
                ending: "",
                parts: &["blk.{}.ffn_down_exps[{}]"],
                interleaved: false,
                transposed: false,
            },
        ],
        ..LFM2.tensors
    },
    forward: Forward { gating: Gating::Sigmoid, added_to_weights: 1e-6, ..LFM2.forward },
    gguf: Gguf { convolutions: true, square_heads: true, dense_first: true, ..Gguf::USUAL },
    converter: Converter {
        keys: &[
            FIRST_KEYS,
            &[
                Key::Experts,
                Key::GivenHeadLengths,
                Key::FileType,
                Key::ExpertFeedForward,
                Key::DenseFirst,
                Key::ExpertGating,
                Key::Vocabulary,
                Key::ConvolutionTaps,
            ],
        ],
        experts: &["ffn_gate_exps", "ffn_down_exps", "ffn_up_exps"],
        ..LFM2.converter
    },
    hugging_face: HuggingFace {
        model_types: &["lfm2_moe"],
        class: "Lfm2MoeForCausalLM",
        defaults: &[
            ("vocab_size", 65_536.0),
            ("hidden_size", 2048.0),
            ("intermediate_size", 7168.0),
            ("moe_intermediate_size", 1792.0),
            ("num_hidden_layers", 32.0),
            ("num_attention_heads", 32.0),
            ("num_key_value_heads", 8.0),
            ("max_position_embeddings", 128_000.0),
            ("norm_eps", 1e-5),
            ("rope_theta", 1e6),
            ("conv_L_cache", 3.0),
            ("num_dense_layers", 2.0),
            ("num_experts", 32.0),
            ("num_experts_per_tok", 4.0),
            ("use_expert_bias", 1.0),
            ("routed_scaling_factor", 1.0),
            ("norm_topk_prob", 1.0),
        ],
        options: &[
            ClassOption::Convolutions,
            ClassOption::DenseFirst("num_dense_layers"),
            ClassOption::ExpertScale,
            ClassOption::ExpertsNormalized,
            ClassOption::SelectionBias("use_expert_bias"),
        ],
        flags: &[("conv_bias", false), ("output_router_logits", false)],
        ..LFM2.hugging_face
    },
    onnx: Onnx { genai_type: Some("lfm2_moe") },
};
