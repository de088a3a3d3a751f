//! The marks of an axis, at round numbers.

/// Marks within a range, about `count` of them, and what is written at each.
pub(super) fn marks((low, high): (f64, f64), count: usize) -> Vec<(f64, String)> {
    let rough = (high - low) / count.max(1) as f64;
    if rough <= 0.0 || !rough.is_finite() {
        return Vec::new();
    }
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|step| *step >= rough * (1.0 - 1e-9));
    let step = step.unwrap_or(10.0 * power);
    let digits = (-step.log10().floor()).clamp(0.0, 12.0) as usize;
    let (first, last) = ((low / step - 1e-9).ceil() as i64, (high / step + 1e-9).floor() as i64);
    (first..=last).take(100).map(|i| i as f64 * step).map(|x| (x, written(x, step, digits))).collect()
}

/// A mark's number: with the digits that tell it from the next, or with a power of ten.
fn written(x: f64, step: f64, digits: usize) -> String {
    match step < 1e-4 || x.abs() >= 1e6 {
        true if x == 0.0 => "0".to_owned(),
        true => format!("{x:.1e}"),
        false => format!("{x:.digits$}"),
    }
}

#[cfg(test)]
mod tests {
    use super::marks;

    #[test]
    fn marks_are_round() {
        let shown = |range, count| marks(range, count).into_iter().map(|(_, text)| text).collect::<Vec<_>>();
        assert_eq!(shown((0.0, 100.0), 5), ["0", "20", "40", "60", "80", "100"]);
        assert_eq!(shown((0.13, 0.52), 4), ["0.2", "0.3", "0.4", "0.5"]);
        assert_eq!(shown((1.0, 1.0), 4), [""; 0]);
        assert_eq!(shown((0.0, 3e-5), 3), ["0", "1.0e-5", "2.0e-5", "3.0e-5"]);
        assert!(marks((0.0, f64::MAX), 4).len() < 10);
    }
}
