//! GLM 4.5 to 4.7: llama with a part of each head rotated, and experts that are chosen by their sigmoids and a bias, beside
//! one that every token goes through. The first blocks have no experts.

use super::glm4::GLM4;
use super::groups::{ATTENTION, ENDS, FEED_FORWARD, FIRST_KEYS, HEAD_NORMS, QWEN_EXPERTS};
use super::llama::LLAMA;
use super::qwen3_5::QWEN3_5;
use super::qwen3_5_moe::QWEN3_5_MOE;
use super::qwen3_moe::QWEN3_MOE;
use super::schema::Blocks::{Dense, Experts, HeadNorms, Prediction, SharedExpert};
use super::schema::Size::{Model, SharedFf, TwiceModel, Vocab};
use super::schema::*;

const fn line(canonical: &'static str, hugging_face: &'static str, shape: &'static [Size]) -> TensorNames {
    TensorNames::new(canonical, hugging_face, shape)
}

/// An expert that every token goes through, which has no gate for it.
pub(super) const SHARED_EXPERT: &[TensorNames] = &[
    line("blk.{}.ffn_gate_shexp", "model.layers.{}.mlp.shared_experts.gate_proj", &[SharedFf, Model])
        .only_in(SharedExpert),
    line("blk.{}.ffn_up_shexp", "model.layers.{}.mlp.shared_experts.up_proj", &[SharedFf, Model])
        .only_in(SharedExpert),
    line("blk.{}.ffn_down_shexp", "model.layers.{}.mlp.shared_experts.down_proj", &[Model, SharedFf])
        .only_in(SharedExpert),
];

/// An MLP in blocks without experts, and the experts of the others.
pub(super) const DENSE_OR_EXPERTS: &[TensorNames] = &[
    FEED_FORWARD[0].only_in(Dense),
    FEED_FORWARD[1].only_in(Dense),
    FEED_FORWARD[2].only_in(Dense),
    QWEN_EXPERTS[0].only_in(Experts),
    QWEN_EXPERTS[1].only_in(Experts),
    QWEN_EXPERTS[2].only_in(Experts),
    QWEN_EXPERTS[3].only_in(Experts),
];

/// The matrices of attention, of MLPs, and of experts that every token goes through.
pub(super) const TARGETS: &[(&str, &str)] = &[
    ("q", "attn_q"),
    ("k", "attn_k"),
    ("v", "attn_v"),
    ("o", "attn_output"),
    ("gate", "ffn_gate"),
    ("up", "ffn_up"),
    ("down", "ffn_down"),
    ("gate", "ffn_gate_shexp"),
    ("up", "ffn_up_shexp"),
    ("down", "ffn_down_shexp"),
];

const BLOCKS: &[TensorNames] = &[
    line("blk.{}.attn_norm", "model.layers.{}.input_layernorm", &[Model]),
    line("blk.{}.post_attention_norm", "model.layers.{}.post_attention_layernorm", &[Model]),
    ATTENTION[0].may_be_biased(),
    ATTENTION[1].may_be_biased(),
    ATTENTION[2].may_be_biased(),
    ATTENTION[3],
    HEAD_NORMS[0].only_in(HeadNorms),
    HEAD_NORMS[1].only_in(HeadNorms),
    line("blk.{}.exp_probs_b.bias", "model.layers.{}.mlp.gate.e_score_correction_bias", &[Size::Experts])
        .only_in(Experts)
        .ending(Endings::NONE),
];

/// Of the block that predicts further tokens, beside those of a usual one. The model's own embedding and head may be
/// repeated there.
const PREDICTION: &[TensorNames] = &[
    line("blk.{}.nextn.eh_proj", "model.layers.{}.eh_proj", &[Model, TwiceModel]).only_in(Prediction),
    line("blk.{}.nextn.enorm", "model.layers.{}.enorm", &[Model]).only_in(Prediction),
    line("blk.{}.nextn.hnorm", "model.layers.{}.hnorm", &[Model]).only_in(Prediction),
    line("blk.{}.nextn.embed_tokens", "model.layers.{}.embed_tokens", &[Vocab, Model])
        .only_in(Prediction)
        .optional(),
    line("blk.{}.nextn.shared_head_head", "model.layers.{}.shared_head.head", &[Vocab, Model])
        .only_in(Prediction)
        .optional(),
    line("blk.{}.nextn.shared_head_norm", "model.layers.{}.shared_head.norm", &[Model])
        .only_in(Prediction)
        .optional(),
];

pub(super) const GLM4_MOE: Architecture = Architecture {
    models: "GLM 4.5, GLM 4.6, GLM 4.7",
    name: "glm4moe",
    tensors: Tensors {
        groups: &[ENDS, BLOCKS, DENSE_OR_EXPERTS, SHARED_EXPERT, PREDICTION],
        targets: TARGETS,
        norms: QWEN3_5.tensors.norms,
        joined_experts: QWEN3_5_MOE.tensors.joined_experts,
        ..LLAMA.tensors
    },
    forward: Forward {
        positions: Positions::RopeHalf,
        gating: Gating::Sigmoid,
        added_to_weights: 1e-20,
        ..LLAMA.forward
    },
    gguf: Gguf {
        sections: true,
        normalizes_experts: None,
        shared_expert: SharedExpertWidth::Count,
        dense_first: true,
        ..Gguf::USUAL
    },
    converter: Converter {
        special_tokens: &[
            ("bos", "[gMASK]"),
            ("eot", "<|user|>"),
            ("unk", "<|endoftext|>"),
            ("eom", "<|observation|>"),
        ],
        keys: &[
            FIRST_KEYS,
            &[
                Key::Experts,
                Key::ExpertGroups,
                Key::GivenHeadLengths,
                Key::FileType,
                Key::PartialRopeDimensions,
                Key::ExpertFeedForward,
                Key::SharedExperts,
                Key::DenseFirst,
                Key::ExpertGating,
                Key::ExpertScale,
                Key::ExpertsNormalized,
                Key::PredictionBlocks,
            ],
        ],
        experts: QWEN3_MOE.converter.experts,
        ..Converter::USUAL
    },
    hugging_face: HuggingFace {
        model_types: &["glm4_moe"],
        class: "Glm4MoeForCausalLM",
        keys: &[("num_experts", "n_routed_experts")],
        defaults: &[
            ("vocab_size", 151_552.0),
            ("hidden_size", 4096.0),
            ("intermediate_size", 10_944.0),
            ("num_hidden_layers", 46.0),
            ("num_attention_heads", 96.0),
            ("num_key_value_heads", 8.0),
            ("max_position_embeddings", 131_072.0),
            ("rms_norm_eps", 1e-5),
            ("partial_rotary_factor", 0.5),
            ("moe_intermediate_size", 1408.0),
            ("num_experts_per_tok", 8.0),
            ("n_shared_experts", 1.0),
            ("n_routed_experts", 128.0),
            ("routed_scaling_factor", 1.0),
            ("n_group", 1.0),
            ("topk_group", 1.0),
            ("first_k_dense_replace", 1.0),
            ("norm_topk_prob", 1.0),
        ],
        heads: HeadKeys::Grouped,
        prediction_key: "num_nextn_predict_layers",
        options: &[
            ClassOption::PartialRotary,
            ClassOption::InputBiases("attention_bias"),
            ClassOption::DenseFirst("first_k_dense_replace"),
            ClassOption::SharedExperts("n_shared_experts"),
            ClassOption::ExpertGroups,
            ClassOption::ExpertScale,
            ClassOption::ExpertsNormalized,
            ClassOption::HeadNorms("use_qk_norm"),
        ],
        flags: &[("output_router_logits", false)],
        ..GLM4.hugging_face
    },
    onnx: Onnx { genai_type: None },
};
