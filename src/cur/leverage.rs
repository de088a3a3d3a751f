//! Leverage scores of columns and rows in the leading singular subspace.
//!
//! Importance, not accuracy, is wanted: a fixed number of iterations.

use super::Norms;
use super::subspace::Subspaces;
use crate::base::Weight;

const ITERATIONS: usize = 8;

/// Sampling weights of columns and rows: squared row norms of the orthonormal bases V and U of the leading
/// `rank` singular directions; zero where the column or row is zero.
pub(super) fn weights(weight: &Weight<'_>, norms: &Norms, rank: usize) -> (Vec<f64>, Vec<f64>) {
    let (m, n) = (weight.rows(), weight.cols());
    let rank = rank.min(m).min(n);
    let Subspaces { left, right } = Subspaces::new(&weight.vector(), norms, rank, ITERATIONS);
    (scores(&right, &norms.cols, rank), scores(&left, &norms.rows, rank))
}

/// Squared row norms; a floor keeps every non-zero column drawable, since a subspace of rank r may miss most
/// of them.
fn scores(basis: &[f64], squared_norms: &[f64], rank: usize) -> Vec<f64> {
    const FLOOR: f64 = 1e-12;
    basis
        .chunks_exact(rank.max(1))
        .zip(squared_norms)
        .map(|(row, &norm)| if norm == 0.0 { 0.0 } else { row.iter().map(|x| x * x).sum::<f64>() + FLOOR })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cur::squared_norms;

    #[test]
    fn leverage_of_a_diagonal_matrix_marks_its_largest_entries() {
        let n = 6;
        let diagonal = [1.0f32, 9.0, 2.0, 8.0, 0.0, 3.0];
        let bytes: Vec<u8> = (0..n * n)
            .flat_map(|i| (if i / n == i % n { diagonal[i / n] } else { 0.0 }).to_le_bytes())
            .collect();
        let w = Weight::from_f32_bytes(n, n, &bytes);
        let (cols, rows) = weights(&w, &squared_norms(&w), 2);
        for scores in [cols, rows] {
            assert!((scores[1] - 1.0).abs() < 1e-9 && (scores[3] - 1.0).abs() < 1e-9, "{scores:?}");
            assert!(scores[0] < 1e-9 && scores[5] < 1e-9, "{scores:?}");
            assert_eq!(scores[4], 0.0, "a row of zeros is never drawn");
        }
    }
}
