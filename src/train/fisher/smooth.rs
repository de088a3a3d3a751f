//! The part of F that a few texts sample well: Kronecker factors with corrected eigenvalues (EKFAC, George et
//! al. 2018, arXiv 1806.03884).
//!
//! ```text
//! (Q kron P) diag(a) (Q kron P)^T      Q: eigenvectors of Sh = sum of h h^T, P: of Sz = sum of z z^T
//! a_ij = 9/10 (1/T) sum over texts of (Q^T G P)_ij^2 + 1/10 c d_i e_j
//! ```
//!
//! with the eigenvalues d and e of Sh and Sz, each with 1 % of its mean added. c makes both parts of `a` sum to
//! the trace of (1/T) sum of vec(G) vec(G)^T. K-FAC has c d_i e_j alone: it takes h and z, and what the tokens of
//! a text have in common, for independent.

use half::bf16;
use ndarray::{Array2, ArrayView2};

use super::{CONTIGUOUS, widen};
use crate::kernels::eigen::eigen;
use crate::kernels::matmul_single;

/// Share of the measured squares in `a`.
const MEASURED: f64 = 0.9;
/// Added to the eigenvalues of Sh and Sz, as a share of their mean.
const DAMPING: f64 = 0.01;

/// A symmetric matrix `[c r, c r]` over vec(U).
#[derive(Clone, Debug)]
pub(super) struct Smooth {
    /// Q `[c, c]`, eigenvectors as columns.
    pub(super) left: Array2<f32>,
    /// P `[r, r]`.
    pub(super) right: Array2<f32>,
    /// a `[c, r]`.
    pub(super) along: Array2<f32>,
}

impl Smooth {
    /// From Sh `[c, c]`, Sz `[r, r]` and vec(G) of each text `[texts, c r]`, with 1/T in `weight`.
    pub(super) fn new([sh, sz]: [Array2<f32>; 2], samples: &Array2<bf16>, weight: f64) -> Self {
        let [(d, left), (e, right)] = [sh, sz].map(|s| {
            let n = s.nrows();
            let (values, vectors) = eigen(s.iter().map(|&x| f64::from(x)).collect(), n);
            let add = DAMPING * values.iter().sum::<f64>() / n.max(1) as f64;
            let values: Vec<_> = values.iter().map(|value| value.max(0.0) + add).collect();
            (values, Array2::from_shape_fn((n, n), |(i, j)| vectors[i * n + j] as f32))
        });
        let shape = (left.nrows(), right.nrows());
        let (mut g, mut squares) = (Array2::zeros(shape), Array2::<f64>::zeros(shape));
        for row in samples.rows() {
            widen(row.as_slice().expect(CONTIGUOUS), g.as_slice_mut().expect(CONTIGUOUS));
            let rotated = product(left.t(), g.view(), right.view());
            squares.zip_mut_with(&rotated, |sum, &x| *sum += weight * f64::from(x) * f64::from(x));
        }
        let sum = d.iter().sum::<f64>() * e.iter().sum::<f64>();
        let factor = if sum > 0.0 { squares.sum() / sum } else { 0.0 };
        let along = Array2::from_shape_fn(shape, |(i, j)| {
            (MEASURED * squares[[i, j]] + (1.0 - MEASURED) * factor * d[i] * e[j]) as f32
        });
        Self { left, right, along }
    }

    /// Its product with vec(u), shaped as u `[c, r]`, on the calling thread alone.
    pub(super) fn times(&self, u: ArrayView2<f32>) -> Array2<f32> {
        let rotated = product(self.left.t(), u, self.right.view()) * &self.along;
        product(self.left.view(), rotated.view(), self.right.t())
    }
}

/// a x b, on the calling thread alone.
fn product(a: ArrayView2<f32>, x: ArrayView2<f32>, b: ArrayView2<f32>) -> Array2<f32> {
    let (mut left, mut both) = (Array2::zeros(x.dim()), Array2::zeros(x.dim()));
    matmul_single(left.view_mut(), false, a, x);
    matmul_single(both.view_mut(), false, left.view(), b);
    both
}
