//! The RoPE scaling of config.json, as GGUF keys or as a tensor.

use serde_json::Value as Json;

use super::folder::Object;
use crate::base::{ntk_alpha, rope_parameters};

/// The key of the context length before RoPE scaling extends it.
pub(super) const ORIGINAL_CONTEXT: &str = "original_max_position_embeddings";

/// Llama 3's scaling: the divisor of each frequency, `[head_dim / 2]`; `None` if the scaling is another.
///
/// The converter computes in single precision with torch. This follows it step by step: a divisor that is
/// rounded differently changes the file.
pub(super) fn llama3_factors(config: &Object, base: f64, head_dim: usize) -> Option<Vec<f32>> {
    let rope = parameters(config)?;
    if !kind(&rope)?.eq_ignore_ascii_case("llama3") {
        return None;
    }
    let number = |name: &str, default: f64| rope.get(name).and_then(Json::as_f64).unwrap_or(default);
    let factor = number("factor", 8.0) as f32;
    let (low, high) = (number("low_freq_factor", 1.0), number("high_freq_factor", 4.0));
    let context = number(ORIGINAL_CONTEXT, 8192.0);
    let (long, short) = ((context / low) as f32, (context / high) as f32);
    let factors = (0..head_dim).step_by(2).map(|i| {
        let exponent = i as f32 / head_dim as f32;
        let frequency = 1.0 / f64::from(base as f32).powf(exponent.into()) as f32;
        // torch divides by a tensor as a product with its reciprocal.
        let wavelength = (1.0 / frequency) * std::f64::consts::TAU as f32;
        if wavelength < short {
            1.0
        } else if wavelength > long {
            factor
        } else {
            let smooth = ((1.0 / wavelength) * context as f32 - low as f32) / (high - low) as f32;
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    });
    Some(factors.collect())
}

/// Whether HunYuan's `alpha` raises the base.
pub(super) fn has_raised_base(config: &Object) -> bool {
    parameters(config).is_some_and(|rope| ntk_alpha(&rope.into()).is_some())
}

/// The divisor of linear scaling, the same for all frequencies.
pub(super) fn linear_factor(config: &Object) -> Option<f64> {
    let rope = parameters(config)?;
    let factor = rope.get("factor").and_then(Json::as_f64)?;
    (kind(&rope)? == "linear").then_some(factor)
}

/// The name of YaRN, in config.json and in GGUF.
pub(in crate::convert) const YARN: &str = "yarn";

/// The numbers of YaRN (arXiv 2309.00071).
pub(super) struct Yarn {
    pub factor: f64,
    pub original_context: usize,
    /// What config.json gives besides: GGUF's keys below the architecture.
    pub options: Vec<(&'static str, f64)>,
}

/// config.json's key of the factor of cosines and sines.
pub(in crate::convert) const ATTENTION_FACTOR: &str = "attention_factor";

/// The names of YaRN's optional numbers: in GGUF below the architecture, and in config.json.
pub(in crate::convert) const YARN_OPTIONS: [(&str, &[&str]); 4] = [
    ("rope.scaling.yarn_ext_factor", &["extrapolation_factor"]),
    ("rope.scaling.yarn_attn_factor", &[ATTENTION_FACTOR, "attn_factor"]),
    ("rope.scaling.yarn_beta_fast", &["beta_fast"]),
    ("rope.scaling.yarn_beta_slow", &["beta_slow"]),
];

/// YaRN's numbers; `None` if the scaling is another, or lacks one that it needs.
pub(super) fn yarn(config: &Object) -> Option<Yarn> {
    let rope = parameters(config).filter(|rope| kind(rope) == Some(YARN))?;
    let number = |name: &&str| rope.get(*name).and_then(Json::as_f64);
    let options = YARN_OPTIONS.into_iter();
    let options = options.filter_map(|(key, names)| Some((key, names.iter().find_map(number)?)));
    Some(Yarn {
        factor: number(&"factor")?,
        original_context: original_context(config, None)?,
        options: options.collect(),
    })
}

/// The parts of a head with positions of their own, in pairs, padded to four.
pub(super) fn sections(config: &Object) -> Option<Vec<i32>> {
    let rope = parameters(config)?;
    let listed = rope.get("mrope_section")?.as_array()?;
    let number = |section: Option<&Json>| section.and_then(Json::as_i64).and_then(|n| i32::try_from(n).ok());
    Some((0..4).map(|i| number(listed.get(i)).unwrap_or(0)).collect())
}

/// YaRN's weight of the logarithm in the divisor of its amplitude.
pub(super) fn log_multiplier(config: &Object) -> Option<f64> {
    parameters(config)?.get("mscale_all_dim").and_then(Json::as_f64)
}

/// The context length before RoPE scaling extends it; `default` is that of the model's class in transformers.
pub(super) fn original_context(config: &Object, default: Option<f64>) -> Option<usize> {
    let given = parameters(config).and_then(|rope| rope.get(ORIGINAL_CONTEXT).cloned());
    match given.or_else(|| config.get(ORIGINAL_CONTEXT).cloned()) {
        Some(number) => number.as_u64().and_then(|n| usize::try_from(n).ok()),
        None => default.map(|number| number as usize),
    }
}

/// The name of config.json's RoPE scaling; `None` if it has none.
pub(super) fn scaling(config: &Object) -> Option<String> {
    let rope = parameters(config)?;
    kind(&rope).filter(|kind| !["default", "mrope"].contains(kind)).map(str::to_owned)
}

/// The RoPE parameters in config.json; if windowed blocks have their own, those of the other blocks.
fn parameters(config: &Object) -> Option<Object> {
    match rope_parameters(|key| config.get(key)) {
        [Json::Object(global), _] => Some(global),
        _ => None,
    }
}

fn kind(rope: &Object) -> Option<&str> {
    ["rope_type", "type"].iter().find_map(|name| rope.get(*name)).and_then(Json::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The values for Llama 3.2 1B are those that torch 2 computes. Of 102240 divisors for other settings,
    /// torch rounds 23 differently: those of one frequency, whose power is halfway between two numbers.
    #[test]
    fn llama3_divisors_are_those_of_torch() {
        let rope = json!({
            "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        });
        for config in [json!({"rope_parameters": rope}), json!({"rope_scaling": rope})] {
            let factors = llama3_factors(config.as_object().unwrap(), 500000.0, 64).unwrap();
            assert!(factors[..15].iter().all(|&factor| factor == 1.0));
            assert_eq!(factors[15..18], [1.651_329_3, 3.292_262_8, 9.666_731]);
            assert!(factors[18..].iter().all(|&factor| factor == 32.0) && factors.len() == 32);
        }
        assert_eq!(llama3_factors(json!({"rope_scaling": null}).as_object().unwrap(), 10000.0, 64), None);
    }
}
