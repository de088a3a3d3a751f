//! The `ARCH.*` keys of a GGUF file. One that nothing here reads may change the arithmetic, so the model is
//! not computed without it. Source: `gguf-py/gguf/constants.py` and `src/llama-arch.cpp` of llama.cpp.

use curmerge_formats::gguf::{Gguf, Value};

use crate::arch::Architecture;

/// Keys that are read: by [`super`], or by [`crate::convert`] for settings that are only carried.
const READ: &[&str] = &[
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.layer_norm_epsilon",
    "attention.layer_norm_rms_epsilon",
    "attention.scale",
    "attention.sliding_window",
    "attention.sliding_window_pattern",
    "attention.temperature_scale",
    "attention.value_length",
    "attn_logit_softcapping",
    "block_count",
    "context_length",
    "embedding_length",
    "embedding_scale",
    "expert_count",
    "expert_feed_forward_length",
    "expert_group_count",
    "expert_group_used_count",
    "expert_shared_count",
    "expert_shared_feed_forward_length",
    "expert_used_count",
    "feed_forward_length",
    "final_logit_softcapping",
    "logit_scale",
    "nextn_predict_layers",
    "residual_scale",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.freq_base_swa",
    "rope.scale_linear",
    "rope.scaling.attn_factor",
    "rope.scaling.factor",
    "rope.scaling.finetuned",
    "rope.scaling.original_context_length",
    "rope.scaling.type",
];

/// Keys that are read of families with linear attention.
const LINEAR_ATTENTION: &[&str] = &[
    "attention.recurrent_layers",
    "full_attention_interval",
    "ssm.conv_kernel",
    "ssm.group_count",
    "ssm.inner_size",
    "ssm.state_size",
    "ssm.time_step_rank",
];

/// Keys that are read of families with sizes of each block.
const SIZES_BY_BLOCK: &[&str] = &[
    "attention.key_length_swa",
    "attention.shared_kv_layers",
    "attention.value_length_swa",
    "embedding_length_per_layer_input",
    "rope.dimension_count_swa",
];

/// The key that is read of families whose first blocks have no experts.
const DENSE_FIRST: &str = "leading_dense_block_count";

/// Keys that are read of families in which they say what weights of experts are.
const EXPERT_WEIGHTS: &[&str] = &["expert_weights_norm", "expert_weights_scale"];

/// The key that is read of families with short convolutions.
const CONVOLUTION_TAPS: &str = "shortconv.l_cache";

/// The key that is read of families whose experts may have a stream of their own.
const LATENT: &str = "moe_latent_size";

/// Keys that change nothing of a text's logits: sizes that tensors have too, and what serves other tasks.
const WITHOUT_ARITHMETIC: &[&str] =
    &["classifier.output_labels", "n_deepstack_layers", "pooling_type", "tensor_data_layout", "vocab_size"];

/// Beginnings of such keys: YaRN's numbers, which count with its type alone; and other models in the file.
const WITHOUT_ARITHMETIC_FROM: &[&str] = &["rope.scaling.yarn_", "vision.", "audio.", "mm.", "clip."];

/// What the sizes of state spaces begin with, which files of Granite 4 without such blocks have, too.
const STATE_SPACES: &str = "ssm.";

/// The first key of the architecture that may change the arithmetic and is not read, with the problem.
pub(super) fn unread(gguf: &Gguf, architecture: &'static Architecture) -> Option<(String, String)> {
    let own = format!("{}.", architecture.name);
    gguf.metadata().iter().find_map(|(key, value)| {
        let name = key.strip_prefix(&own)?;
        let known = READ.contains(&name)
            || WITHOUT_ARITHMETIC.contains(&name)
            || architecture.gguf.ignored_keys.contains(&name)
            || WITHOUT_ARITHMETIC_FROM.iter().any(|start| name.starts_with(start));
        let problem = "this key may change what the model computes, and is not known";
        let sections = name == "rope.dimension_sections" && architecture.gguf.sections && of_text(value);
        let linear = match architecture.gguf.linear_attention {
            Some(_) => LINEAR_ATTENTION.contains(&name),
            None => name.starts_with(STATE_SPACES),
        };
        let by_block = architecture.gguf.sizes_by_block && SIZES_BY_BLOCK.contains(&name);
        let taps = architecture.gguf.convolutions && name == CONVOLUTION_TAPS;
        let dense = architecture.gguf.dense_first && name == DENSE_FIRST;
        let weights = architecture.gguf.normalizes_experts.is_none() && EXPERT_WEIGHTS.contains(&name);
        let gating = u64::from(architecture.forward.gating.gguf());
        let gating = name == "expert_gating_func" && value.as_u64() == Some(gating);
        let latent = name == LATENT && architecture.line("blk.0.ffn_latent_up").is_some();
        let experts = dense || weights || gating || latent;
        let parallel = Value::Bool(architecture.forward.parallel);
        if name == "use_parallel_residual" && !architecture.gguf.ignored_keys.contains(&name) {
            return (*value != parallel).then(|| (key.clone(), problem.to_owned()));
        }
        (!known && !sections && !linear && !by_block && !taps && !experts && !changes_nothing(name, value))
            .then(|| (key.clone(), problem.to_owned()))
    })
}

/// Whether the sections of a rotated head leave none to a fourth position, which texts lack.
fn of_text(sections: &Value) -> bool {
    sections.as_i32s().is_some_and(|sections| sections.get(3).is_none_or(|&fourth| fourth == 0))
}

/// Whether a key that is not read has the value of a model without it.
fn changes_nothing(name: &str, value: &Value) -> bool {
    match (name, value) {
        ("attention.causal" | "expert_weights_norm", Value::Bool(true)) => true,
        ("interleave_moe_layer_step", value) if value.as_u64() == Some(1) => true,
        ("expert_weights_scale", value) if value.as_f64() == Some(1.0) => true,
        ("attention.causal" | "expert_weights_norm", _) => false,
        (_, Value::Bool(flag)) => !flag,
        (_, value) => value.as_f64() == Some(0.0) || value.as_u64() == Some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_a_model_without_the_key_change_nothing() {
        for (name, value, nothing) in [
            ("attention.causal", Value::Bool(true), true),
            ("attention.causal", Value::Bool(false), false),
            ("expert_gating_func", Value::U32(2), false),
            ("interleave_moe_layer_step", Value::U32(1), true),
            ("interleave_moe_layer_step", Value::U32(2), false),
            ("expert_weights_scale", Value::F32(1.0), true),
            ("attention.clamp_kqv", Value::F32(0.0), true),
            ("attention.clamp_kqv", Value::F32(8.0), false),
            ("rope.global.freq_base", Value::F32(1e6), false),
            ("use_parallel_residual", Value::Bool(false), true),
            ("leading_dense_block_count", Value::U32(0), true),
            ("what", Value::String("on".into()), false),
        ] {
            assert_eq!(changes_nothing(name, &value), nothing, "{name} {value:?}");
        }
    }
}
