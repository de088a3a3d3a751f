//! ERNIE 4.5 with a mixture of experts that a bias has a say in choosing, beside one that every token goes through. The first
//! blocks have no experts.

use super::ernie4_5::ERNIE4_5;
use super::glm4_moe::{DENSE_OR_EXPERTS, SHARED_EXPERT, TARGETS};
use super::groups::{ATTENTION, ENDS, FIRST_KEYS, NORMS_BEFORE};
use super::qwen3_5_moe::QWEN3_5_MOE;
use super::schema::*;

const SELECTION: &[TensorNames] = &[TensorNames::new(
    "blk.{}.exp_probs_b.bias",
    "model.layers.{}.mlp.moe_statics.e_score_correction_bias",
    &[Size::Experts],
)
.only_in(Blocks::Experts)
.ending(Endings::NONE)
.one_row()];

pub(super) const ERNIE4_5_MOE: Architecture = Architecture {
    models: "ERNIE 4.5 MoE",
    name: "ernie4_5-moe",
    tensors: Tensors {
        groups: &[ENDS, NORMS_BEFORE, ATTENTION, DENSE_OR_EXPERTS, SHARED_EXPERT, SELECTION],
        targets: TARGETS,
        joined_experts: QWEN3_5_MOE.tensors.joined_experts,
        ..ERNIE4_5.tensors
    },
    gguf: Gguf { shared_expert: SharedExpertWidth::Own, dense_first: true, ..Gguf::USUAL },
    converter: Converter {
        keys: &[
            FIRST_KEYS,
            &[
                Key::GivenHeadLengths,
                Key::FileType,
                Key::Experts,
                Key::ExpertInterval,
                Key::DenseFirst,
                Key::ExpertFeedForward,
                Key::SharedExperts,
                Key::SharedFeedForward,
            ],
        ],
        experts: &["ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"],
        dropped_prefixes: &[
            "model.mtp_block.",
            "model.mtp_emb_norm.",
            "model.mtp_hidden_norm.",
            "model.mtp_linear_proj.",
        ],
        ..ERNIE4_5.converter
    },
    hugging_face: HuggingFace {
        model_types: &["ernie4_5_moe"],
        class: "Ernie4_5_MoeForCausalLM",
        keys: &[("num_experts", "moe_num_experts"), ("num_experts_per_tok", "moe_k")],
        defaults: &[
            ("vocab_size", 103_424.0),
            ("hidden_size", 2560.0),
            ("intermediate_size", 12_288.0),
            ("num_hidden_layers", 28.0),
            ("num_attention_heads", 20.0),
            ("num_key_value_heads", 4.0),
            ("max_position_embeddings", 131_072.0),
            ("rope_theta", 500_000.0),
            ("rms_norm_eps", 1e-5),
            ("moe_intermediate_size", 1536.0),
            ("moe_k", 6.0),
            ("moe_num_experts", 64.0),
            ("moe_num_shared_experts", 2.0),
            ("moe_layer_start_index", 1.0),
            ("moe_layer_interval", 1.0),
            ("norm_topk_prob", 1.0),
        ],
        heads: HeadKeys::Grouped,
        options: &[ClassOption::ExpertInterval, ClassOption::SharedExperts("moe_num_shared_experts")],
        flags: &[("use_bias", false), ("output_router_logits", false)],
        ..ERNIE4_5.hugging_face
    },
    onnx: Onnx { genai_type: None },
    ..ERNIE4_5
};
