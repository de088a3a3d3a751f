//! Which rule of transformers the rotary factors of a GGUF file follow.
//!
//! convert_hf_to_gguf.py turns Llama 3.1's rule into a table, one divisor a frequency (`rope_freqs.weight`), and drops
//! its parameters. They are found again from the table: where `1 / divisor` passes from 1 to `1 / factor` it is a
//! straight line in the frequency, whose slope and height give the two bounds but for a common scale, which the rule
//! does not depend on; `low_freq_factor` is 1 in every published model. What is found must give the table again.

use std::f64::consts::PI;

use crate::base::{Base, RopeScaling};
use crate::{Error, Result};

/// Divisors in f32, some computed in f32, are equal up to this share.
const SAME: f64 = 2e-5;

/// The rule that gives the model's rotary factors; `None` if it scales none.
pub(super) fn scaling(base: &Base) -> Result<Option<RopeScaling>> {
    let Some(rope) = &base.config().rope else { return Ok(None) };
    let Some(factors) = &rope.factors else { return Ok(None) };
    let number = |key: &str| match base.files() {
        crate::base::Files::Gguf(model) => model.first().get(key).and_then(|value| value.as_f64()),
        crate::base::Files::HuggingFace(_) => None,
    };
    let key = |name: &str| format!("{}.rope.scaling.{name}", base.architecture().gguf);
    let error = |problem: &str| {
        let mend = "transformers' model has no form for it: use the GGUF file as it is";
        Err(Error::input(base.path(), "tensor 'rope_freqs'", problem, mend))
    };
    let linear = number(&key("factor")).is_some_and(|factor| factor != 1.0);
    if base.tensors().contains_key("rope_freqs") && linear {
        return error("the file has rotary factors, and a linear scaling beside them");
    }
    match recover(factors, rope.base, rope.dim, number(&key("original_context_length"))) {
        Some(RopeScaling::Linear { factor: 1.0 }) => Ok(None),
        Some(scaling) => Ok(Some(scaling)),
        None => error("its rotary factors do not follow the rule of Llama 3"),
    }
}

fn recover(factors: &[f64], base: f64, rope_dim: usize, context: Option<f64>) -> Option<RopeScaling> {
    let (&first, &last) = (factors.first()?, factors.last()?);
    if factors.iter().all(|f| *f == first) {
        return Some(RopeScaling::Linear { factor: first });
    }
    candidates(factors, base, rope_dim, context)
        .into_iter()
        .map(|(high, original_context)| RopeScaling::Llama3 {
            factor: last,
            low_frequency_factor: 1.0,
            high_frequency_factor: high,
            original_context,
        })
        .find(|rule| {
            let found = rule.factors(base, rope_dim);
            found.iter().zip(factors).all(|(a, b)| (a - b).abs() <= SAME * b.abs())
        })
}

/// Values of `high_freq_factor` and of the original context that may have given the factors, the likeliest first.
fn candidates(factors: &[f64], base: f64, rope_dim: usize, context: Option<f64>) -> Vec<(f64, f64)> {
    // Llama 3.1 to 3.3, all sizes.
    let mut found = vec![(4.0, 8192.0)];
    found.extend(context.map(|context| (4.0, context)));
    let last = factors[factors.len() - 1];
    let frequency = |i: usize| base.powf(-2.0 * i as f64 / rope_dim as f64);
    let kept = |i: usize| (1.0 / factors[i] - 1.0 / last) / (1.0 - 1.0 / last);
    let high_end = factors.iter().take_while(|f| (**f - 1.0).abs() <= SAME).count();
    let low_end =
        factors.len() - factors.iter().rev().take_while(|f| (**f - last).abs() <= SAME * last).count();
    let mut guess = |high: f64, context: f64| {
        // As written in a configuration, then as measured.
        for high in [high.round(), (2.0 * high).round() / 2.0, high] {
            for context in [(context / 1024.0).round() * 1024.0, context.round(), context] {
                found.push((high, context));
            }
        }
    };
    match low_end.saturating_sub(high_end) {
        0 if high_end > 0 && high_end < factors.len() => {
            // A jump: any bounds do between which no frequency lies.
            let (short, long) = (2.0 * PI / frequency(high_end - 1), 2.0 * PI / frequency(high_end));
            guess(long / short * 0.9, long * 0.95);
        }
        0 => {}
        1 => {
            // One number for two unknowns.
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
        recover(&stored, base, dim, None)
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
        // A common scale of all three makes the same rule.
        assert_eq!(again(&llama3(8.0, 2.0, 8.0, 16384.0), 5e5, 128), Some(llama3(8.0, 1.0, 4.0, 8192.0)));
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
        assert_eq!(recover(&[2.0; 8], 1e4, 16, None), Some(RopeScaling::Linear { factor: 2.0 }));
        for table in
            [&[1.0, 3.0, 2.0, 4.0, 8.0][..], &[8.0, 1.0], &[1.0, 1.1, 1.2, 8.0, 8.0], &[1.0, 1e30, 8.0]]
        {
            assert_eq!(recover(table, 1e4, 2 * table.len(), None), None, "{table:?}");
        }
    }
}
