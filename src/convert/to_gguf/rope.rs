//! How config.json stretches the rotary frequencies, as keys or as a tensor.

use serde_json::Value as Json;

use super::folder::Object;

/// Llama 3's stretching: the divisor of each frequency.
///
/// The converter computes in single precision with torch, and so do we, step by step: a divisor rounded otherwise would
/// be another file.
pub(super) fn llama3_factors(config: &Object, base: f64, head_dim: usize) -> Option<Vec<f32>> {
    let rope = parameters(config)?;
    if !kind(rope)?.eq_ignore_ascii_case("llama3") {
        return None;
    }
    let number = |name: &str, default: f64| rope.get(name).and_then(Json::as_f64).unwrap_or(default);
    let factor = number("factor", 8.0) as f32;
    let (low, high) = (number("low_freq_factor", 1.0), number("high_freq_factor", 4.0));
    let context = number("original_max_position_embeddings", 8192.0);
    let (long, short) = ((context / low) as f32, (context / high) as f32);
    let factors = (0..head_dim).step_by(2).map(|i| {
        let exponent = i as f32 / head_dim as f32;
        let frequency = 1.0 / f64::from(base as f32).powf(exponent.into()) as f32;
        // torch divides by multiplying with the reciprocal where the divisor is the tensor.
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

/// The divisor of all frequencies, where there is one.
pub(super) fn linear_factor(config: &Object) -> Option<f64> {
    let rope = parameters(config)?;
    let factor = rope.get("factor").and_then(Json::as_f64)?;
    (kind(rope)? == "linear").then_some(factor)
}

/// The context before frequencies are stretched, of a phi3.
pub(super) fn original_context(config: &Object) -> Option<usize> {
    const NAME: &str = "original_max_position_embeddings";
    let given = parameters(config).and_then(|rope| rope.get(NAME)).or_else(|| config.get(NAME));
    // transformers' own, where config.json says nothing.
    given.map_or(Some(4096), |number| number.as_u64().and_then(|n| usize::try_from(n).ok()))
}

/// How config.json says that frequencies are stretched; `None` if not at all.
pub(super) fn stretching(config: &Object) -> Option<&str> {
    kind(parameters(config)?).filter(|kind| *kind != "default")
}

/// What config.json says of rotary embeddings; of two kinds of blocks, those that see everything.
fn parameters(config: &Object) -> Option<&Object> {
    let named = |name: &str| config.get(name).and_then(Json::as_object);
    let rope = named("rope_parameters").or_else(|| named("rope_scaling"))?;
    Some(rope.get("full_attention").and_then(Json::as_object).unwrap_or(rope))
}

fn kind(rope: &Object) -> Option<&str> {
    ["rope_type", "type"].iter().find_map(|name| rope.get(*name)).and_then(Json::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Of Llama 3.2 1B, as torch 2 computes them. Of 102240 divisors for other settings torch rounds 23 otherwise, those
    /// of one frequency whose power is halfway between two numbers.
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
