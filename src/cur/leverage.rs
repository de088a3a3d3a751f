//! Leverage scores of columns and rows in the leading singular subspace, by block power iteration.
//!
//! Plain loops in f64 with + - * / and the exactly rounded square root, so the scores, like everything the
//! index sets depend on, are the same bits on every machine. Importance, not accuracy, is wanted: a fixed
//! number of iterations.

use rayon::prelude::*;

use super::Norms;
use crate::base::Weight;

const ITERATIONS: usize = 8;

/// Sampling weights of columns and rows: squared row norms of the orthonormal bases V and U of the leading
/// `rank` singular directions; zero where the column or row is zero.
pub(super) fn weights(weight: &Weight<'_>, norms: &Norms, rank: usize) -> (Vec<f64>, Vec<f64>) {
    let (m, n) = (weight.rows(), weight.cols());
    let rank = rank.min(m).min(n);
    let w = weight.vector();
    // Start from unit directions spread over the columns with the largest norms: deterministic and never
    // orthogonal to the whole of W.
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| norms.cols[b].total_cmp(&norms.cols[a]).then(a.cmp(&b)));
    let mut v = vec![0.0; n * rank];
    for (k, &col) in order.iter().take(rank).enumerate() {
        v[col * rank + k] = 1.0;
    }
    let mut u = vec![0.0; m * rank];
    for _ in 0..ITERATIONS {
        times(&w, n, &v, &mut u, rank);
        orthonormalise(&mut u, rank);
        transposed_times(&w, n, &u, &mut v, rank);
        orthonormalise(&mut v, rank);
    }
    (scores(&v, &norms.cols, rank), scores(&u, &norms.rows, rank))
}

/// `u = W v`, each row by one thread in order.
fn times(w: &[f32], n: usize, v: &[f64], u: &mut [f64], rank: usize) {
    u.par_chunks_exact_mut(rank).zip(w.par_chunks_exact(n)).for_each(|(out, row)| {
        out.fill(0.0);
        for (&x, v) in row.iter().zip(v.chunks_exact(rank)) {
            for (o, &v) in out.iter_mut().zip(v) {
                *o += f64::from(x) * v;
            }
        }
    });
}

/// `v = W^T u`, each column's sum from the first row to the last.
fn transposed_times(w: &[f32], n: usize, u: &[f64], v: &mut [f64], rank: usize) {
    const TILE: usize = 64;
    v.par_chunks_mut(TILE * rank).enumerate().for_each(|(tile, out)| {
        out.fill(0.0);
        for (row, u) in w.chunks_exact(n).zip(u.chunks_exact(rank)) {
            for (out, &x) in out.chunks_exact_mut(rank).zip(&row[tile * TILE..]) {
                for (o, &u) in out.iter_mut().zip(u) {
                    *o += f64::from(x) * u;
                }
            }
        }
    });
}

/// Modified Gram-Schmidt on the columns of a row-major `[rows, rank]` matrix, twice; a column that vanishes
/// becomes zero.
fn orthonormalise(a: &mut [f64], rank: usize) {
    for k in 0..rank {
        let before = norm(a, k, rank);
        for _ in 0..2 {
            for j in 0..k {
                let dot: f64 = a.chunks_exact(rank).map(|row| row[j] * row[k]).sum();
                a.chunks_exact_mut(rank).for_each(|row| row[k] -= dot * row[j]);
            }
        }
        let after = norm(a, k, rank);
        let scale = if after > before * 1e-10 { 1.0 / after } else { 0.0 };
        a.chunks_exact_mut(rank).for_each(|row| row[k] *= scale);
    }
}

fn norm(a: &[f64], k: usize, rank: usize) -> f64 {
    a.chunks_exact(rank).map(|row| row[k] * row[k]).sum::<f64>().sqrt()
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
