//! Numbers in goldens of JSON, and how far others are from them.

use serde_json::Value;

/// All numbers of an array or an array of arrays, row by row.
pub fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(items) => items.iter().flat_map(numbers).collect(),
        number => vec![number.as_f64().expect("a number")],
    }
}

pub fn integers(value: &Value) -> Vec<u32> {
    numbers(value).into_iter().map(|x| x as u32).collect()
}

/// The largest difference, relative to the largest number of `right`.
pub fn error(found: impl IntoIterator<Item = f64>, right: &[f64]) -> f64 {
    let found: Vec<f64> = found.into_iter().collect();
    assert_eq!(found.len(), right.len());
    let largest = right.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    let differences = found.iter().zip(right).map(|(a, b)| (a - b).abs());
    // `max` passes over NaN, which must not count as equal.
    let worst = differences.map(|d| if d.is_nan() { f64::INFINITY } else { d }).fold(0.0, f64::max);
    worst / largest
}

/// Log-probabilities of logits.
pub fn log_softmax(logits: &[f64]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum = logits.iter().map(|x| (x - largest).exp()).sum::<f64>().ln() + largest;
    logits.iter().map(|x| x - sum).collect()
}
