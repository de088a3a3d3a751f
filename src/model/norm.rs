//! RMSNorm (Zhang and Sennrich 2019, arXiv 1910.07467), forward and backward.

use ndarray::{Array2, ArrayView2, Axis};
use rayon::prelude::*;

use crate::kernels::{Real, elementwise};

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
        y.axis_chunks_iter_mut(Axis(0), TILE)
            .into_par_iter()
            .zip(x.axis_chunks_iter(Axis(0), TILE))
            .for_each(|(mut y, x)| {
                for (mut y, x) in y.rows_mut().into_iter().zip(x.rows()) {
                    let (y, x) = (y.as_slice_mut().expect(CONTIGUOUS), x.to_slice().expect(CONTIGUOUS));
                    let inverse = self.inverse_rms(x);
                    elementwise::scaled_product(&self.weight, x, inverse, y);
                }
            });
        y
    }

    /// `dx` += dL/dx from the input x and dy = dL/dy, all `[tokens, n]`:
    /// dx = i (w dy) - x i^3 mean(x w dy), with i = 1 / rms(x).
    pub fn backward(&self, x: ArrayView2<T>, dy: ArrayView2<T>, dx: &mut Array2<T>) {
        dx.axis_chunks_iter_mut(Axis(0), TILE)
            .into_par_iter()
            .zip(x.axis_chunks_iter(Axis(0), TILE).into_par_iter().zip(dy.axis_chunks_iter(Axis(0), TILE)))
            .for_each(|(mut dx, (x, dy))| {
                for ((mut dx, x), dy) in dx.rows_mut().into_iter().zip(x.rows()).zip(dy.rows()) {
                    let (x, dy) = (x.to_slice().expect(CONTIGUOUS), dy.to_slice().expect(CONTIGUOUS));
                    let dx = dx.as_slice_mut().expect(CONTIGUOUS);
                    elementwise::rms_norm_backward(&self.weight, x, dy, self.inverse_rms(x), dx);
                }
            });
    }

    fn inverse_rms(&self, x: &[T]) -> T {
        T::from_f64(1.0 / (elementwise::square_sum(x) / x.len() as f64 + self.eps).sqrt())
    }
}
