//! Early stopping: the validation loss has not improved for a number of validations.
//!
//! Everything follows from the losses so far, so a resumed run decides as one that never stopped. A loss
//! equal to the best is no improvement.

/// Steps and loss of the best validation, the earliest among equals.
pub fn best(validation: &[(u64, f64)]) -> Option<(u64, f64)> {
    best_index(validation).map(|index| validation[index])
}

/// Whether the last validation is the best.
pub fn is_best(validation: &[(u64, f64)]) -> bool {
    best_index(validation).is_some_and(|index| index + 1 == validation.len())
}

/// Whether the last `patience` validations were no better than one before them.
pub fn is_over(validation: &[(u64, f64)], patience: u64) -> bool {
    best_index(validation).is_some_and(|index| (validation.len() - 1 - index) as u64 >= patience)
}

fn best_index(validation: &[(u64, f64)]) -> Option<usize> {
    (0..validation.len()).min_by(|&a, &b| validation[a].1.total_cmp(&validation[b].1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_of_equals_is_the_best() {
        let validation = [(5, 2.0), (10, 1.0), (15, 1.0), (20, 1.5)];
        assert_eq!(best(&[]), None);
        assert_eq!(best(&validation), Some((10, 1.0)));
        let best_at: Vec<bool> = (0..=4).map(|n| is_best(&validation[..n])).collect();
        assert_eq!(best_at, [false, true, true, false, false]);
        let over_at: Vec<bool> = (0..=4).map(|n| is_over(&validation[..n], 2)).collect();
        assert_eq!(over_at, [false, false, false, false, true]);
        assert!(is_over(&validation[..3], 1) && !is_over(&validation, 3));
    }
}
