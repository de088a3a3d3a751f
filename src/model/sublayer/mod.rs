//! The sublayers of a block (Vaswani et al. 2017, arXiv 1706.03762): one that mixes tokens, and a feed-forward network.
//! Each reads the residual stream through a norm, and adds to it.

mod feed_forward;
mod mixing;

use ndarray::{Array2, Axis};

pub use feed_forward::{FeedForwardSublayer, FeedForwardSublayerActivations};
pub use mixing::{MixingActivations, MixingSublayer};

use super::norm::Norm;
use super::residual::add;
use crate::kernels::{Real, SavedActivation};

/// Adds to `dx` the gradient through a norm of x, from dL/dnormed; without a norm, dL/dnormed itself.
fn norm_backward<T: Real>(
    norm: Option<&Norm<T>>,
    x: &SavedActivation<T>,
    dnormed: Array2<T>,
    dx: &mut Array2<T>,
) {
    match norm {
        Some(norm) => norm.backward(x, dnormed.view(), dx),
        None => add(dx, dnormed.view()),
    }
    T::recycle(dnormed);
}

/// These rows, if they are not all.
pub fn selected(all: usize, rows: Option<&[usize]>) -> Option<&[usize]> {
    rows.filter(|rows| rows.len() < all)
}

/// These rows, or all.
pub fn gather_rows<T: Real>(x: Array2<T>, rows: Option<&[usize]>) -> Array2<T> {
    match selected(x.nrows(), rows) {
        Some(rows) => x.select(Axis(0), rows),
        None => x,
    }
}

/// The transpose of [`gather_rows`]: `[tokens, n]` with zeros in the other rows.
pub fn scatter_rows<T: Real>(x: Array2<T>, rows: Option<&[usize]>, tokens: usize) -> Array2<T> {
    let Some(rows) = selected(tokens, rows) else { return x };
    let mut all = Array2::zeros((tokens, x.ncols()));
    rows.iter().zip(x.rows()).for_each(|(&row, x)| all.row_mut(row).assign(&x));
    all
}
