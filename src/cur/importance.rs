//! Squared norms of columns and rows, and the weights drawn from them.

use rayon::prelude::*;

use super::Selection;
use crate::base::Weight;

/// What the paper's code adds to each share before it is inverted.
const REFERENCE_OFFSET: f64 = 0.001;
/// Columns whose sums one thread carries down the matrix at a time.
const COLUMN_TILE: usize = 1024;

/// Squared Euclidean norms of a matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Norms {
    /// One a column: `[cols]`, summed from the first canonical row to the last.
    pub cols: Vec<f64>,
    /// One a row: `[rows]`, summed from the first column to the last.
    pub rows: Vec<f64>,
}

impl Norms {
    /// The squared Frobenius norm, as the sum of the columns' in order.
    pub fn total(&self) -> f64 {
        self.cols.iter().sum()
    }
}

/// The squared norms of every column and row, summed in f64 in the canonical layout's order.
pub fn squared_norms(weight: &Weight<'_>) -> Norms {
    let mut norms = Norms { cols: vec![0.0; weight.cols()], rows: Vec::with_capacity(weight.rows()) };
    for (rows, values) in weight.stream() {
        norms.rows.par_extend(
            values.par_chunks_exact(weight.cols()).map(|row| row.iter().map(|&v| square(v)).sum::<f64>()),
        );
        norms.cols.par_chunks_mut(COLUMN_TILE).enumerate().for_each(|(tile, sums)| {
            for row in 0..rows.len() {
                let start = row * weight.cols() + tile * COLUMN_TILE;
                for (sum, &v) in sums.iter_mut().zip(&values[start..]) {
                    *sum += square(v);
                }
            }
        });
    }
    norms
}

fn square(v: f32) -> f64 {
    f64::from(v) * f64::from(v)
}

/// The unnormalised probability of drawing each column (or row); zero for one of zeros.
pub(super) fn weights(squared: &[f64], selection: Selection) -> Vec<f64> {
    let total: f64 = squared.iter().sum();
    squared
        .iter()
        .map(|&norm| match selection {
            _ if norm == 0.0 => 0.0,
            Selection::Inverse => total / norm,
            Selection::Reference => 1.0 / (norm / total + REFERENCE_OFFSET),
            Selection::Uniform | Selection::Leverage => 1.0,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn norms_are_those_of_the_definition() {
        let values = [3.0f32, 0.0, 4.0, 1.0, 0.0, -2.0];
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let norms = squared_norms(&Weight::from_f32_bytes(2, 3, &bytes));
        assert_eq!(norms, Norms { cols: vec![10.0, 0.0, 20.0], rows: vec![25.0, 5.0] });
        assert_eq!(weights(&norms.cols, Selection::Inverse), [3.0, 0.0, 1.5]);
        assert_eq!(weights(&norms.rows, Selection::Uniform), [1.0, 1.0]);
        let reference = weights(&norms.rows, Selection::Reference);
        assert_eq!(reference, [1.0 / (25.0 / 30.0 + 0.001), 1.0 / (5.0 / 30.0 + 0.001)]);
    }
}
