//! config.json and generation_config.json.

use std::path::Path;

use curmerge_formats::dtype::DType;
use curmerge_formats::gguf::Gguf;
use serde_json::{Map, Value as Json, json};

use super::{family, rope};
use crate::arch::Positions;
use crate::base::Base;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

/// The tokens that the configurations name.
#[derive(Debug, Default)]
pub(in crate::convert) struct Tokens {
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    pub(super) pad: Option<u32>,
    pub(super) unknown: Option<u32>,
    /// Every token that the file names as an end, [`Self::eos`] first.
    ends: Vec<u32>,
}

impl Tokens {
    /// These; of several ends the first is that of sequences.
    pub(in crate::convert) fn named(bos: Option<u32>, pad: Option<u32>, ends: Vec<u32>) -> Self {
        Tokens { bos, eos: ends.first().copied(), pad, unknown: None, ends }
    }

    pub(super) fn new(path: &Path, gguf: &Gguf, tokenizer: &Tokenizer) -> Result<Self> {
        let count = tokenizer.vocab_size();
        let id = |name: &str| {
            let key = format!("tokenizer.ggml.{name}_token_id");
            let Some(value) = gguf.get(&key) else { return Ok(None) };
            match value.as_u64().and_then(|id| u32::try_from(id).ok()).filter(|&id| (id as usize) < count) {
                Some(id) => Ok(Some(id)),
                None => {
                    let problem = format!("not the id of one of its {count} tokens");
                    Err(Error::input(path, key, problem, "the file is damaged: fetch or convert it again"))
                }
            }
        };
        let (bos, eos) = (tokenizer.bos(), tokenizer.eos());
        let mut ends: Vec<u32> = Vec::new();
        for end in [eos, id("eot")?, id("eom")?].into_iter().flatten() {
            if !ends.contains(&end) {
                ends.push(end);
            }
        }
        Ok(Tokens { bos, eos, pad: id("padding")?, unknown: id("unknown")?, ends })
    }
}

/// The content of config.json, of what the model's configuration and, of a GGUF file, some of its keys say.
///
/// # Errors
/// An option that transformers' class has no form for.
pub(in crate::convert) fn config(
    base: &Base,
    gguf: Option<&Gguf>,
    dtype: DType,
    tokens: &Tokens,
) -> Result<Map<String, Json>> {
    let architecture = base.architecture();
    let Some(family) = family::of(architecture) else {
        let problem = format!("no Hugging Face folder can be written of a {} model", architecture.gguf);
        let help = "use the model as it is";
        return Err(Error::input(base.path(), "architecture", problem, help));
    };
    family::check(base, family)?;
    let c = base.config();
    let mut json = Map::new();
    let mut set = |name: &str, value: Json| drop(json.insert(architecture.config_key(name).into(), value));
    set("architectures", json!([family.class]));
    set("model_type", architecture.hugging_face.first().copied().into());
    set("dtype", torch_name(dtype).into());
    // Its name in transformers before 4.56.
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
    for (name, activation) in family.activation {
        set(name, (*activation).into());
    }
    for (name, value) in family.flags {
        set(name, (*value).into());
    }
    match architecture.positions {
        Positions::Learned => {
            set("n_ctx", c.context.into());
            set("intermediate_size", if c.ff == 4 * c.d_model { Json::Null } else { c.ff.into() });
        }
        _ => {
            set("num_key_value_heads", c.kv_heads.into());
            if family.has_head_dim || c.head_dim * c.heads != c.d_model {
                set("head_dim", c.head_dim.into());
            }
            set("intermediate_size", c.ff.into());
        }
    }
    if let Some(experts) = c.experts {
        set("num_experts", experts.count.into());
        set("num_experts_per_tok", experts.used.into());
        set("moe_intermediate_size", experts.ff.into());
    }
    json.extend(family::options(base, gguf, family));
    json.extend(rope::keys(base, gguf)?);
    // The first of this form. Without it, large vocabularies are suspected of Mistral's mistakes.
    json.insert("transformers_version".into(), "5.0.0".into());
    Ok(json)
}

/// The text of generation_config.json.
pub(in crate::convert) fn generation(tokens: &Tokens) -> String {
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

/// Indented, with the line's end that editors expect.
pub(in crate::convert) fn pretty(json: &Json) -> String {
    format!("{json:#}\n")
}

/// What PyTorch calls a type.
pub(in crate::convert) fn torch_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F16 => "float16",
        DType::BF16 => "bfloat16",
        _ => "float32",
    }
}

/// GGUF stores `1e-5` as an f32; the decimal number that was meant is the shortest that is the same f32.
pub(super) fn shortest(number: f64) -> f64 {
    let single = number as f32;
    if f64::from(single) != number {
        return number;
    }
    single.to_string().parse().unwrap_or(number)
}

#[cfg(test)]
mod tests {
    use super::shortest;

    #[test]
    fn numbers_are_written_as_they_were_meant() {
        assert_eq!(shortest(f64::from(1e-5f32)), 1e-5);
        assert_eq!(shortest(f64::from(500000f32)), 500000.0);
        assert_eq!(shortest(0.1), 0.1);
    }
}
