//! The rotary embeddings: their keys in config.json, and the rule of transformers that the factors of a GGUF
//! file follow.
//!
//! convert_hf_to_gguf.py turns Llama 3.1's rule into a table with one divisor per frequency
//! (`rope_freqs.weight`), and drops its parameters. This recovers them from the table. Between 1 and `1 /
//! factor`, `1 / divisor` is linear in the frequency. Slope and height of the line give the two bounds up to
//! a common scale, which does not change the rule; `low_freq_factor` is 1 in every published model. The
//! recovered rule must reproduce the table.

use std::f64::consts::PI;

use curmerge_formats::gguf::{Gguf, Value};
use serde_json::{Map, Value as Json, json};

use super::decimal::shortest;
use crate::arch::ClassOption;
use crate::base::{
    Base, Files, Rope, RopeScaling, UNROTATED, long_amplitude, rope_from_json, yarn_amplitude,
};
use crate::convert::to_gguf::{ATTENTION_FACTOR, YARN, YARN_OPTIONS};
use crate::{Error, Result};

/// The rule that changes nothing.
const DEFAULT: &str = "default";
/// Gemma 4's rule.
const PROPORTIONAL: &str = "proportional";
/// GGUF's key of YaRN's weight in the divisor of its amplitude.
const LOG_MULTIPLIER: &str = "rope.scaling.yarn_log_multiplier";
/// Factors of cosines and sines this near to 1 are 1.
const SAME_AMPLITUDE: f64 = 1e-6;
/// The relative tolerance of divisors in f32, some of them computed in f32.
const SAME: f64 = 2e-5;
/// The relative tolerance of divisors that were measured from cosines and sines, perhaps in half precision.
const SAME_MEASURED: f64 = 5e-3;

/// The keys of the rotary embeddings: `rope_parameters`, and those that transformers before 5 reads.
///
/// # Errors
/// Frequencies that no rule of transformers gives; partly rotated heads, if the class rotates whole ones.
pub(super) fn keys(base: &Base, gguf: Option<&Gguf>) -> Result<Map<String, Json>> {
    let config = base.config();
    let Some(rope) = &config.rope else { return Ok(Map::new()) };
    let mut json = Map::new();
    let theta = shortest(rope.base);
    let class = &base.architecture().hugging_face;
    let partial = class.has(ClassOption::PartialRotary);
    if rope.dim != config.head_dim && !partial {
        let problem = format!("it rotates {} of the {} entries of a head", rope.dim, config.head_dim);
        let help = "transformers' model rotates them all: use the model as it is";
        return Err(Error::input(base.path(), "rope.dimension_count", problem, help));
    }
    if class.has(ClassOption::OriginalContext) {
        let key = format!("{}.rope.scaling.original_context_length", base.architecture().name);
        let given = gguf.and_then(|gguf| gguf.get(&key)).and_then(Value::as_u64);
        let long = rope.long.as_ref().map(|long| long.original_context as u64);
        let original = given.or(long).unwrap_or(config.context as u64);
        json.insert("original_max_position_embeddings".into(), original.into());
    }
    if partial {
        let key = class.key("partial_rotary_factor");
        json.insert(key.into(), part(rope.dim, config.head_dim).into());
    }
    let (mut parameters, mut older) = match &rope.long {
        _ if is_yarn(base, gguf) || rope.uncomputed.is_some() => {
            let parameters = yarn(base, gguf, rope)?;
            let mut older = parameters.clone();
            older.remove("rope_theta");
            (parameters, Some(older))
        }
        Some(_) => {
            let (parameters, older) = long(base, rope)?;
            // The older key takes precedence in transformers 5, and before had no such factor.
            let older = (!parameters.contains_key(ATTENTION_FACTOR)).then_some(older);
            (parameters, older)
        }
        None => {
            let parameters = plain(base, rope)?;
            let mut older = parameters.clone();
            older.remove("rope_theta");
            // Classes with the newer rules have no older key.
            let is_scaled =
                parameters.get("rope_type").is_some_and(|kind| kind != DEFAULT && kind != PROPORTIONAL);
            (parameters, is_scaled.then_some(older))
        }
    };
    if partial {
        parameters.insert("partial_rotary_factor".into(), part(rope.dim, config.head_dim).into());
    }
    let sections = format!("{}.rope.dimension_sections", base.architecture().name);
    let sections = gguf.and_then(|gguf| gguf.get(&sections)).and_then(Value::as_i32s);
    if let Some(sections) = sections.filter(|_| class.has(ClassOption::Sections)) {
        for parameters in older.iter_mut().chain([&mut parameters]) {
            parameters.insert("mrope_section".into(), sections.iter().take(3).copied().collect());
            parameters.insert("mrope_interleaved".into(), true.into());
        }
    }
    if class.has(ClassOption::Temperature) {
        let temperature = config.temperature;
        let beta = temperature.map_or(0.0, |temperature| shortest(temperature.beta));
        parameters.insert("llama_4_scaling_beta".into(), beta.into());
        let length = temperature.map_or(config.context, |temperature| temperature.length);
        parameters.entry("original_max_position_embeddings").or_insert(length.into());
        // The class reads the temperature from the newer key, and transformers prefers the older one.
        older = None;
    }
    json.insert(class.key("rope_theta").into(), theta.into());
    // A null would replace `rope_parameters` in transformers 5.23.
    json.extend(older.map(|older| ("rope_scaling".to_owned(), older.into())));
    let own_key = class.has(ClassOption::LocalRope);
    let parameters = if own_key || class.has(ClassOption::RopeByKind) {
        let local = config.local_rope.as_ref().unwrap_or(rope);
        if own_key {
            json.insert("rope_local_base_freq".into(), shortest(local.base).into());
        }
        json!({ "full_attention": parameters, "sliding_attention": plain(base, local)? })
    } else {
        parameters.into()
    };
    json.insert("rope_parameters".into(), parameters);
    Ok(json)
}

/// Whether a GGUF file scales its frequencies by YaRN.
fn is_yarn(base: &Base, gguf: Option<&Gguf>) -> bool {
    let key = format!("{}.rope.scaling.type", base.architecture().name);
    gguf.and_then(|gguf| gguf.get(&key)).and_then(Value::as_str) == Some(YARN)
}

/// YaRN's numbers (arXiv 2309.00071), from a GGUF file.
///
/// # Errors
/// Another rule that is not computed either; a number that is missing.
fn yarn(base: &Base, gguf: Option<&Gguf>, rope: &Rope) -> Result<Map<String, Json>> {
    let (key, problem) = rope.uncomputed.clone().unwrap_or_default();
    let name = |name: &str| format!("{}.{name}", base.architecture().name);
    let value = |key: &str| gguf.and_then(|gguf| gguf.get(&name(key)));
    let number = |key: &str| value(key).and_then(Value::as_f64);
    let refuse =
        |key: String, problem: String| Err(Error::input(base.path(), key, problem, "use the model as it is"));
    if !is_yarn(base, gguf) {
        return refuse(key, problem);
    }
    let Some(factor) = number("rope.scaling.factor") else {
        return refuse(name("rope.scaling.factor"), "missing".into());
    };
    // The amplitude that follows from the factor was rounded to f32 in the file.
    let usual_amplitude = yarn_amplitude(factor, 1.0);
    let original = value("rope.scaling.original_context_length").and_then(Value::as_u64);
    let mut parameters = Map::new();
    parameters.insert("rope_type".into(), YARN.into());
    parameters.insert("rope_theta".into(), shortest(rope.base).into());
    parameters.insert("factor".into(), shortest(factor).into());
    let original = original.unwrap_or(base.config().context as u64);
    parameters.insert("original_max_position_embeddings".into(), original.into());
    if base.architecture().gguf.reads_yarn
        && let Some(multiplier) = number(LOG_MULTIPLIER)
    {
        // llama.cpp takes the weight of the dividend for 1.
        parameters.insert("mscale".into(), 1.0.into());
        parameters.insert("mscale_all_dim".into(), shortest(multiplier).into());
    }
    for (key, names) in YARN_OPTIONS {
        if let Some(value) = number(key) {
            let usual = names.contains(&ATTENTION_FACTOR) && value as f32 == usual_amplitude as f32;
            parameters.insert(names[0].into(), if usual { usual_amplitude } else { shortest(value) }.into());
        }
    }
    if reproduces(base, &parameters, rope) {
        return Ok(parameters);
    }
    // Options that llama.cpp does not read would count in transformers.
    YARN_OPTIONS.iter().for_each(|(_, names)| drop(parameters.remove(names[0])));
    if !same_amplitude(rope.amplitude, usual_amplitude) {
        parameters.insert(ATTENTION_FACTOR.into(), shortest(rope.amplitude).into());
    }
    match reproduces(base, &parameters, rope) {
        true => Ok(parameters),
        false => {
            let problem = "transformers' YaRN gives other frequencies than the file's keys and tensors";
            refuse(name("rope.scaling.type"), problem.into())
        }
    }
}

/// Whether transformers computes these rotary embeddings from these parameters.
fn reproduces(base: &Base, parameters: &Map<String, Json>, rope: &Rope) -> bool {
    let made =
        rope_from_json(base.path(), &parameters.clone().into(), &json!({}), rope.base, (rope.dim, 1.0));
    let near = |(a, b): (&f64, &f64)| (a - b).abs() <= SAME * b.abs();
    made.is_ok_and(|made| {
        let mut factors = made.factors.iter().flatten().zip(rope.factors.iter().flatten());
        same_amplitude(made.amplitude, rope.amplitude) && factors.all(near)
    })
}

fn same_amplitude(a: f64, b: f64) -> bool {
    (a - b).abs() < SAME_AMPLITUDE * b.abs()
}

/// The share of a head that is rotated, such that its product with `head_dim`, rounded down, is `dim`.
fn part(dim: usize, head_dim: usize) -> f64 {
    let part = dim as f64 / head_dim as f64;
    if ((head_dim as f64 * part) as usize) < dim { part.next_up() } else { part }
}

/// LongRoPE's two sets of factors, as `rope_parameters` and as `rope_scaling`.
fn long(base: &Base, rope: &Rope) -> Result<(Map<String, Json>, Map<String, Json>)> {
    let list = |factors: &[f64]| -> Json { factors.iter().map(|&factor| shortest(factor)).collect() };
    let (Some(short), Some(long)) = (&rope.factors, &rope.long) else {
        let problem = "factors for long contexts, and none for short ones";
        return Err(Error::input(
            base.path(),
            "tensor 'rope_factors_long'",
            problem,
            "download the file again",
        ));
    };
    let mut older = Map::new();
    // transformers before 5 accepts exactly these three.
    older.insert("type".into(), "longrope".into());
    older.insert("short_factor".into(), list(short));
    older.insert("long_factor".into(), list(&long.factors));
    let mut parameters = older.clone();
    parameters.remove("type");
    parameters.insert("rope_type".into(), "longrope".into());
    parameters.insert("rope_theta".into(), shortest(rope.base).into());
    parameters.insert("original_max_position_embeddings".into(), long.original_context.into());
    let usual = long_amplitude(base.config().context as f64, long.original_context as f64);
    if (rope.amplitude / usual - 1.0).abs() > 1e-6 {
        parameters.insert(ATTENTION_FACTOR.into(), shortest(rope.amplitude).into());
    }
    Ok((parameters, older))
}

/// The parameters of frequencies without a second set of factors. A factor of cosines and sines is that of
/// YaRN, which keeps the frequencies where its own factor is 1.
///
/// # Errors
/// Frequencies that no rule of transformers gives; both a rule and a factor of cosines and sines.
fn plain(base: &Base, rope: &Rope) -> Result<Map<String, Json>> {
    let scaling = scaling(base, rope)?;
    if (rope.amplitude - 1.0).abs() < SAME_AMPLITUDE {
        return Ok(parameters(scaling.as_ref(), shortest(rope.base)));
    }
    if scaling.is_some() {
        let key = format!("{}.rope.scaling.attn_factor", base.architecture().name);
        let problem = format!("transformers has no factor ({}) beside scaled frequencies", rope.amplitude);
        return Err(Error::input(base.path(), key, problem, "use the model as it is"));
    }
    let pairs = [
        ("rope_type", Json::from(YARN)),
        ("rope_theta", shortest(rope.base).into()),
        ("factor", 1.0.into()),
        ("original_max_position_embeddings", base.config().context.into()),
        ("attention_factor", shortest(rope.amplitude).into()),
    ];
    Ok(pairs.map(|(key, value)| (key.to_owned(), value)).into_iter().collect())
}

fn parameters(scaling: Option<&RopeScaling>, base: f64) -> Map<String, Json> {
    let json = match *scaling.unwrap_or(&RopeScaling::Linear { factor: 1.0 }) {
        RopeScaling::Linear { factor: 1.0 } => json!({ "rope_type": DEFAULT, "rope_theta": base }),
        RopeScaling::Proportional { factor, part } => {
            let mut json =
                json!({ "rope_type": PROPORTIONAL, "rope_theta": base, "partial_rotary_factor": part });
            if factor != 1.0 {
                json["factor"] = shortest(factor).into();
            }
            json
        }
        RopeScaling::Linear { factor } => {
            json!({ "rope_type": "linear", "rope_theta": base, "factor": shortest(factor) })
        }
        RopeScaling::Yarn { factor, original_context, beta_fast, beta_slow, rounded } => json!({
            "rope_type": YARN,
            "rope_theta": base,
            "factor": shortest(factor),
            "original_max_position_embeddings": original_context as u64,
            "beta_fast": beta_fast,
            "beta_slow": beta_slow,
            "truncate": rounded,
        }),
        RopeScaling::Llama3 { factor, low_frequency_factor, high_frequency_factor, original_context } => {
            let whole = original_context.fract() == 0.0;
            json!({
                "rope_type": "llama3",
                "rope_theta": base,
                "factor": shortest(factor),
                "low_freq_factor": low_frequency_factor,
                "high_freq_factor": high_frequency_factor,
                // transformers requires an integer.
                "original_max_position_embeddings":
                    if whole { Json::from(original_context as u64) } else { original_context.into() },
            })
        }
    };
    json.as_object().cloned().unwrap_or_default()
}

/// The rule that gives the model's rotary factors; `None` without scaling.
fn scaling(base: &Base, rope: &Rope) -> Result<Option<RopeScaling>> {
    let Some(factors) = &rope.factors else { return Ok(None) };
    let number = |key: &str| match base.files() {
        Files::Gguf(model) => model.first().get(key).and_then(|value| value.as_f64()),
        _ => None,
    };
    let key = |name: &str| format!("{}.rope.scaling.{name}", base.architecture().name);
    let error = |problem: &str| {
        let help = "transformers' model has no rule for it: use the model as it is";
        Err(Error::input(base.path(), "tensor 'rope_freqs'", problem, help))
    };
    let linear = number(&key("factor")).is_some_and(|factor| factor != 1.0);
    if base.tensors().contains_key("rope_freqs") && linear {
        return error("the file has both rotary factors and linear scaling");
    }
    let same = if matches!(base.files(), Files::Onnx(_)) { SAME_MEASURED } else { SAME };
    match recover(factors, rope.base, rope.dim, number(&key("original_context_length")), same) {
        Some(RopeScaling::Linear { factor: 1.0 }) => Ok(None),
        Some(scaling) => Ok(Some(scaling)),
        None => error("its rotary factors do not follow the rule of Llama 3"),
    }
}

/// The rule that gives these factors, up to the relative tolerance `same`.
fn recover(
    factors: &[f64],
    base: f64,
    rope_dim: usize,
    context: Option<f64>,
    same: f64,
) -> Option<RopeScaling> {
    let near = |a: f64, b: f64| (a - b).abs() <= same * b.abs();
    // A number near an integer was meant to be one.
    let meant = |factor: f64| if near(factor, factor.round()) { factor.round() } else { factor };
    let (&first, last) = (factors.first()?, meant(*factors.last()?));
    let rotated = factors.iter().take_while(|factor| **factor < UNROTATED / 2.0).count();
    if rotated > 0 && rotated < factors.len() && factors[rotated..].iter().all(|f| near(*f, UNROTATED)) {
        let same = factors[..rotated].iter().all(|f| *f == first);
        let rule = RopeScaling::Proportional { factor: meant(first), part: part(2 * rotated, rope_dim) };
        return same.then_some(rule);
    }
    if factors.iter().all(|f| *f == first || same > SAME && near(*f, first)) {
        return Some(RopeScaling::Linear { factor: meant(first) });
    }
    candidates(factors, base, rope_dim, context, same)
        .into_iter()
        .map(|(high, original_context)| RopeScaling::Llama3 {
            factor: last,
            low_frequency_factor: 1.0,
            high_frequency_factor: high,
            original_context,
        })
        .find(|rule| {
            let found = rule.factors(base, rope_dim);
            found.iter().zip(factors).all(|(a, b)| near(*a, *b))
        })
}

/// Values of `high_freq_factor` and of the original context that may give the factors, the likeliest first.
fn candidates(
    factors: &[f64],
    base: f64,
    rope_dim: usize,
    context: Option<f64>,
    same: f64,
) -> Vec<(f64, f64)> {
    // Llama 3.1 to 3.3, all sizes.
    let mut found = vec![(4.0, 8192.0)];
    found.extend(context.map(|context| (4.0, context)));
    let last = factors[factors.len() - 1];
    let frequency = |i: usize| base.powf(-2.0 * i as f64 / rope_dim as f64);
    let kept = |i: usize| (1.0 / factors[i] - 1.0 / last) / (1.0 - 1.0 / last);
    let high_end = factors.iter().take_while(|f| (**f - 1.0).abs() <= same).count();
    let low_end =
        factors.len() - factors.iter().rev().take_while(|f| (**f - last).abs() <= same * last).count();
    let mut guess = |high: f64, context: f64| {
        // First rounded, as in a configuration, then as measured.
        for high in [high.round(), (2.0 * high).round() / 2.0, high] {
            for context in [(context / 1024.0).round() * 1024.0, context.round(), context] {
                found.push((high, context));
            }
        }
    };
    match low_end.saturating_sub(high_end) {
        0 if high_end > 0 && high_end < factors.len() => {
            // A jump: any two bounds with no frequency between them will do.
            let (short, long) = (2.0 * PI / frequency(high_end - 1), 2.0 * PI / frequency(high_end));
            guess(long / short * 0.9, long * 0.95);
        }
        0 => {}
        1 => {
            // One value for two unknowns.
            for high in [4.0, 2.0, 8.0, 16.0, 32.0] {
                guess(high, 2.0 * PI / frequency(high_end) * (kept(high_end) * (high - 1.0) + 1.0));
            }
        }
        _ => {
            let (i, j) = (high_end, low_end - 1);
            let slope = (kept(i) - kept(j)) / (frequency(i) - frequency(j));
            let height = kept(i) - slope * frequency(i);
            let high = 1.0 - 1.0 / height;
            guess(high, slope * 2.0 * PI * (high - 1.0));
        }
    }
    found.retain(|(high, context)| high.is_finite() && *high > 1.0 && context.is_finite() && *context > 0.0);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again(rule: &RopeScaling, base: f64, dim: usize) -> Option<RopeScaling> {
        let stored: Vec<f64> = rule.factors(base, dim).iter().map(|&f| f64::from(f as f32)).collect();
        recover(&stored, base, dim, None, SAME)
    }

    fn llama3(factor: f64, low: f64, high: f64, original_context: f64) -> RopeScaling {
        RopeScaling::Llama3 {
            factor,
            low_frequency_factor: low,
            high_frequency_factor: high,
            original_context,
        }
    }

    #[test]
    fn llama3_is_found_again() {
        for factor in [8.0, 32.0] {
            for dim in [64, 128] {
                let rule = llama3(factor, 1.0, 4.0, 8192.0);
                assert_eq!(again(&rule, 500000.0, dim), Some(rule));
            }
        }
        for (rule, base) in [
            (llama3(4.0, 1.0, 8.0, 2048.0), 1e6),
            (llama3(16.0, 1.0, 4.5, 4000.0), 10000.0),
            (llama3(2.0, 1.0, 2.0, 1024.0), 1e4),
        ] {
            assert_eq!(again(&rule, base, 128), Some(rule));
        }
        // A common scale of all three gives the same rule.
        assert_eq!(again(&llama3(8.0, 2.0, 8.0, 16384.0), 5e5, 128), Some(llama3(8.0, 1.0, 4.0, 8192.0)));
    }

    #[test]
    fn llama3_is_found_among_measured_factors() {
        let rule = llama3(32.0, 1.0, 4.0, 8192.0);
        let off = |(i, factor): (usize, &f64)| factor * (1.0 + 1e-3 * [1.0, -0.7, 0.4][i % 3]);
        let measured: Vec<f64> = rule.factors(5e5, 64).iter().enumerate().map(off).collect();
        assert_eq!(recover(&measured, 5e5, 64, None, SAME_MEASURED), Some(rule));
        assert_eq!(recover(&measured, 5e5, 64, None, SAME), None);
    }

    #[test]
    fn few_frequencies_suffice() {
        for dim in [4, 6, 8, 16] {
            for rule in
                [llama3(8.0, 1.0, 4.0, 300.0), llama3(8.0, 1.0, 4.0, 40.0), llama3(3.0, 1.0, 3.0, 1000.0)]
            {
                let found = again(&rule, 10000.0, dim).unwrap_or_else(|| panic!("{rule:?} of {dim}"));
                let (a, b) = (found.factors(10000.0, dim), rule.factors(10000.0, dim));
                assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-4 * b), "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn other_tables_are_none_of_llama3() {
        assert_eq!(recover(&[2.0; 8], 1e4, 16, None, SAME), Some(RopeScaling::Linear { factor: 2.0 }));
        for table in
            [&[1.0, 3.0, 2.0, 4.0, 8.0][..], &[8.0, 1.0], &[1.0, 1.1, 1.2, 8.0, 8.0], &[1.0, 1e30, 8.0]]
        {
            assert_eq!(recover(table, 1e4, 2 * table.len(), None, SAME), None, "{table:?}");
        }
    }
}
