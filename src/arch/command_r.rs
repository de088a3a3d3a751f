//! Command R and Aya: both parts of a block read its input, after one LayerNorm without a bias; logits have a factor.
//! Rotary pairs are neighbours in the folder, too. Command R+, with norms of q and k, is another variant.

use super::groups::{ATTENTION, ENDS, FEED_FORWARD, NORMS_BEFORE, SIZES};
use super::llama::LLAMA;
use super::schema::*;

pub(super) const COMMAND_R: Architecture = Architecture {
    models: "Command R, Aya",
    name: "command-r",
    tensors: Tensors {
        groups: &[ENDS, &[NORMS_BEFORE[0]], ATTENTION, FEED_FORWARD],
        norms: BlockNorms { before_feed_forward: "attn_norm", ..BlockNorms::USUAL },
        ..LLAMA.tensors
    },
    forward: Forward { norm: NormKind::LayerUnbiased, parallel: true, ..LLAMA.forward },
    gguf: Gguf { logit_scale_multiplies: true, ..Gguf::USUAL },
    converter: Converter {
        keys: &[
            SIZES,
            &[Key::RopeBase, Key::LayerEpsilon, Key::GivenHeadLengths],
            &[Key::FileType, Key::LogitScale, Key::Unscaled],
        ],
        rope_types: &[],
        // llama.cpp reads no head.
        writes_head: false,
        ..Converter::USUAL
    },
    hugging_face: HuggingFace {
        model_types: &["cohere"],
        class: "CohereForCausalLM",
        keys: &[("rms_norm_eps", "layer_norm_eps")],
        defaults: &[
            ("vocab_size", 256_000.0),
            ("hidden_size", 8192.0),
            ("intermediate_size", 22_528.0),
            ("logit_scale", 0.0625),
            ("num_hidden_layers", 40.0),
            ("num_attention_heads", 64.0),
            ("max_position_embeddings", 8192.0),
            ("rope_theta", 500_000.0),
            ("layer_norm_eps", 1e-5),
        ],
        heads: HeadKeys::Grouped,
        options: &[ClassOption::LogitScale, ClassOption::ModelMaxLength],
        flags: &[("attention_bias", false), ("use_qk_norm", false)],
        ..LLAMA.hugging_face
    },
    onnx: Onnx { genai_type: None },
};
