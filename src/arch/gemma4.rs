//! Gemma 4: RMSNorms that multiply by their weight, values normed too, heads of two lengths, values made of keys in the
//! blocks without a window of some models, keys and values shared by the last blocks of others, which also have an input
//! of each token for every block, and a factor of the residual stream after each block. The 26B has experts beside its MLP.

use super::gemma3::GEMMA3;
use super::groups::{ENDS, FEED_FORWARD, OUTPUT, SIZES, TARGETS};
use super::schema::Size::{
    AllPerLayer, ExpertFf, ExpertGateUp, Experts, Head, KeyValue, Model, One, PerLayer, PerLayerVocab, Query,
};
use super::schema::*;

const fn line(canonical: &'static str, hugging_face: &'static str, shape: &'static [Size]) -> TensorNames {
    TensorNames::new(canonical, hugging_face, shape)
}

const PER_LAYER: &[TensorNames] = &[
    line("per_layer_token_embd", "model.embed_tokens_per_layer", &[PerLayerVocab, AllPerLayer])
        .only_in(Blocks::PerLayerInputs),
    line("per_layer_model_proj", "model.per_layer_model_projection", &[AllPerLayer, Model])
        .only_in(Blocks::PerLayerInputs),
    line("per_layer_proj_norm", "model.per_layer_projection_norm", &[PerLayer])
        .only_in(Blocks::PerLayerInputs),
    line("blk.{}.inp_gate", "model.layers.{}.per_layer_input_gate", &[PerLayer, Model])
        .only_in(Blocks::PerLayerInputs),
    line("blk.{}.proj", "model.layers.{}.per_layer_projection", &[Model, PerLayer])
        .only_in(Blocks::PerLayerInputs),
    line("blk.{}.post_norm", "model.layers.{}.post_per_layer_input_norm", &[Model])
        .only_in(Blocks::PerLayerInputs),
];

const BLOCKS: &[TensorNames] = &[
    line("blk.{}.attn_norm", "model.layers.{}.input_layernorm", &[Model]),
    line("blk.{}.post_attention_norm", "model.layers.{}.post_attention_layernorm", &[Model]),
    line("blk.{}.ffn_norm", "model.layers.{}.pre_feedforward_layernorm", &[Model]),
    line("blk.{}.post_ffw_norm", "model.layers.{}.post_feedforward_layernorm", &[Model]),
    line("blk.{}.attn_q", "model.layers.{}.self_attn.q_proj", &[Query, Model]),
    line("blk.{}.attn_k", "model.layers.{}.self_attn.k_proj", &[KeyValue, Model]).only_in(Blocks::OwnKeys),
    line("blk.{}.attn_v", "model.layers.{}.self_attn.v_proj", &[KeyValue, Model]).only_in(Blocks::OwnValues),
    OUTPUT,
    line("blk.{}.attn_q_norm", "model.layers.{}.self_attn.q_norm", &[Head]),
    line("blk.{}.attn_k_norm", "model.layers.{}.self_attn.k_norm", &[Head]).only_in(Blocks::OwnKeys),
    line("blk.{}.layer_output_scale", "model.layers.{}.layer_scalar", &[One])
        .ending(Endings::ONLY_IN_GGUF)
        .optional(),
];

pub(super) const GEMMA4: Architecture = Architecture {
    models: "Gemma 4",
    name: "gemma4",
    tensors: Tensors { groups: &[ENDS, PER_LAYER, BLOCKS, FEED_FORWARD], targets: TARGETS, ..GEMMA3.tensors },
    forward: Forward { value_norm: true, ..GEMMA3.forward },
    gguf: Gguf {
        soft_caps: Some([None, Some(30.0)]),
        windows: Some(Windows {
            rope_base: Some(1e4),
            scaling: WindowScaling::Nothing,
            required: true,
            ..Windows::every(6)
        }),
        attention_scale: Some(1.0),
        sizes_by_block: true,
        ..Gguf::USUAL
    },
    converter: Converter {
        vocabularies: &[VocabularySource::Characters],
        space_prefix: SpacePrefix::Unset,
        keys: &[
            SIZES,
            &[
                Key::RopeBase,
                Key::LocalRopeBase,
                Key::RmsEpsilon,
                Key::HeadLengths,
                Key::FileType,
                Key::LogitCap,
                Key::Window,
                Key::SharingBlocks,
                Key::PerLayerInputs,
                Key::WindowPattern,
                Key::LocalHeadLengths,
                Key::RopeDimensionsByKind,
            ],
        ],
        rope_types: &[RopeType::Proportional],
        dropped_prefixes: &[
            "vision_tower.",
            "model.vision_tower.",
            "audio_tower.",
            "model.audio_tower.",
            "embed_vision.",
            "model.embed_vision.",
            "embed_audio.",
            "model.embed_audio.",
        ],
        ..GEMMA3.converter
    },
    hugging_face: HuggingFace {
        model_types: &["gemma4_text", "gemma4"],
        class: "Gemma4ForCausalLM",
        defaults: &[
            ("vocab_size", 262_144.0),
            ("hidden_size", 2304.0),
            ("intermediate_size", 9216.0),
            ("num_hidden_layers", 30.0),
            ("num_attention_heads", 8.0),
            ("num_key_value_heads", 4.0),
            ("head_dim", 256.0),
            ("global_head_dim", 512.0),
            ("max_position_embeddings", 131_072.0),
            ("sliding_window", 512.0),
            ("sliding_window_pattern", 6.0),
            ("hidden_size_per_layer_input", 256.0),
            ("vocab_size_per_layer_input", 262_144.0),
            // Of the mixture.
            ("norm_topk_prob", 1.0),
        ],
        options: &[
            ClassOption::SoftCaps,
            ClassOption::RopeByKind,
            ClassOption::HeadsByKind,
            ClassOption::PerLayerInputs,
        ],
        flags: &[("attention_bias", false), ("enable_moe_block", false)],
        ..GEMMA3.hugging_face
    },
    onnx: Onnx { genai_type: None },
};

const EXPERTS: &[TensorNames] = &[
    line("blk.{}.post_ffw_norm_1", "model.layers.{}.post_feedforward_layernorm_1", &[Model]),
    line("blk.{}.pre_ffw_norm_2", "model.layers.{}.pre_feedforward_layernorm_2", &[Model]),
    line("blk.{}.post_ffw_norm_2", "model.layers.{}.post_feedforward_layernorm_2", &[Model]),
    line("blk.{}.ffn_gate_inp", "model.layers.{}.router.proj", &[Experts, Model]),
    line("blk.{}.ffn_gate_inp.scale", "model.layers.{}.router.scale", &[Model]).ending(Endings::NONE),
    line("blk.{}.ffn_down_exps.scale", "model.layers.{}.router.per_expert_scale", &[Experts])
        .ending(Endings::NONE),
    line("blk.{}.ffn_gate_up_exps[{}]", "", &[ExpertGateUp, Model]),
    line("blk.{}.ffn_down_exps[{}]", "", &[Model, ExpertFf]),
];

/// The 26B, whose blocks have experts beside their MLP.
pub(super) const GEMMA4_MOE: Architecture = Architecture {
    models: "Gemma 4 26B A4B",
    tensors: Tensors {
        groups: &[ENDS, PER_LAYER, BLOCKS, FEED_FORWARD, EXPERTS],
        fused: &[("ffn_gate_up_exps[{}]", &[("gate", ExpertFf), ("up", ExpertFf)])],
        joined_experts: &[
            JoinedExperts {
                hugging_face: "model.layers.{}.experts.gate_up_proj",
                ending: "",
                parts: &["blk.{}.ffn_gate_up_exps[{}]"],
                interleaved: false,
                transposed: false,
            },
            JoinedExperts {
                hugging_face: "model.layers.{}.experts.down_proj",
                ending: "",
                parts: &["blk.{}.ffn_down_exps[{}]"],
                interleaved: false,
                transposed: false,
            },
        ],
        ..GEMMA4.tensors
    },
    forward: Forward { mlp_beside_experts: true, ..GEMMA4.forward },
    converter: Converter {
        keys: &[
            SIZES,
            &[
                Key::RopeBase,
                Key::LocalRopeBase,
                Key::RmsEpsilon,
                Key::Experts,
                Key::HeadLengths,
                Key::FileType,
                Key::LogitCap,
                Key::Window,
                Key::SharingBlocks,
                Key::PerLayerInputs,
                Key::WindowPattern,
                Key::LocalHeadLengths,
                Key::ExpertFeedForward,
                Key::RopeDimensionsByKind,
            ],
        ],
        experts: &["ffn_down_exps", "ffn_gate_up_exps"],
        ..GEMMA4.converter
    },
    hugging_face: HuggingFace {
        chosen_by: Some(ChosenBy::Key("enable_moe_block")),
        keys: &[("num_experts_per_tok", "top_k_experts")],
        flags: &[("attention_bias", false), ("enable_moe_block", true)],
        ..GEMMA4.hugging_face
    },
    ..GEMMA4
};
