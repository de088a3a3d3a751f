//! The leading singular subspaces of a matrix, by block power iteration.
//!
//! Plain loops in f64 with + - * / and the exactly rounded square root, in a fixed order, so the result is
//! the same bits on every machine.

use rayon::prelude::*;

use super::Norms;

/// Orthonormal bases of the leading `rank` left and right singular directions of W `[m, n]`, after a number
/// of iterations.
pub(crate) struct Subspaces {
    /// `[m, rank]`, row by row.
    pub(crate) left: Vec<f64>,
    /// `[n, rank]`, row by row.
    pub(crate) right: Vec<f64>,
}

impl Subspaces {
    /// From the numbers of W, row by row, and their [`Norms`]. `rank` is at most m and n.
    pub(crate) fn new(w: &[f32], norms: &Norms, rank: usize, iterations: usize) -> Self {
        let (m, n) = (norms.rows.len(), norms.cols.len());
        // Start from unit directions spread over the columns with the largest norms: deterministic and never
        // orthogonal to the whole of W.
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|&a, &b| norms.cols[b].total_cmp(&norms.cols[a]).then(a.cmp(&b)));
        let mut right = vec![0.0; n * rank];
        for (k, &col) in order.iter().take(rank).enumerate() {
            right[col * rank + k] = 1.0;
        }
        let mut left = vec![0.0; m * rank];
        for _ in 0..iterations {
            times(w, n, &right, &mut left, rank);
            orthonormalise(&mut left, rank);
            transposed_times(w, n, &left, &mut right, rank);
            orthonormalise(&mut right, rank);
        }
        Self { left, right }
    }
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
pub(crate) fn transposed_times(w: &[f32], n: usize, u: &[f64], v: &mut [f64], rank: usize) {
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
