//! A frozen matrix, with or without a CURLoRA term beside it.
//!
//! With W `[m, n]`, C = W[:, J] `[m, c]`, R = W[I, :] `[r, n]` and U `[c, r]`, on rows of tokens (arXiv 2408.14572; the
//! gathers are curmerge's own):
//!
//! ```text
//! y0 = x W^T             z  = y0[:, I]            R x is already in the base product: a gather, not a product
//! y  = y0 + s z U^T C^T
//! h  = g C               dU = s h^T z             g = dL/dy
//! dx = (g + s scatter_I(h U)) W                   since R^T v = W^T scatter_I(v)
//! ```
//!
//! So the input x need not be kept for the backward pass, and C U R is never formed.

use std::ops::Range;

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, s};
use rayon::prelude::*;

use crate::base::Weight;
use crate::kernels::{Real, matmul};

/// Numbers of a weight that are decoded at a time: 16 MiB of f32.
const DECODED_VALUES: usize = 1 << 22;
/// Rows that one thread decodes at a time.
const DECODE_ROWS: usize = 32;

/// The trained part of a [`Linear`].
#[derive(Clone, Debug)]
pub struct CurTerm<T> {
    /// Place of its gradient in the list that the backward pass fills.
    pub slot: usize,
    /// The rows I of W: `[r]`.
    pub rows: Vec<u32>,
    /// The columns W[:, J]: `[m, c]`.
    pub c: Array2<T>,
    /// The trained matrix: `[c, r]`.
    pub u: Array2<T>,
    /// The factor s.
    pub scale: T,
}

/// y = x W^T, plus the CURLoRA term when there is one.
#[derive(Clone, Debug)]
pub struct Linear<'a, T> {
    weight: Weight<'a>,
    /// The trained term.
    pub term: Option<CurTerm<T>>,
}

impl<'a, T: Real> Linear<'a, T> {
    /// The frozen matrix alone.
    pub fn new(weight: Weight<'a>) -> Self {
        Self { weight, term: None }
    }

    /// The frozen matrix.
    pub fn weight(&self) -> &Weight<'a> {
        &self.weight
    }

    /// x `[tokens, n]` to y `[tokens, m]`; also z `[tokens, r]`, which the backward pass needs, when there is a term.
    pub fn forward(&self, x: ArrayView2<T>) -> (Array2<T>, Option<Array2<T>>) {
        let mut y = Array2::zeros((x.nrows(), self.weight.rows()));
        for_decoded_blocks(&self.weight, |rows, block| {
            matmul(y.slice_mut(s![.., rows]), false, x, block.t());
        });
        let z = self.term.as_ref().map(|term| {
            let z = gather(&y, &term.rows);
            let mut uz = Array2::zeros((z.nrows(), term.u.nrows()));
            matmul(uz.view_mut(), false, z.view(), term.u.t());
            uz *= term.scale;
            matmul(y.view_mut(), true, uz.view(), term.c.t());
            z
        });
        (y, z)
    }

    /// From g = dL/dy `[tokens, m]` and the z of the forward pass: adds dL/dU to its slot of `gradients`, and dL/dx
    /// `[tokens, n]` to `dx` when that is wanted.
    pub fn backward(
        &self,
        mut g: Array2<T>,
        z: Option<&Array2<T>>,
        gradients: &mut [Array2<T>],
        dx: Option<&mut Array2<T>>,
    ) {
        if let (Some(term), Some(z)) = (&self.term, z) {
            let mut h = Array2::zeros((g.nrows(), term.c.ncols()));
            matmul(h.view_mut(), false, g.view(), term.c.view());
            h *= term.scale;
            matmul(gradients[term.slot].view_mut(), true, h.t(), z.view());
            if dx.is_some() {
                let mut v = Array2::zeros((h.nrows(), term.u.ncols()));
                matmul(v.view_mut(), false, h.view(), term.u.view());
                scatter_add(&mut g, &term.rows, &v);
            }
        }
        if let Some(dx) = dx {
            for_decoded_blocks(&self.weight, |rows, block| {
                matmul(dx.view_mut(), true, g.slice(s![.., rows]), block);
            });
        }
    }
}

/// Call `work` with consecutive row ranges of the matrix and their decoded values `[rows, cols]`, in order.
pub(super) fn for_decoded_blocks<T: Real>(
    weight: &Weight<'_>,
    mut work: impl FnMut(Range<usize>, ArrayView2<T>),
) {
    let cols = weight.cols();
    let block_rows = (DECODED_VALUES / cols).clamp(1, weight.rows());
    let mut block = Array2::<T>::zeros((block_rows, cols));
    for start in (0..weight.rows()).step_by(block_rows) {
        let rows = start..(start + block_rows).min(weight.rows());
        let mut block = block.slice_mut(s![..rows.len(), ..]);
        decode(weight, rows.start, block.view_mut());
        work(rows, block.view());
    }
}

fn decode<T: Real>(weight: &Weight<'_>, first: usize, mut out: ArrayViewMut2<T>) {
    out.axis_chunks_iter_mut(Axis(0), DECODE_ROWS).into_par_iter().enumerate().for_each(
        |(chunk, mut out)| {
            let mut row = vec![0.0; weight.cols()];
            for (i, mut out) in out.rows_mut().into_iter().enumerate() {
                weight.decode_row(first + chunk * DECODE_ROWS + i, &mut row);
                let out = out.as_slice_mut().expect("rows of a fresh array");
                out.iter_mut().zip(&row).for_each(|(o, &v)| *o = T::from_f32(v));
            }
        },
    );
}

/// y[:, I] as `[tokens, r]`.
fn gather<T: Real>(y: &Array2<T>, index: &[u32]) -> Array2<T> {
    let mut z = Array2::zeros((y.nrows(), index.len()));
    for (mut z, y) in z.rows_mut().into_iter().zip(y.rows()) {
        z.iter_mut().zip(index).for_each(|(z, &i)| *z = y[i as usize]);
    }
    z
}

/// g[:, I] += v.
fn scatter_add<T: Real>(g: &mut Array2<T>, index: &[u32], v: &Array2<T>) {
    for (mut g, v) in g.rows_mut().into_iter().zip(v.rows()) {
        v.iter().zip(index).for_each(|(&v, &i)| g[i as usize] += v);
    }
}
