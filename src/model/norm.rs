//! RMSNorm (Zhang and Sennrich 2019, arXiv 1910.07467) and LayerNorm (Ba et al. 2016, arXiv 1607.06450),
//! forward and backward, over whole rows or over each head of a row.

use ndarray::{Array2, ArrayView1, ArrayView2, Axis};
use rayon::prelude::*;

use crate::kernels::{Precision, Real, SavedActivation, norms, reduce};

/// Token rows that one thread processes at a time.
const TILE: usize = 16;

const CONTIGUOUS: &str = "activations are row-major";

/// A frozen norm.
#[derive(Clone, Debug)]
pub struct Norm<T> {
    /// The factor of each channel: `[n]`.
    pub weight: Vec<T>,
    /// The bias of a LayerNorm: `[n]`. An RMSNorm has none.
    pub bias: Option<Vec<T>>,
    /// Added to the mean square, or to the variance.
    pub eps: f64,
}

/// Packs x `[tokens, n]`, normed if there is a norm, for products of this precision.
pub fn pack<T: Real>(
    norm: Option<&Norm<T>>,
    x: ArrayView2<T>,
    precision: Precision,
) -> T::PackedLhs<'static> {
    T::pack_lhs_from_fn(x.dim(), precision, |i, y| match norm {
        Some(norm) => norm.row(x.row(i), y),
        None => y.copy_from_slice(x.row(i).to_slice().expect(CONTIGUOUS)),
    })
}

/// What [`pack`] packed, from the saved x `[tokens, n]` of width n.
pub fn input<T: Real>(norm: Option<&Norm<T>>, x: &SavedActivation<T>, width: usize) -> Array2<T> {
    let x = x.to_array(width);
    match norm {
        Some(norm) => {
            let normed = norm.forward(x.view());
            T::recycle(x);
            normed
        }
        None => x,
    }
}

impl<T: Real> Norm<T> {
    /// y = w x / rms(x), or w (x - mean(x)) / std(x) + b, row by row: `[tokens, n]` to `[tokens, n]`.
    pub fn forward(&self, x: ArrayView2<T>) -> Array2<T> {
        let mut y = T::pooled(x.dim());
        let tiles =
            y.axis_chunks_iter_mut(Axis(0), TILE).into_par_iter().zip(x.axis_chunks_iter(Axis(0), TILE));
        tiles.for_each(|(mut y, x)| {
            let rows = y.rows_mut().into_iter().zip(x.rows());
            rows.for_each(|(mut y, x)| self.row(x, y.as_slice_mut().expect(CONTIGUOUS)));
        });
        y
    }

    /// One row, or each head of it.
    fn row(&self, x: ArrayView1<T>, y: &mut [T]) {
        let n = self.weight.len();
        let x = x.to_slice().expect(CONTIGUOUS).chunks_exact(n);
        for (x, y) in x.zip(y.chunks_exact_mut(n)) {
            match &self.bias {
                None => norms::scaled_product(&self.weight, x, self.inverse_rms(x), y),
                Some(bias) => {
                    let (mean, inverse) = self.moments(x);
                    norms::layer_norm(&self.weight, bias, x, mean, inverse, y);
                }
            }
        }
    }

    /// `dx += dL/dx` from the input x and dy = dL/dy, all `[tokens, n]` or `[tokens, heads * n]`.
    /// RMSNorm: dx = i (w dy) - x i^3 mean(x w dy), with i = 1 / rms(x).
    pub fn backward(&self, x: &SavedActivation<T>, dy: ArrayView2<T>, dx: &mut Array2<T>) {
        let (n, width) = (self.weight.len(), dx.ncols());
        dx.axis_chunks_iter_mut(Axis(0), TILE)
            .into_par_iter()
            .zip(dy.axis_chunks_iter(Axis(0), TILE))
            .enumerate()
            .for_each(|(tile, (mut dx, dy))| {
                let mut space = Vec::new();
                let first = tile * TILE * width;
                let x = x.get(first..first + dx.len(), &mut space);
                let dx = dx.as_slice_mut().expect(CONTIGUOUS).chunks_exact_mut(n);
                let dy = dy.to_slice().expect(CONTIGUOUS).chunks_exact(n);
                for ((dx, x), dy) in dx.zip(x.chunks_exact(n)).zip(dy) {
                    match &self.bias {
                        None => norms::rms_norm_backward(&self.weight, x, dy, self.inverse_rms(x), dx),
                        Some(_) => {
                            let (mean, inverse) = self.moments(x);
                            norms::layer_norm_backward(&self.weight, x, dy, mean, inverse, dx);
                        }
                    }
                }
            });
    }

    fn inverse_rms(&self, x: &[T]) -> T {
        T::from_f64(1.0 / (reduce::square_sum(x) / x.len() as f64 + self.eps).sqrt())
    }

    /// The mean, and the inverse standard deviation.
    fn moments(&self, x: &[T]) -> (T, T) {
        let (mean, deviation) = norms::mean_and_squared_deviation(x);
        (T::from_f64(mean), T::from_f64(1.0 / (deviation / x.len() as f64 + self.eps).sqrt()))
    }
}
