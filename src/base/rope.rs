//! Rotary position embeddings, and the rules that scale their frequencies for longer contexts.

use std::path::Path;

use serde_json::Value as Json;

use crate::{Error, Result};

/// Wider heads are damage or an attack, not a model; nothing is allocated for them.
pub(super) const MAX_HEAD_DIM: usize = 1 << 14;

/// Rotary position embeddings (RoFormer, arXiv 2104.09864).
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base b of the frequencies `b^(-2i / dim)`.
    pub base: f64,
    /// The number of leading entries of a head that are rotated; even.
    pub dim: usize,
    /// A divisor per frequency, `[dim / 2]`, if the model scales them.
    pub factors: Option<Vec<f64>>,
    /// Other divisors for long contexts.
    pub long: Option<LongRope>,
    /// Factor of cosines and sines.
    pub amplitude: f64,
    /// The longest sequence, in tokens, of which these are the frequencies, if those of longer ones depend on their length
    /// (dynamic NTK).
    pub longest: Option<usize>,
    /// What the file asks for besides, and no computation here follows: the key, and the problem. A merge or
    /// a conversion needs no frequencies.
    pub uncomputed: Option<(String, String)>,
}

/// The divisors of frequencies for contexts longer than the original one (LongRoPE, arXiv 2402.13753).
#[derive(Clone, Debug, PartialEq)]
pub struct LongRope {
    /// A divisor per frequency, `[dim / 2]`.
    pub factors: Vec<f64>,
    /// The longest context, in tokens, that does not use them.
    pub original_context: usize,
}

impl Rope {
    /// Unscaled frequencies.
    pub fn plain(base: f64, dim: usize) -> Self {
        Self { base, dim, factors: None, long: None, amplitude: 1.0, longest: None, uncomputed: None }
    }

    /// The frequencies in radians per position for contexts of `context` tokens, `[dim / 2]`.
    pub fn frequencies(&self, context: usize) -> Vec<f64> {
        let long = self.long.as_ref().filter(|long| context > long.original_context);
        let factors = long.map(|long| &long.factors).or(self.factors.as_ref());
        let plain = |i: usize| self.base.powf(-2.0 * i as f64 / self.dim as f64);
        (0..self.dim / 2).map(|i| plain(i) / factors.map_or(1.0, |f| f[i])).collect()
    }

    /// What makes it invalid for a head of this width: the place and the problem.
    pub(super) fn problem(&self, head_dim: usize) -> Option<(&'static str, String)> {
        let finite_positive = |x: f64| x.is_finite() && x > 0.0;
        if self.dim == 0 || !self.dim.is_multiple_of(2) || self.dim > head_dim {
            return Some(("rotary length", format!("{} of a head of {head_dim}", self.dim)));
        }
        if !finite_positive(self.base) || !finite_positive(self.amplitude) {
            return Some(("rotary base or factor", "not a usable number".into()));
        }
        for factors in self.factors.iter().chain(self.long.as_ref().map(|long| &long.factors)) {
            if factors.len() != self.dim / 2 {
                return Some((
                    "rotary scaling",
                    format!("{} factors of {} frequencies", factors.len(), self.dim / 2),
                ));
            }
            if !factors.iter().copied().all(finite_positive) {
                return Some(("rotary scaling", "gives a factor that is not a positive number".into()));
            }
        }
        None
    }
}

/// A rule of Hugging Face's `rope_scaling` (or `rope_parameters`) that scales the rotary frequencies.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// Divides every frequency by the same number.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Llama 3.1: divides low frequencies, keeps high ones, and interpolates between.
    Llama3 {
        /// The divisor of low frequencies.
        factor: f64,
        /// Wavelengths above `original_context / low_frequency_factor` are divided.
        low_frequency_factor: f64,
        /// Wavelengths below `original_context / high_frequency_factor` are kept.
        high_frequency_factor: f64,
        /// Context length before scaling, in tokens.
        original_context: f64,
    },
    /// YaRN (arXiv 2309.00071): keeps the frequencies that turn often within the original context, divides
    /// those that turn rarely, and interpolates between, linearly in the pair's index.
    Yarn {
        /// The divisor of low frequencies.
        factor: f64,
        /// Context length before scaling, in tokens.
        original_context: f64,
        /// Frequencies with at least this many turns within the original context are kept.
        beta_fast: f64,
        /// Frequencies with at most this many turns are divided.
        beta_slow: f64,
        /// Whether the two bounds are rounded outwards to whole pairs.
        rounded: bool,
    },
    /// Gemma 4: divides the frequencies of the first pairs, and does not rotate the others.
    Proportional {
        /// The divisor.
        factor: f64,
        /// The share of pairs that are rotated.
        part: f64,
    },
}

/// The divisor of a frequency that does not count, as llama.cpp's converter writes it.
pub const UNROTATED: f64 = 1e30;

/// YaRN's bounds of turns, where nothing else is said (arXiv 2309.00071, section 3.2).
pub const YARN_BETAS: [f64; 2] = [32.0, 1.0];

/// YaRN as llama.cpp computes it: the rule, and the factor of cosines and sines. `multiplier` is the weight of the
/// logarithm in that factor's divisor.
pub fn yarn_of_llama_cpp(
    factor: f64,
    original_context: f64,
    [beta_fast, beta_slow]: [f64; 2],
    multiplier: Option<f64>,
) -> (RopeScaling, f64) {
    // 0 is none.
    let divisor =
        multiplier.filter(|&weight| weight != 0.0).map_or(1.0, |weight| yarn_amplitude(factor, weight));
    let rule = RopeScaling::Yarn { factor, original_context, beta_fast, beta_slow, rounded: true };
    (rule, yarn_amplitude(factor, 1.0) / divisor)
}

/// The factor of cosines and sines by which YaRN compensates for contexts that are `factor` times as long.
pub fn yarn_amplitude(factor: f64, weight: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * weight * factor.ln() + 1.0 }
}

impl RopeScaling {
    /// The divisor of each of the `rope_dim / 2` frequencies `base^(-2i / rope_dim)`.
    pub fn factors(&self, base: f64, rope_dim: usize) -> Vec<f64> {
        let frequency = |i: usize| base.powf(-2.0 * i as f64 / rope_dim as f64);
        // The pair that turns this often within the original context, as a number between pairs.
        let pair = |turns: f64, context: f64| {
            rope_dim as f64 * (context / (turns * 2.0 * std::f64::consts::PI)).ln() / (2.0 * base.ln())
        };
        (0..rope_dim / 2)
            .map(|i| match *self {
                RopeScaling::Linear { factor } => factor,
                RopeScaling::Proportional { factor, part } => {
                    if i < (part * rope_dim as f64 / 2.0) as usize {
                        factor
                    } else {
                        UNROTATED
                    }
                }
                RopeScaling::Yarn { factor, original_context, beta_fast, beta_slow, rounded } => {
                    let (mut low, mut high) =
                        (pair(beta_fast, original_context), pair(beta_slow, original_context));
                    if rounded {
                        (low, high) = (low.floor(), high.ceil());
                    }
                    let (low, high) = (low.max(0.0), high.min(rope_dim as f64 - 1.0));
                    let divided = ((i as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
                    1.0 / (divided / factor + 1.0 - divided)
                }
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

/// HunYuan's `alpha`: a fixed one makes its rule "dynamic" one of the base alone.
pub(crate) fn ntk_alpha(parameters: &Json) -> Option<f64> {
    let kind = parameters["rope_type"].as_str().or_else(|| parameters["type"].as_str());
    parameters["alpha"].as_f64().filter(|&alpha| kind == Some("dynamic") && alpha != 0.0)
}

/// The base that NTK-aware scaling gives for heads of this length (transformers' `compute_ntk_alpha_rope_parameters`).
pub(crate) fn raised_base(base: f64, alpha: f64, head_dim: usize) -> f64 {
    base * alpha.powf(head_dim as f64 / (head_dim as f64 - 2.0))
}

/// The factor of cosines and sines that LongRoPE derives when contexts grow from `original` to `context`
/// tokens.
pub fn long_amplitude(context: f64, original: f64) -> f64 {
    let growth = context / original;
    if growth > 1.0 { (1.0 + growth.ln() / original.ln()).sqrt() } else { 1.0 }
}

/// The rotary parameters of a config.json by its keys: those of all blocks or of the blocks without a window, and those of
/// blocks with one, if they have their own. What is missing is null. The older key, `rope_scaling`, takes precedence
/// in transformers, too.
pub(crate) fn parameters<'j>(key: impl Fn(&str) -> Option<&'j Json>) -> [Json; 2] {
    let parameters = key("rope_parameters").unwrap_or(&Json::Null);
    let older = key("rope_scaling").and_then(Json::as_object).filter(|scaling| !scaling.is_empty());
    match (parameters["full_attention"].as_object(), older) {
        (None, None) => [parameters.clone(), Json::Null],
        (None, Some(older)) => [older.clone().into(), Json::Null],
        (Some(global), older) => {
            let mut global = global.clone();
            global.extend(older.cloned().unwrap_or_default());
            // transformers looks for it beside the two.
            global.remove("truncate");
            [global.into(), parameters["sliding_attention"].clone()]
        }
    }
}

/// Rotary embeddings from `rope`, the `rope_scaling` or `rope_parameters` of a config.json; keys that it
/// lacks are looked up in `json`. `part` of a head is rotated, if neither says otherwise.
pub(crate) fn from_json(
    path: &Path,
    rope: &Json,
    json: &Json,
    base: f64,
    (head_dim, part): (usize, f64),
) -> Result<Rope> {
    let bad =
        |place: String, problem: String| Error::input(path, place, problem, "download the folder again");
    let lookup = |name: &str| if rope[name].is_null() { &json[name] } else { &rope[name] };
    let number = |name: &str| {
        lookup(name)
            .as_f64()
            .ok_or_else(|| bad(format!("rope scaling: {name}"), "missing or not a number".into()))
    };
    let part = lookup("partial_rotary_factor").as_f64().unwrap_or(part);
    let kind = rope["rope_type"].as_str().or_else(|| rope["type"].as_str());
    let proportional =
        (kind == Some("proportional")).then(|| rope["partial_rotary_factor"].as_f64().unwrap_or(1.0));
    let part = if proportional.is_some() { 1.0 } else { part };
    let mut made = Rope::plain(base, (head_dim as f64 * part) as usize);
    // Checked before anything of that length is allocated.
    if head_dim > MAX_HEAD_DIM {
        return Err(bad("head length".into(), format!("{head_dim} is out of range")));
    }
    if made.dim > head_dim || made.dim == 0 {
        return Err(bad("partial_rotary_factor".into(), format!("{part} is not a fraction of a head")));
    }
    if let Some(part) = proportional.filter(|part| !(0.0..=1.0).contains(part)) {
        return Err(bad("partial_rotary_factor".into(), format!("{part} is not a fraction of a head")));
    }
    let scaling = match kind {
        // Of a text, M-RoPE gives all parts of a head the same position.
        None | Some("default" | "mrope") => None,
        // Longer sequences alone have other frequencies.
        Some("dynamic") => {
            made.longest = Some(json["max_position_embeddings"].as_u64().unwrap_or(2048) as usize);
            None
        }
        Some("linear") => Some(RopeScaling::Linear { factor: number("factor")? }),
        Some("proportional") => Some(RopeScaling::Proportional {
            factor: rope["factor"].as_f64().unwrap_or(1.0),
            part: proportional.unwrap_or(1.0),
        }),
        Some("llama3") => Some(RopeScaling::Llama3 {
            factor: number("factor")?,
            low_frequency_factor: number("low_freq_factor")?,
            high_frequency_factor: number("high_freq_factor")?,
            original_context: number("original_max_position_embeddings")?,
        }),
        Some("longrope" | "su") => {
            let factors = |name: &str| -> Result<Vec<f64>> {
                let list = rope[name].as_array().map(|list| list.iter().filter_map(Json::as_f64).collect());
                list.ok_or_else(|| {
                    bad(format!("rope scaling: {name}"), "missing or not a list of numbers".into())
                })
            };
            let original = number("original_max_position_embeddings")?;
            made.factors = Some(factors("short_factor")?);
            made.long =
                Some(LongRope { factors: factors("long_factor")?, original_context: original as usize });
            let context = json["max_position_embeddings"].as_f64().unwrap_or(original);
            made.amplitude =
                rope["attention_factor"].as_f64().unwrap_or_else(|| long_amplitude(context, original));
            None
        }
        Some("yarn") => {
            let context = json["max_position_embeddings"].as_f64();
            // A key beside the parameters takes precedence.
            let beside = json["original_max_position_embeddings"].as_f64();
            let given = rope["original_max_position_embeddings"].as_f64();
            let original = beside.or(given).or(context);
            let original = original.map_or_else(|| number("original_max_position_embeddings"), Ok)?;
            let factor = rope["factor"].as_f64().or(context.map(|context| context / original));
            let factor = factor.map_or_else(|| number("factor"), Ok)?;
            // 0 is none, as in transformers.
            let given = |name: &str| rope[name].as_f64().filter(|number| *number != 0.0);
            made.amplitude =
                match (rope["attention_factor"].as_f64(), given("mscale"), given("mscale_all_dim")) {
                    (Some(amplitude), ..) => amplitude,
                    (None, Some(own), Some(all)) => yarn_amplitude(factor, own) / yarn_amplitude(factor, all),
                    _ => yarn_amplitude(factor, 1.0),
                };
            let beta_fast = given("beta_fast").unwrap_or(YARN_BETAS[0]);
            let beta_slow = given("beta_slow").unwrap_or(YARN_BETAS[1]);
            if beta_fast < beta_slow {
                return Err(bad("rope scaling: beta_fast".into(), "smaller than beta_slow".into()));
            }
            let rounded = match rope.get("truncate") {
                None => true,
                Some(flag) => !flag.is_null() && *flag != false && *flag != 0,
            };
            Some(RopeScaling::Yarn { factor, original_context: original, beta_fast, beta_slow, rounded })
        }
        Some(other) => {
            made.uncomputed = Some(("rope scaling".into(), unknown_scaling(other)));
            None
        }
    };
    if let Some(scaling) = scaling {
        made.factors = Some(scaling.factors(made.base, made.dim));
    }
    Ok(made)
}

pub(super) fn unknown_scaling(kind: &str) -> String {
    format!(
        "rotary scaling '{}' is not computed: only none, linear, dynamic, llama3, yarn, longrope and proportional are",
        kind.escape_debug()
    )
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
        assert!(factors.iter().any(|f| *f > 1.0 && *f < 8.0), "frequencies between are interpolated");
    }

    #[test]
    fn long_contexts_have_their_own_factors() {
        let long = LongRope { factors: vec![4.0, 8.0], original_context: 16 };
        let rope = Rope { factors: Some(vec![1.0, 2.0]), long: Some(long), ..Rope::plain(100.0, 4) };
        assert_eq!(rope.frequencies(16), [1.0, 0.05]);
        assert_eq!(rope.frequencies(17), [0.25, 0.1 / 8.0]);
        assert_eq!(rope.problem(4), None);
        assert!(rope.problem(2).is_some());
    }
}
