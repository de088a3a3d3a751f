//! Numbers in JSON goldens, and the error of other numbers.

use serde_json::Value;

/// All numbers of an array or of nested arrays, row by row.
pub fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(items) => items.iter().flat_map(numbers).collect(),
        number => vec![number.as_f64().expect("a number")],
    }
}

/// The same for token ids and indices.
pub fn integers(value: &Value) -> Vec<u32> {
    numbers(value).into_iter().map(|x| x as u32).collect()
}

/// The largest difference, relative to the largest absolute value of `right`. NaN gives infinity.
pub fn error(found: impl IntoIterator<Item = f64>, right: &[f64]) -> f64 {
    let found: Vec<f64> = found.into_iter().collect();
    assert_eq!(found.len(), right.len());
    let largest = right.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    let differences = found.iter().zip(right).map(|(a, b)| (a - b).abs());
    // `max` ignores NaN, which must not count as equal.
    let worst = differences.map(|d| if d.is_nan() { f64::INFINITY } else { d }).fold(0.0, f64::max);
    worst / largest
}

/// The natural log-probabilities of logits.
pub fn log_softmax(logits: &[f64]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum = logits.iter().map(|x| (x - largest).exp()).sum::<f64>().ln() + largest;
    logits.iter().map(|x| x - sum).collect()
}
