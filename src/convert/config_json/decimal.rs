//! Decimal numbers as their authors wrote them.

/// The shortest decimal number that rounds to the same f32; a number that is no f32 stays as it is. GGUF
/// stores the `1e-5` of a config.json as an f32, and this restores it.
pub(super) fn shortest(number: f64) -> f64 {
    let single = number as f32;
    if f64::from(single) != number {
        return number;
    }
    single.to_string().parse().unwrap_or(number)
}

#[cfg(test)]
mod tests {
    use super::shortest;

    #[test]
    fn numbers_are_written_as_they_were_meant() {
        assert_eq!(shortest(f64::from(1e-5f32)), 1e-5);
        assert_eq!(shortest(f64::from(500000f32)), 500000.0);
        assert_eq!(shortest(0.1), 0.1);
    }
}
