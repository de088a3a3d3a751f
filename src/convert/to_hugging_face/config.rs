//! config.json and generation_config.json.

use std::path::Path;

use curmerge_formats::dtype::DType;
use curmerge_formats::gguf::Gguf;
use serde_json::{Map, Value as Json, json};

use super::rope;
use crate::base::{Base, RopeScaling};
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

/// What transformers calls a family, and says of it beside the dimensions.
struct Family {
    /// `general.architecture` in GGUF.
    gguf: &'static str,
    /// The class of the model in transformers.
    class: &'static str,
    /// What is the same of all models that curmerge opens.
    flags: &'static [(&'static str, bool)],
    activation: &'static str,
}

const FAMILIES: &[Family] = &[Family {
    gguf: "llama",
    class: "LlamaForCausalLM",
    flags: &[("attention_bias", false), ("mlp_bias", false)],
    activation: "silu",
}];

/// The tokens that the configurations name.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    pub(super) pad: Option<u32>,
    pub(super) unknown: Option<u32>,
    /// Every token that the file names as an end, [`Self::eos`] first.
    ends: Vec<u32>,
}

impl Tokens {
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

/// The text of config.json.
pub(super) fn config(base: &Base, dtype: DType, tokens: &Tokens) -> Result<String> {
    let architecture = base.architecture();
    let family = FAMILIES.iter().find(|family| family.gguf == architecture.gguf);
    // Every architecture of the table has at least one of transformers' names.
    let (Some(family), Some(model_type)) = (family, architecture.hugging_face.first()) else {
        let problem = format!("no Hugging Face folder can be written of a {} model", architecture.gguf);
        let known: Vec<&str> = FAMILIES.iter().map(|family| family.gguf).collect();
        return Err(Error::input(base.path(), "architecture", problem, format!("use {}", known.join(", "))));
    };
    let c = base.config();
    let (rope_base, rope_dim) = c.rope.as_ref().map_or((10000.0, 0), |rope| (rope.base, rope.dim));
    if rope_dim != c.head_dim {
        let problem = format!("it rotates {rope_dim} of the {} entries of a head", c.head_dim);
        let mend = "transformers' model rotates them all: use the GGUF file as it is";
        return Err(Error::input(base.path(), "rope.dimension_count", problem, mend));
    }
    let scaling = rope::scaling(base)?;
    let rope_base = shortest(rope_base);
    let mut json = json!({
        "architectures": [family.class],
        "model_type": model_type,
        "dtype": torch_name(dtype),
        // Its name in transformers before 4.56.
        "torch_dtype": torch_name(dtype),
        "vocab_size": c.vocab,
        "hidden_size": c.d_model,
        "intermediate_size": c.ff,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.kv_heads,
        "head_dim": c.head_dim,
        "hidden_act": family.activation,
        "max_position_embeddings": c.context,
        "rms_norm_eps": shortest(c.norm_eps),
        "tie_word_embeddings": !base.tensors().contains_key("output"),
        "use_cache": true,
        "bos_token_id": tokens.bos,
        "eos_token_id": tokens.eos,
        "pad_token_id": tokens.pad,
        "rope_parameters": rope_parameters(scaling.as_ref(), rope_base),
        // Both as transformers before 5 reads them.
        "rope_theta": rope_base,
        "rope_scaling": null,
        // The first of this form. Without it, large vocabularies are suspected of Mistral's mistakes.
        "transformers_version": "5.0.0",
    });
    if let Some(mut scaling) = scaling.as_ref().map(|scaling| rope_parameters(Some(scaling), rope_base)) {
        scaling.as_object_mut().map(|members| members.remove("rope_theta"));
        json["rope_scaling"] = scaling;
    }
    for (name, value) in family.flags {
        json[*name] = (*value).into();
    }
    Ok(pretty(&json))
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

/// Indented, with the line's end that editors expect.
pub(super) fn pretty(json: &Json) -> String {
    format!("{json:#}\n")
}

fn torch_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F16 => "float16",
        DType::BF16 => "bfloat16",
        _ => "float32",
    }
}

/// GGUF stores `1e-5` as an f32; the decimal number that was meant is the shortest that is the same f32.
fn shortest(number: f64) -> f64 {
    let single = number as f32;
    if f64::from(single) != number {
        return number;
    }
    single.to_string().parse().unwrap_or(number)
}

fn rope_parameters(scaling: Option<&RopeScaling>, base: f64) -> Json {
    match *scaling.unwrap_or(&RopeScaling::Linear { factor: 1.0 }) {
        RopeScaling::Linear { factor: 1.0 } => json!({ "rope_type": "default", "rope_theta": base }),
        RopeScaling::Linear { factor } => {
            json!({ "rope_type": "linear", "rope_theta": base, "factor": shortest(factor) })
        }
        RopeScaling::Llama3 { factor, low_frequency_factor, high_frequency_factor, original_context } => {
            let whole = original_context.fract() == 0.0;
            json!({
                "rope_type": "llama3",
                "rope_theta": base,
                "factor": shortest(factor),
                "low_freq_factor": low_frequency_factor,
                "high_freq_factor": high_frequency_factor,
                // transformers wants a whole number here.
                "original_max_position_embeddings":
                    if whole { Json::from(original_context as u64) } else { original_context.into() },
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{FAMILIES, shortest};
    use crate::arch;

    #[test]
    fn every_architecture_has_a_line() {
        for architecture in arch::ALL {
            assert!(FAMILIES.iter().any(|f| f.gguf == architecture.gguf), "{}", architecture.gguf);
        }
    }

    #[test]
    fn numbers_are_written_as_they_were_meant() {
        assert_eq!(shortest(f64::from(1e-5f32)), 1e-5);
        assert_eq!(shortest(f64::from(500000f32)), 500000.0);
        assert_eq!(shortest(0.1), 0.1);
    }
}
