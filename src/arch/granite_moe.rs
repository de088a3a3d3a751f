//! Granite 3 MoE: Granite with a mixture of experts, of which folders have the matrices of all in one tensor.

use super::granite::GRANITE;
use super::groups::{ATTENTION_TARGETS, ENDS, FIRST_KEYS, NORMS_BEFORE, PERMUTED};
use super::schema::Size::{ExpertFf, Experts, Model};
use super::schema::*;

pub(super) const EXPERTS: &[TensorNames] = &[
    TensorNames::new(
        "blk.{}.ffn_gate_inp",
        "model.layers.{}.block_sparse_moe.router.layer",
        &[Experts, Model],
    ),
    TensorNames::new("blk.{}.ffn_gate_exps[{}]", "", &[ExpertFf, Model]),
    TensorNames::new("blk.{}.ffn_up_exps[{}]", "", &[ExpertFf, Model]),
    TensorNames::new("blk.{}.ffn_down_exps[{}]", "", &[Model, ExpertFf]),
];

pub(super) const GRANITE_MOE: Architecture = Architecture {
    models: "Granite 3 MoE",
    name: "granitemoe",
    tensors: Tensors {
        groups: &[ENDS, NORMS_BEFORE, PERMUTED, EXPERTS],
        targets: ATTENTION_TARGETS,
        joined_experts: &[
            JoinedExperts {
                hugging_face: "model.layers.{}.block_sparse_moe.input_linear",
                ending: ".weight",
                parts: &["blk.{}.ffn_gate_exps[{}]", "blk.{}.ffn_up_exps[{}]"],
                interleaved: false,
                transposed: false,
            },
            JoinedExperts {
                hugging_face: "model.layers.{}.block_sparse_moe.output_linear",
                ending: ".weight",
                parts: &["blk.{}.ffn_down_exps[{}]"],
                interleaved: false,
                transposed: false,
            },
        ],
        ..GRANITE.tensors
    },
    // llama.cpp rotates the blocks of this family, whatever the file says.
    forward: Forward { unrotated: Unrotated::Never, ..GRANITE.forward },
    converter: Converter {
        keys: &[
            FIRST_KEYS,
            &[Key::Experts, Key::FileType, Key::Vocabulary, Key::RopeDimensions, Key::Scales],
        ],
        experts: &["ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"],
        ..GRANITE.converter
    },
    hugging_face: HuggingFace {
        model_types: &["granitemoe"],
        class: "GraniteMoeForCausalLM",
        keys: &[("num_experts", "num_local_experts"), ("moe_intermediate_size", "intermediate_size")],
        defaults: &[
            ("vocab_size", 32_000.0),
            ("hidden_size", 4096.0),
            ("intermediate_size", 11_008.0),
            ("num_hidden_layers", 32.0),
            ("num_attention_heads", 32.0),
            ("attention_multiplier", 1.0),
            ("num_local_experts", 8.0),
            ("num_experts_per_tok", 2.0),
            // The softmax is that of the chosen experts.
            ("norm_topk_prob", 1.0),
        ],
        options: &[ClassOption::Multipliers],
        flags: &[("attention_bias", false), ("output_router_logits", false)],
        ..GRANITE.hugging_face
    },
    onnx: Onnx { genai_type: None },
    ..GRANITE
};
