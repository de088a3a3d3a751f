//! Symmetric matrices of which each pair of equal numbers is kept once: second moments of inputs and
//! gradients.
//!
//! A matrix `[n, n]` is cut into blocks of [`BLOCK`] rows. Of each, the columns from its own first row on are
//! kept.

use half::bf16;
use ndarray::{Array2, ArrayView2, s};
use rayon::prelude::*;

use super::{CONTIGUOUS, widen};
use crate::kernels::{bf16 as rounding, matmul_single};

/// Rows of a block.
const BLOCK: usize = 128;

/// A sum of v^T v over arrays v `[tokens, n]`.
#[derive(Debug)]
pub(super) struct MomentSum {
    /// `[rows of the block, n - first row]` each.
    blocks: Vec<Array2<f32>>,
}

/// A symmetric matrix in bfloat16.
#[derive(Clone, Debug)]
pub(super) struct Symmetric {
    blocks: Vec<Array2<bf16>>,
}

impl MomentSum {
    /// The zeros `[n, n]`.
    pub(super) fn zeros(n: usize) -> Self {
        let first_rows = (0..n).step_by(BLOCK);
        Self { blocks: first_rows.map(|first| Array2::zeros((BLOCK.min(n - first), n - first))).collect() }
    }

    /// Adds v^T v, from v `[tokens, n]`. A block is summed by one thread.
    pub(super) fn add(&mut self, v: ArrayView2<f32>) {
        self.blocks.par_iter_mut().enumerate().for_each(|(i, block)| {
            let first = i * BLOCK;
            let rows = v.slice(s![.., first..first + block.nrows()]);
            matmul_single(block.view_mut(), true, rows.t(), v.slice(s![.., first..]));
        });
    }

    /// The sum with a share of its mean diagonal added to the diagonal, rounded to bfloat16, and its trace.
    pub(super) fn damped(self, share: f32) -> (Symmetric, f64) {
        let size = self.blocks.first().map_or(0, Array2::ncols);
        let diagonal: f64 = self.blocks.iter().flat_map(|b| b.diag().to_vec()).map(f64::from).sum();
        let add = f64::from(share) * diagonal / size.max(1) as f64;
        let round = |mut block: Array2<f32>| {
            block.diag_mut().iter_mut().for_each(|x| *x += add as f32);
            let mut rounded = Array2::from_elem(block.dim(), bf16::ZERO);
            use half::slice::HalfFloatSliceExt;
            let (from, to) = (block.as_slice().expect(CONTIGUOUS), rounded.as_slice_mut().expect(CONTIGUOUS));
            rounding::to_bf16(from, to.reinterpret_cast_mut());
            rounded
        };
        let blocks = self.blocks.into_par_iter().map(round).collect();
        (Symmetric { blocks }, diagonal + add * size as f64)
    }
}

impl Symmetric {
    /// S x `[n, r]`, from x `[n, r]`, on the calling thread alone.
    pub(super) fn times(&self, x: ArrayView2<f32>) -> Array2<f32> {
        let mut product = Array2::zeros(x.dim());
        for (i, block) in self.blocks.iter().enumerate() {
            let first = i * BLOCK;
            let after = first + block.nrows();
            let mut wide = Array2::zeros(block.dim());
            widen(block.as_slice().expect(CONTIGUOUS), wide.as_slice_mut().expect(CONTIGUOUS));
            let own = product.slice_mut(s![first..after, ..]);
            matmul_single(own, true, wide.view(), x.slice(s![first.., ..]));
            let below = product.slice_mut(s![after.., ..]);
            let right = wide.slice(s![.., block.nrows()..]);
            matmul_single(below, true, right.t(), x.slice(s![first..after, ..]));
        }
        product
    }

    /// Bytes of memory that it takes.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.blocks.iter().map(|block| block.len() * size_of::<bf16>()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_those_of_the_whole_matrix() {
        for n in [1, 5, BLOCK, BLOCK + 1, 3 * BLOCK - 7] {
            // Whole numbers below 256 are exact in bfloat16.
            let v = Array2::from_shape_fn((3, n), |(i, j)| ((i * 7 + j * 3) % 5) as f32 - 2.0);
            let x = Array2::from_shape_fn((n, 4), |(i, j)| ((i + 2 * j) % 3) as f32 - 1.0);
            let mut sum = MomentSum::zeros(n);
            sum.add(v.view());
            sum.add(v.view());
            let (symmetric, trace) = sum.damped(0.0);
            let whole = 2.0 * v.t().dot(&v);
            assert_eq!(symmetric.times(x.view()), whole.dot(&x));
            assert_eq!(trace, f64::from(whole.diag().sum()));
            assert!(symmetric.bytes() <= (n * n + n * BLOCK) * 2);
        }
    }
}
