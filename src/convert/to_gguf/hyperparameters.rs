//! The `ARCH.*` keys: the model's dimensions, as config.json has them.

use curmerge_formats::gguf::Value;

use super::folder::Object;
use super::keys::Keys;
use super::rope;
use crate::base::Config;

/// Sets the keys; `file_type` is the number in `general.file_type`.
///
/// transformers fills in what config.json leaves out before the converter sees it, and so [`Config`] does.
pub(super) fn set(keys: &mut Keys, architecture: &str, config: &Config, json: &Object, file_type: u32) {
    let key = |name: &str| format!("{architecture}.{name}");
    let number = |keys: &mut Keys, name: &str, value: usize| keys.set(key(name), Value::U32(value as u32));
    number(keys, "block_count", config.layers);
    number(keys, "context_length", config.context);
    number(keys, "embedding_length", config.d_model);
    number(keys, "feed_forward_length", config.ff);
    number(keys, "attention.head_count", config.heads);
    number(keys, "attention.head_count_kv", config.kv_heads);
    if let Some(factor) = rope::linear_factor(json) {
        keys.text(key("rope.scaling.type"), "linear");
        keys.set(key("rope.scaling.factor"), Value::F32(factor));
    }
    if let Some(rope) = &config.rope {
        keys.set(key("rope.freq_base"), Value::F32(rope.base as f32));
    }
    keys.set(key("attention.layer_norm_rms_epsilon"), Value::F32(config.norm_eps as f32));
    number(keys, "attention.key_length", config.head_dim);
    number(keys, "attention.value_length", config.head_dim);
    keys.set("general.file_type", Value::U32(file_type));
    number(keys, "vocab_size", config.vocab);
    number(keys, "rope.dimension_count", config.head_dim);
}
