//! The `ARCH.*` keys: the model's dimensions and options, from config.json.

use curmerge_formats::gguf::{Array, Value};
use serde_json::Value as Json;

use super::folder::Object;
use super::keys::Keys;
use super::rope;
use crate::arch::{Architecture, Key, MixerKind};
use crate::base::{BlockSizes, Config};

/// The context of HunYuan with a raised base, in tokens. Its published configurations name 32K, and the converter writes
/// 256K for them; it refuses others.
fn context_of_raised_base(config: &Config) -> usize {
    if config.context == 32 << 10 { 256 << 10 } else { config.context }
}

/// Sets the keys that the architecture lists; `file_type` is the number in `general.file_type`.
///
/// transformers fills in what config.json leaves out before the converter sees it; [`Config`] does the same.
pub(super) fn set(
    keys: &mut Keys,
    architecture: &Architecture,
    config: &Config,
    json: &Object,
    file_type: u32,
) {
    let mut writer = Writer { keys, architecture: architecture.name };
    let json_number = |name: &str| json.get(name).and_then(Json::as_f64);
    for key in architecture.converter.keys.iter().copied().flatten() {
        match key {
            Key::Blocks => writer.count("block_count", config.layers + config.prediction_blocks),
            Key::Context if rope::has_raised_base(json) => {
                writer.count("context_length", context_of_raised_base(config));
            }
            // Of a model without positions.
            Key::Context if !config.state_spaces.is_empty() => writer.count("context_length", 1 << 20),
            Key::Context => writer.count("context_length", config.context),
            Key::UsualContext => writer.count("context_length", 2048),
            Key::TensorLayout => {
                let name = writer.name("tensor_data_layout");
                writer.keys.text(name, "jploski");
            }
            Key::Sections => {
                if let Some(sections) = rope::sections(json) {
                    writer
                        .keys
                        .set(writer.name("rope.dimension_sections"), Value::Array(Array::I32(sections)));
                }
            }
            Key::UsualSections if rope::sections(json).is_some() => {}
            Key::UsualSections => {
                let sections = Value::Array(Array::I32(vec![11, 11, 10, 0]));
                writer.keys.set(writer.name("rope.dimension_sections"), sections);
            }
            Key::Deepstack => {
                let blocks = json
                    .get("vision_config")
                    .and_then(|vision| vision["deepstack_visual_indexes"].as_array());
                writer.count("n_deepstack_layers", blocks.map_or(0, Vec::len));
            }
            Key::ParallelResidual => {
                // Opening the folder refused the other variant.
                let parallel = Value::Bool(architecture.forward.parallel);
                writer.keys.set(writer.name("use_parallel_residual"), parallel);
            }
            Key::NoBos => writer.keys.set("tokenizer.ggml.add_bos_token", Value::Bool(false)),
            Key::LogitScale => writer.float("logit_scale", Some(config.logit_scale)),
            Key::PredictionBlocks => {
                if config.prediction_blocks > 0 {
                    writer.count("nextn_predict_layers", config.prediction_blocks);
                }
            }
            Key::LinearAttention => {
                if let Some(heads) = config.delta_net {
                    writer.count("ssm.conv_kernel", heads.taps);
                    writer.count("ssm.state_size", heads.key_dim);
                    writer.count("ssm.group_count", heads.key_heads);
                    writer.count("ssm.time_step_rank", heads.value_heads);
                    writer.count("ssm.inner_size", heads.value_heads * heads.value_dim);
                }
                let mut linear = config.linear_attention.clone();
                linear.resize(config.layers + config.prediction_blocks, false);
                let linear = Value::Array(Array::Bool(linear));
                writer.keys.set(writer.name("attention.recurrent_layers"), linear);
                let interval = json_number("full_attention_interval").unwrap_or(4.0);
                writer.count("full_attention_interval", interval as usize);
            }
            Key::Unscaled => {
                let name = writer.name("rope.scaling.type");
                writer.keys.text(name, "none");
            }
            Key::RaisedBase => {
                if rope::has_raised_base(json) {
                    let name = writer.name("rope.scaling.type");
                    writer.keys.text(name, "none");
                    writer.float("rope.scaling.factor", Some(1.0));
                    writer.count("rope.scaling.original_context_length", context_of_raised_base(config));
                }
            }
            Key::OriginalContext => {
                let default = architecture.hugging_face.default(rope::ORIGINAL_CONTEXT);
                if let Some(original) = rope::original_context(json, default) {
                    writer.count("rope.scaling.original_context_length", original);
                }
            }
            Key::Width => writer.count("embedding_length", config.d_model),
            Key::GivenFeedForward if json_number("intermediate_size").is_none() => {}
            Key::FeedForward if json.get("use_double_wide_mlp") == Some(&Json::Bool(true)) => {
                writer.counts("feed_forward_length", config, |sizes| sizes.ff);
            }
            Key::FeedForward if architecture.gguf.one_part => {
                let own = config.experts.map_or(config.ff, |experts| experts.ff) as i32;
                let width = |layer| if config.block_kind(layer).feed_forward { own } else { 0 };
                let widths = Value::Array(Array::I32((0..config.layers).map(width).collect()));
                writer.keys.set(writer.name("feed_forward_length"), widths);
            }
            Key::FeedForward | Key::GivenFeedForward => writer.count("feed_forward_length", config.ff),
            Key::Heads => writer.count("attention.head_count", config.heads),
            Key::KeyValueHeads if architecture.gguf.convolutions || architecture.gguf.state_spaces => {
                let heads = |layer| match config.block_kind(layer).mixer {
                    Some(MixerKind::Attention) => config.kv_heads as i32,
                    _ => 0,
                };
                let heads = Value::Array(Array::I32((0..config.layers).map(heads).collect()));
                writer.keys.set(writer.name("attention.head_count_kv"), heads);
            }
            Key::ConvolutionTaps => writer.count("shortconv.l_cache", config.convolution_taps),
            // Of equal numbers, transformers tells the converter one.
            Key::KeyValueHeads if config.own_sizes.iter().any(|own| own.kv_heads != config.kv_heads) => {
                writer.counts("attention.head_count_kv", config, |sizes| sizes.kv_heads);
            }
            Key::SharingBlocks => writer.count("attention.shared_kv_layers", config.sharing_blocks),
            Key::PerLayerInputs => {
                let width = config.per_layer_inputs.map_or(0, |inputs| inputs.width);
                writer.count("embedding_length_per_layer_input", width);
            }
            Key::LocalHeadLengths => {
                let local = config.sizes_by_window(true).head_dim;
                writer.count("attention.key_length_swa", local);
                writer.count("attention.value_length_swa", local);
            }
            Key::RopeDimensionsByKind => {
                writer.count("rope.dimension_count", config.head_dim);
                writer.count("rope.dimension_count_swa", config.sizes_by_window(true).head_dim);
            }
            Key::KeyValueHeads => writer.count("attention.head_count_kv", config.kv_heads),
            Key::RopeScaling => {
                if let Some(factor) = rope::linear_factor(json) {
                    let name = writer.name("rope.scaling.type");
                    writer.keys.text(name, "linear");
                    writer.float("rope.scaling.factor", Some(factor));
                } else if let Some(yarn) = rope::yarn(json) {
                    let name = writer.name("rope.scaling.type");
                    writer.keys.text(name, rope::YARN);
                    writer.float("rope.scaling.factor", Some(yarn.factor));
                    writer.count("rope.scaling.original_context_length", yarn.original_context);
                    for (name, value) in yarn.options {
                        writer.float(name, Some(value));
                    }
                }
            }
            Key::RopeBase => writer.float("rope.freq_base", config.rope.as_ref().map(|rope| rope.base)),
            Key::LocalRopeBase => {
                let local = config.local_rope.as_ref().or(config.rope.as_ref());
                writer.float("rope.freq_base_swa", local.map(|rope| rope.base));
            }
            Key::RmsEpsilon => writer.float("attention.layer_norm_rms_epsilon", Some(config.norm_eps)),
            Key::RmsAsLayerEpsilon => {
                writer.float(
                    "attention.layer_norm_rms_epsilon",
                    json_number("rms_norm_eps").or(json_number("norm_eps")),
                );
                writer.float("attention.layer_norm_epsilon", Some(config.norm_eps));
            }
            Key::UnusedRopeBase => writer.float("rope.freq_base", json_number("rope_theta")),
            Key::LayerEpsilon => writer.float("attention.layer_norm_epsilon", Some(config.norm_eps)),
            Key::Experts => {
                if let Some(experts) = config.experts {
                    writer.count("expert_count", experts.count);
                    writer.count("expert_used_count", experts.used);
                }
            }
            Key::NoExperts => {
                // llama.cpp asserts that none is used where there are none.
                for (name, key) in
                    [("expert_count", "num_local_experts"), ("expert_used_count", "num_experts_per_tok")]
                {
                    if json_number(key).is_some() {
                        writer.count(name, 0);
                    }
                }
            }
            Key::DenseAsShared => writer.count("expert_shared_feed_forward_length", config.ff),
            Key::StateSpace => {
                if let Some(space) = config.state_space {
                    writer.count("ssm.conv_kernel", space.taps);
                    writer.count("ssm.state_size", space.state);
                    writer.count("ssm.group_count", space.groups);
                    writer.count("ssm.inner_size", space.inner());
                    writer.count("ssm.time_step_rank", space.heads);
                }
            }
            Key::Rotated => {
                let rotated = Value::Bool(config.rope.is_some() && config.unrotated.is_empty());
                writer.keys.set(writer.name("rope.scaling.finetuned"), rotated);
            }
            Key::SharedExperts => {
                if let Some(experts) = config.experts {
                    writer.count("expert_shared_count", experts.shared_ff.unwrap_or(0) / experts.ff.max(1));
                }
            }
            Key::OneSharedExpert => {
                let count = json_number("n_shared_experts").unwrap_or(1.0);
                writer.count("expert_shared_count", count as usize);
            }
            Key::LatentWidth => {
                if let Some(width) = config.experts.and_then(|experts| experts.latent) {
                    writer.count("moe_latent_size", width);
                }
            }
            Key::ExpertGroups => {
                if let Some(experts) = config.experts {
                    writer.count("expert_group_count", experts.groups[0]);
                    writer.count("expert_group_used_count", experts.groups[1]);
                }
            }
            Key::ExpertGating => {
                let gating = Value::U32(architecture.forward.gating.gguf());
                writer.keys.set(writer.name("expert_gating_func"), gating);
            }
            Key::ExpertScale => {
                writer.float("expert_weights_scale", config.experts.map(|experts| experts.scale));
            }
            Key::ExpertsNormalized => {
                let normalized = config.experts.is_some_and(|experts| experts.normalized);
                writer.keys.set(writer.name("expert_weights_norm"), Value::Bool(normalized));
            }
            Key::DenseFirst => {
                writer.count("leading_dense_block_count", config.dense_first().unwrap_or(0));
            }
            Key::ExpertInterval => writer.count("interleave_moe_layer_step", 1),
            Key::ExpertFeedForward => {
                if let Some(experts) = config.experts {
                    writer.count("expert_feed_forward_length", experts.ff);
                }
            }
            Key::SharedFeedForward => {
                if let Some(ff) = config.experts.and_then(|experts| experts.shared_ff) {
                    writer.count("expert_shared_feed_forward_length", ff);
                }
            }
            Key::GivenHeadLengths if json_number("head_dim").is_none() => {}
            Key::HeadLengths | Key::GivenHeadLengths => {
                writer.count("attention.key_length", config.head_dim);
                writer.count("attention.value_length", config.head_dim);
            }
            Key::FileType => writer.keys.set("general.file_type", Value::U32(file_type)),
            Key::Vocabulary => writer.count("vocab_size", config.vocab),
            Key::RopeDimensions => writer.count("rope.dimension_count", config.head_dim),
            Key::UnusedRopeDimensions => {
                writer.count("rope.dimension_count", config.d_model / config.heads);
            }
            Key::PartialRopeDimensions => {
                let rotated = config.rope.as_ref().map_or(config.head_dim, |rope| rope.dim);
                writer.count("rope.dimension_count", rotated);
            }
            Key::AttentionCap => writer.float("attn_logit_softcapping", config.attention_cap),
            Key::LogitCap | Key::GivenLogitCap => writer.float("final_logit_softcapping", config.logit_cap),
            Key::Window => {
                if let Some(window) = config.window {
                    writer.count("attention.sliding_window", window);
                }
            }
            Key::WindowOrZero => {
                writer.count(
                    "attention.sliding_window",
                    json_number("sliding_window").map_or(0, |n| n as usize),
                );
            }
            Key::WindowPattern => {
                if config.window.is_some() {
                    let windowed = Value::Array(Array::Bool(config.windowed.clone()));
                    writer.keys.set(writer.name("attention.sliding_window_pattern"), windowed);
                }
            }
            Key::Temperature => {
                writer.float("rope.scaling.yarn_log_multiplier", rope::log_multiplier(json));
                let beta = config.temperature.map_or(0.0, |temperature| temperature.beta);
                writer.float("attention.temperature_scale", Some(beta));
            }
            Key::Scales => {
                let names = [
                    ("attention.scale", "attention_multiplier"),
                    ("embedding_scale", "embedding_multiplier"),
                    ("residual_scale", "residual_multiplier"),
                    ("logit_scale", "logits_scaling"),
                ];
                for (name, theirs) in names {
                    writer.float(name, Some(json_number(theirs).unwrap_or(1.0)));
                }
            }
        }
    }
}

struct Writer<'k> {
    keys: &'k mut Keys,
    architecture: &'static str,
}

impl Writer<'_> {
    fn name(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    fn count(&mut self, name: &str, value: usize) {
        self.keys.set(self.name(name), Value::U32(value as u32));
    }

    /// A number of each block.
    fn counts(&mut self, name: &str, config: &Config, of: impl Fn(BlockSizes) -> usize) {
        let counts = (0..config.layers).map(|layer| of(config.sizes_of(layer)) as i32).collect();
        self.keys.set(self.name(name), Value::Array(Array::I32(counts)));
    }

    fn float(&mut self, name: &str, value: Option<f64>) {
        if let Some(value) = value {
            self.keys.set(self.name(name), Value::F32(value as f32));
        }
    }
}
