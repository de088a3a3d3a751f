//! config.json and generation_config.json of a model, for transformers.
//!
//! [`options`] has what only some of its classes can do, and [`rope`] the rotary embeddings.

mod decimal;
mod options;
mod rope;
mod tokens;

use curmerge_formats::dtype::DType;
use curmerge_formats::gguf::Gguf;
use serde_json::{Map, Value as Json, json};

use crate::Result;
use crate::arch::{ClassOption, HeadKeys, Key, TokenizerOverride};
use crate::base::{Base, json};
use decimal::shortest;

pub(super) use options::{activation_note, class_note, window_note};
pub(super) use tokens::Tokens;

/// The content of config.json, from the model's configuration and, for a GGUF file, some of its keys.
///
/// # Errors
/// An architecture that is not known; an option or a RoPE scaling that transformers' class does not have.
pub(super) fn config(
    base: &Base,
    gguf: Option<&Gguf>,
    dtype: DType,
    tokens: &Tokens,
) -> Result<Map<String, Json>> {
    base.must_be_known()?;
    options::check(base)?;
    let class = &base.architecture().hugging_face;
    let c = base.config();
    let mut json = Map::new();
    let mut set = |name: &str, value: Json| drop(json.insert(class.key(name).into(), value));
    set("architectures", json!([class.class]));
    set("model_type", class.model_type().into());
    set("dtype", torch_name(dtype).into());
    // The name of `dtype` in transformers before 4.56.
    set("torch_dtype", torch_name(dtype).into());
    set("vocab_size", c.vocab.into());
    set("hidden_size", c.d_model.into());
    set("num_hidden_layers", c.layers.into());
    set("num_attention_heads", c.heads.into());
    set("max_position_embeddings", c.context.into());
    set("rms_norm_eps", shortest(c.norm_eps).into());
    set("tie_word_embeddings", (!base.tensors().contains_key("output")).into());
    set("use_cache", true.into());
    set("bos_token_id", tokens.bos.into());
    set("eos_token_id", tokens.eos.into());
    set("pad_token_id", tokens.pad.into());
    let overrides = base.architecture().converter.overrides;
    if overrides.iter().any(|(_, key)| matches!(key, TokenizerOverride::EndOfDocument(_))) {
        set("eod_token_id", tokens.eos.into());
    }
    for name in class.activation.written() {
        set(name, class.activation.names[0].into());
    }
    for (name, value) in class.flags {
        set(name, (*value).into());
    }
    if class.heads != HeadKeys::Ungrouped {
        set("num_key_value_heads", c.kv_heads.into());
    }
    if class.heads == HeadKeys::GroupedWithLength
        || class.heads == HeadKeys::Grouped && c.head_dim * c.heads != c.d_model
    {
        set("head_dim", c.head_dim.into());
    }
    let usual_ff = class.ff_ratio.map(|ratio| ratio * c.d_model);
    // Of a class with experts alone that has no such key.
    if !base.architecture().converter.writes(Key::GivenFeedForward) {
        set("intermediate_size", if usual_ff == Some(c.ff) { Json::Null } else { c.ff.into() });
    }
    if class.has(ClassOption::ContextTwice) {
        set("n_ctx", c.context.into());
    }
    if let Some(experts) = c.experts {
        set("num_experts", experts.count.into());
        set("num_experts_per_tok", experts.used.into());
        set("moe_intermediate_size", experts.ff.into());
        let by_count = |option: &ClassOption| matches!(option, ClassOption::SharedExperts(_));
        if let Some(ff) = experts.shared_ff.filter(|_| !class.options.iter().any(by_count)) {
            set("shared_expert_intermediate_size", ff.into());
        }
    }
    json.extend(options::keys(base, gguf));
    json.extend(rope::keys(base, gguf)?);
    // The first version with these keys. Without one, transformers suspects large vocabularies of an error in
    // Mistral's.
    json.insert("transformers_version".into(), "5.0.0".into());
    Ok(json)
}

/// The text of generation_config.json.
pub(super) fn generation(tokens: &Tokens) -> String {
    let mut json = Map::new();
    let mut set = |name: &str, value: Option<Json>| {
        if let Some(value) = value {
            json.insert(name.into(), value);
        }
    };
    set("bos_token_id", tokens.bos.map(Json::from));
    set("pad_token_id", tokens.pad.map(Json::from));
    set(
        "eos_token_id",
        match tokens.ends[..] {
            [] => None,
            [end] => Some(end.into()),
            _ => Some(tokens.ends.clone().into()),
        },
    );
    pretty(&json.into())
}

/// The text of a JSON file: indented, with a final newline.
pub(crate) fn pretty(json: &Json) -> String {
    json::text(json)
}

/// PyTorch's name of a type.
pub(crate) fn torch_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F16 => "float16",
        DType::BF16 => "bfloat16",
        _ => "float32",
    }
}
