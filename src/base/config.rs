//! A model's dimensions and options, from GGUF metadata or from config.json.

use std::path::Path;

use curmerge_formats::gguf::GgufModel;
use serde_json::Value as Json;

use super::{RowOrder, unknown_architecture};
use crate::arch::{self, Architecture, Heads, TensorNames};
use crate::{Error, Result};

/// Dimensions beyond these are damage or an attack, not a model.
const MAX_DIMENSION: usize = 1 << 24;
const MAX_HEAD_DIM: usize = 1 << 14;
const MAX_LAYERS: usize = 1 << 12;

/// What the transformer's arithmetic needs to know.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Transformer blocks.
    pub layers: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Width of the feed-forward part.
    pub ff: usize,
    /// Rows of the embedding.
    pub vocab: usize,
    /// Added to the mean square in RMSNorm.
    pub norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_base: f64,
    /// Leading entries of a head that are rotated; even.
    pub rope_dim: usize,
    /// One divisor a rotary frequency, where the model scales them (`rope_dim / 2` numbers).
    pub rope_factors: Option<Vec<f64>>,
    /// Longest sequence the model was trained on, in tokens.
    pub context: usize,
}

impl Config {
    /// How many heads of this kind a layer has.
    pub fn head_count(&self, heads: Heads) -> usize {
        match heads {
            Heads::Query => self.heads,
            Heads::KeyValue => self.kv_heads,
        }
    }

    /// How Hugging Face orders the `rows` of a matrix with these names. None where they are no whole number of heads.
    pub fn hugging_face_order(&self, names: &TensorNames, rows: u64) -> Option<RowOrder> {
        match names.rotary_halves {
            Some(heads) => RowOrder::rotary_halves(rows, self.head_count(heads)),
            None => Some(RowOrder::CANONICAL),
        }
    }
}

/// How Hugging Face's `rope_scaling` (or `rope_parameters`) stretches the rotary frequencies.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// Every frequency divided by the same number.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Llama 3.1: low frequencies divided, high ones kept, a smooth passage between.
    Llama3 {
        /// The divisor of low frequencies.
        factor: f64,
        /// Wavelengths above `original_context / low_frequency_factor` are divided.
        low_frequency_factor: f64,
        /// Wavelengths below `original_context / high_frequency_factor` are kept.
        high_frequency_factor: f64,
        /// Context length before stretching, in tokens.
        original_context: f64,
    },
}

impl RopeScaling {
    /// The divisor of each of the `rope_dim / 2` frequencies `base^(-2i / rope_dim)`.
    pub fn factors(&self, base: f64, rope_dim: usize) -> Vec<f64> {
        let frequency = |i: usize| base.powf(-2.0 * i as f64 / rope_dim as f64);
        (0..rope_dim / 2)
            .map(|i| match *self {
                RopeScaling::Linear { factor } => factor,
                RopeScaling::Llama3 {
                    factor,
                    low_frequency_factor: low,
                    high_frequency_factor: high,
                    original_context,
                } => {
                    let wavelength = 2.0 * std::f64::consts::PI / frequency(i);
                    if wavelength < original_context / high {
                        1.0
                    } else if wavelength > original_context / low {
                        factor
                    } else {
                        let kept = (original_context / wavelength - low) / (high - low);
                        1.0 / ((1.0 - kept) / factor + kept)
                    }
                }
            })
            .collect()
    }
}

impl Config {
    /// From the `ARCH.*` keys of a GGUF file.
    pub(super) fn from_gguf(model: &GgufModel, architecture: &Architecture) -> Result<Self> {
        let gguf = model.first();
        let path = gguf.path();
        let key = |name: &str| format!("{}.{name}", architecture.gguf);
        let number = |name: &str| gguf.get(&key(name)).and_then(|v| v.as_u64());
        let float = |name: &str| gguf.get(&key(name)).and_then(|v| v.as_f64());
        let needed = |name: &str, value: Option<u64>| {
            value.ok_or_else(|| {
                Error::input(
                    path,
                    key(name),
                    "missing or not a whole number",
                    "the file is damaged; download it again",
                )
            })
        };
        let d_model = needed("embedding_length", number("embedding_length"))?;
        let heads = needed("attention.head_count", number("attention.head_count"))?;
        let kv_heads = number("attention.head_count_kv").unwrap_or(heads);
        let head_dim = number("attention.key_length").unwrap_or(d_model / heads.max(1));
        if number("attention.value_length").is_some_and(|v| v != head_dim)
            || number("expert_count").unwrap_or(0) > 0
        {
            return Err(Error::input(
                path,
                key("*"),
                "a llama variant with experts, or with values unlike keys in length",
                "this variant is not supported yet",
            ));
        }
        let rope_dim = number("rope.dimension_count").unwrap_or(head_dim);
        let vocab = model.tensor("token_embd.weight").and_then(|t| t.dims.get(1).copied());
        let rope_base = float("rope.freq_base").unwrap_or(10000.0);
        let scaling = match gguf.get(&key("rope.scaling.type")).and_then(|v| v.as_str()) {
            Some("none") => None,
            // llama.cpp's default type is linear.
            None | Some("linear") => {
                float("rope.scaling.factor").map(|factor| RopeScaling::Linear { factor })
            }
            Some(other) => return Err(unknown_scaling(path, &key("rope.scaling.type"), other)),
        };
        let config = Config {
            layers: needed("block_count", number("block_count"))? as usize,
            d_model: d_model as usize,
            heads: heads as usize,
            kv_heads: kv_heads as usize,
            head_dim: head_dim as usize,
            ff: needed("feed_forward_length", number("feed_forward_length"))? as usize,
            vocab: needed("vocab_size", vocab)? as usize,
            norm_eps: float("attention.layer_norm_rms_epsilon").unwrap_or(1e-5),
            rope_base,
            rope_dim: rope_dim as usize,
            rope_factors: None,
            context: number("context_length").unwrap_or(2048) as usize,
        };
        config.checked(path, scaling)
    }

    /// From config.json in a Hugging Face folder; also the architecture it names.
    pub(super) fn from_folder(folder: &Path) -> Result<(&'static Architecture, Self)> {
        let path = folder.join("config.json");
        let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, "read", e))?;
        let json: Json = serde_json::from_str(&text).map_err(|e| {
            Error::input(&path, format!("line {}", e.line()), "not JSON", "download the folder again")
        })?;
        let model_type = json["model_type"].as_str().unwrap_or("");
        let architecture =
            arch::by_model_type(model_type).ok_or_else(|| unknown_architecture(&path, model_type))?;
        let number = |name: &str| json[name].as_u64();
        let needed = |name: &str| {
            number(name).ok_or_else(|| {
                Error::input(
                    &path,
                    name,
                    "missing or not a whole number",
                    "the file is damaged; download it again",
                )
            })
        };
        let unlike = |name: &str, problem: &str| {
            Err(Error::input(&path, name, problem, "this variant of the architecture is not supported yet"))
        };
        if json["hidden_act"].as_str().is_some_and(|a| a != "silu") {
            return unlike("hidden_act", "the feed-forward part does not use silu");
        }
        for bias in ["attention_bias", "mlp_bias"] {
            if json[bias].as_bool() == Some(true) {
                return unlike(bias, "the model has biases");
            }
        }
        let d_model = needed("hidden_size")?;
        let heads = needed("num_attention_heads")?;
        let head_dim = number("head_dim").unwrap_or(d_model / heads.max(1));
        // transformers 5 writes rope_parameters, older ones rope_theta and rope_scaling.
        let rope = if json["rope_parameters"].is_object() {
            &json["rope_parameters"]
        } else {
            &json["rope_scaling"]
        };
        let rope_base =
            rope["rope_theta"].as_f64().or_else(|| json["rope_theta"].as_f64()).unwrap_or(10000.0);
        let config = Config {
            layers: needed("num_hidden_layers")? as usize,
            d_model: d_model as usize,
            heads: heads as usize,
            kv_heads: number("num_key_value_heads").unwrap_or(heads) as usize,
            head_dim: head_dim as usize,
            ff: needed("intermediate_size")? as usize,
            vocab: needed("vocab_size")? as usize,
            norm_eps: json["rms_norm_eps"].as_f64().unwrap_or(1e-6),
            rope_base,
            rope_dim: head_dim as usize,
            rope_factors: None,
            context: number("max_position_embeddings").unwrap_or(2048) as usize,
        };
        let scaling = scaling_of(&path, rope)?;
        Ok((architecture, config.checked(&path, scaling)?))
    }

    fn checked(mut self, path: &Path, scaling: Option<RopeScaling>) -> Result<Self> {
        let bad = |place: &str, problem: String| {
            Err(Error::input(path, place, problem, "the file is damaged; download it again"))
        };
        let sizes = [
            ("embedding length", self.d_model),
            ("head count", self.heads),
            ("key/value head count", self.kv_heads),
            ("head length", self.head_dim),
            ("feed-forward length", self.ff),
            ("vocabulary size", self.vocab),
            ("context length", self.context),
        ];
        for (what, size) in sizes {
            if size == 0 || size > MAX_DIMENSION {
                return bad(what, format!("{size} is out of range"));
            }
        }
        if self.head_dim > MAX_HEAD_DIM {
            return bad("head length", format!("{} is out of range", self.head_dim));
        }
        if self.layers == 0 || self.layers > MAX_LAYERS {
            return bad("block count", format!("{} is out of range", self.layers));
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return bad("key/value head count", format!("{} does not divide {}", self.kv_heads, self.heads));
        }
        if self.rope_dim == 0 || !self.rope_dim.is_multiple_of(2) || self.rope_dim > self.head_dim {
            return bad("rotary length", format!("{} of a head of {}", self.rope_dim, self.head_dim));
        }
        let finite_positive = |x: f64| x.is_finite() && x > 0.0;
        if !finite_positive(self.rope_base) || !(0.0..1.0).contains(&self.norm_eps) {
            return bad("rotary base or norm epsilon", "not a usable number".into());
        }
        if let Some(scaling) = scaling {
            let factors = scaling.factors(self.rope_base, self.rope_dim);
            if !factors.iter().copied().all(finite_positive) {
                return bad("rotary scaling", "gives a factor that is not a positive number".into());
            }
            self.rope_factors = Some(factors);
        }
        Ok(self)
    }
}

fn scaling_of(path: &Path, rope: &Json) -> Result<Option<RopeScaling>> {
    let kind = rope["rope_type"].as_str().or_else(|| rope["type"].as_str());
    let number = |name: &str| {
        rope[name].as_f64().ok_or_else(|| {
            Error::input(
                path,
                format!("rope scaling: {name}"),
                "missing or not a number",
                "download the folder again",
            )
        })
    };
    match kind {
        None | Some("default") => Ok(None),
        Some("linear") => Ok(Some(RopeScaling::Linear { factor: number("factor")? })),
        Some("llama3") => Ok(Some(RopeScaling::Llama3 {
            factor: number("factor")?,
            low_frequency_factor: number("low_freq_factor")?,
            high_frequency_factor: number("high_freq_factor")?,
            original_context: number("original_max_position_embeddings")?,
        })),
        Some(other) => Err(unknown_scaling(path, "rope scaling", other)),
    }
}

fn unknown_scaling(path: &Path, place: &str, kind: &str) -> Error {
    let problem = format!("rotary scaling '{}' is not known", kind.escape_debug());
    Error::input(path, place, problem, "curmerge knows none, linear and llama3")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama3_scaling_keeps_high_and_divides_low_frequencies() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_frequency_factor: 1.0,
            high_frequency_factor: 4.0,
            original_context: 8192.0,
        };
        let factors = scaling.factors(500000.0, 128);
        assert_eq!((factors[0], factors[63]), (1.0, 8.0));
        assert!(factors.windows(2).all(|w| w[0] <= w[1]), "the divisor grows with the wavelength");
        assert!(factors.iter().any(|f| *f > 1.0 && *f < 8.0), "there is a passage between");
    }
}
