//! RMSNorm (Zhang and Sennrich 2019, arXiv 1910.07467), forward and backward.

use ndarray::{Array2, ArrayView1, ArrayView2, Axis};
use rayon::prelude::*;

use crate::kernels::{Precision, Real, Stored, elementwise};

/// Token rows that one thread takes at a time.
const TILE: usize = 16;

const CONTIGUOUS: &str = "activations are row-major";

/// A frozen RMSNorm.
#[derive(Clone, Debug)]
pub struct RmsNorm<T> {
    /// One factor a channel: `[n]`.
    pub weight: Vec<T>,
    /// Added to the mean square.
    pub eps: f64,
}

impl<T: Real> RmsNorm<T> {
    /// y = w x / rms(x), row by row: `[tokens, n]` to `[tokens, n]`.
    pub fn forward(&self, x: ArrayView2<T>) -> Array2<T> {
        let mut y = Array2::zeros(x.dim());
        let rows = y.rows_mut().into_iter().zip(x.rows());
        rows.for_each(|(mut y, x)| self.row(x, y.as_slice_mut().expect(CONTIGUOUS)));
        y
    }

    /// [`Self::forward`], ready for products of this precision.
    pub fn rows(&self, x: ArrayView2<T>, precision: Precision) -> T::Rows<'static> {
        T::rows_made(x.dim(), precision, |i, y| self.row(x.row(i), y))
    }

    fn row(&self, x: ArrayView1<T>, y: &mut [T]) {
        let x = x.to_slice().expect(CONTIGUOUS);
        elementwise::scaled_product(&self.weight, x, self.inverse_rms(x), y);
    }

    /// `dx` += dL/dx from the input x and dy = dL/dy, all `[tokens, n]`:
    /// dx = i (w dy) - x i^3 mean(x w dy), with i = 1 / rms(x).
    pub fn backward(&self, x: &Stored<T>, dy: ArrayView2<T>, dx: &mut Array2<T>) {
        let n = dx.ncols();
        dx.axis_chunks_iter_mut(Axis(0), TILE)
            .into_par_iter()
            .zip(dy.axis_chunks_iter(Axis(0), TILE))
            .enumerate()
            .for_each(|(tile, (mut dx, dy))| {
                let mut space = Vec::new();
                let first = tile * TILE * n;
                let x = x.get(first..first + dx.len(), &mut space);
                for ((mut dx, x), dy) in dx.rows_mut().into_iter().zip(x.chunks_exact(n)).zip(dy.rows()) {
                    let (dy, dx) = (dy.to_slice().expect(CONTIGUOUS), dx.as_slice_mut().expect(CONTIGUOUS));
                    elementwise::rms_norm_backward(&self.weight, x, dy, self.inverse_rms(x), dx);
                }
            });
    }

    fn inverse_rms(&self, x: &[T]) -> T {
        T::from_f64(1.0 / (elementwise::square_sum(x) / x.len() as f64 + self.eps).sqrt())
    }
}
