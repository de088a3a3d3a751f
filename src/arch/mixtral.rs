//! Mixtral: mistral with a mixture of experts as its feed-forward part. GGUF calls it a llama.

use super::groups::{ATTENTION_TARGETS, ENDS, FIRST_KEYS, MIXTRAL_EXPERTS, NORMS_BEFORE, PERMUTED_ATTENTION};
use super::llama::LLAMA;
use super::mistral::MISTRAL;
use super::schema::*;

pub(super) const MIXTRAL: Architecture = Architecture {
    models: "Mixtral",
    tensors: Tensors {
        groups: &[ENDS, NORMS_BEFORE, PERMUTED_ATTENTION, MIXTRAL_EXPERTS],
        targets: ATTENTION_TARGETS,
        ..MISTRAL.tensors
    },
    converter: Converter {
        keys: &[
            FIRST_KEYS,
            &[Key::Experts, Key::GivenHeadLengths, Key::FileType, Key::Vocabulary, Key::RopeDimensions],
        ],
        experts: &["ffn_gate_exps", "ffn_down_exps", "ffn_up_exps"],
        ..LLAMA.converter
    },
    hugging_face: HuggingFace {
        model_types: &["mixtral"],
        class: "MixtralForCausalLM",
        keys: &[("num_experts", "num_local_experts"), ("moe_intermediate_size", "intermediate_size")],
        defaults: &[
            ("rope_theta", 1e6),
            ("max_position_embeddings", 131_072.0),
            ("num_local_experts", 8.0),
            ("num_experts_per_tok", 2.0),
            ("num_key_value_heads", 8.0),
            ("rms_norm_eps", 1e-5),
            ("norm_topk_prob", 1.0),
        ],
        heads: HeadKeys::Grouped,
        flags: &[("output_router_logits", false)],
        ..MISTRAL.hugging_face
    },
    onnx: Onnx { genai_type: None },
    ..MISTRAL
};
