//! A linear layer: a frozen matrix, optionally with a bias and a CURLoRA term.
//!
//! With W `[m, n]`, C = W[:, J] `[m, c]`, R = W[I, :] `[r, n]` and U `[c, r]`, for rows of tokens x
//! `[tokens, n]` (arXiv 2408.14572; that R x is a gather is curmerge's own observation):
//!
//! ```text
//! y0 = x W^T             z  = y0[:, I]          R x is already in the base product: a gather, not a product
//! y  = y0 + s z U^T C^T
//! h  = g C               dU = s h^T z           g = dL/dy
//! dx = (g + s scatter_I(h U)) W                 since R^T v = W^T scatter_I(v)
//! ```
//!
//! So the input x is not saved for the backward pass, and C U R is never formed.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use ndarray::{Array2, ArrayView2, Axis, CowArray, Ix2, s};
use rayon::prelude::*;

use super::packing;
use crate::base::Weight;
use crate::kernels::{Precision, Real, elementwise, matmul, matmul_single};

/// Values of a weight that are decoded at a time: at most 16 MiB.
const DECODED_VALUES: usize = 1 << 22;
/// Rows decoded at a time are a multiple of this, so that few tiles and blocks of k are ragged.
const DECODED_ROWS: usize = 576;

/// Token rows of a term or a bias that one thread processes at a time.
const TILE: usize = 64;

const CONTIGUOUS: &str = "rows of products are contiguous";

/// The trained part of a [`Linear`].
#[derive(Clone, Debug)]
pub struct CurTerm<T> {
    /// The index of its gradient in the list that the backward pass fills.
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

/// What a backward pass does with the gradient of each term, dL/dU = h^T z.
pub trait TermSink<T: Real> {
    /// Gets h = s g C `[tokens, c]` and z `[tokens, r]` of the term in this slot.
    fn add(&mut self, slot: usize, h: ArrayView2<T>, z: ArrayView2<T>);
}

/// The sums over all tokens, `[c, r]` for each slot.
impl<T: Real> TermSink<T> for Vec<Array2<T>> {
    fn add(&mut self, slot: usize, h: ArrayView2<T>, z: ArrayView2<T>) {
        matmul(self[slot].view_mut(), true, h.t(), z);
    }
}

/// y = x W^T, plus the CURLoRA term and the bias if there are any.
#[derive(Clone, Debug)]
pub struct Linear<'a, T: Real> {
    weight: Weight<'a>,
    /// What the products with the frozen matrix are computed in.
    precision: Precision,
    /// W^T and W packed for products, where memory was granted for them.
    packed: [Option<PackedCache<T>>; 2],
    /// Added to every row of y: `[m]`.
    bias: Option<Vec<T>>,
    /// The trained term.
    pub term: Option<CurTerm<T>>,
}

/// A packed matrix, filled by the first pass that needs it; clones share it.
struct PackedCache<T: Real>(Arc<OnceLock<Vec<T::PackedRhs>>>);

impl<T: Real> Clone for PackedCache<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Real> std::fmt::Debug for PackedCache<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.get().is_some() { "packed" } else { "empty" })
    }
}

impl<'a, T: Real> Linear<'a, T> {
    /// The frozen matrix `[m, n]` and its bias `[m]`.
    pub fn new(weight: Weight<'a>, bias: Option<Vec<T>>) -> Self {
        Self { weight, precision: Precision::F32, packed: [None, None], bias, term: None }
    }

    /// The frozen matrix.
    pub fn weight(&self) -> &Weight<'a> {
        &self.weight
    }

    /// Computes the products with the frozen matrix in this precision.
    pub fn set_precision(&mut self, precision: Precision) {
        (self.precision, self.packed) = (precision, [None, None]);
    }

    /// What the products with the frozen matrix are computed in.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Keeps packed copies of W^T and W from one pass to the next, each if it is `wanted` and fits into the
    /// `remaining` bytes, which then shrink by its size.
    pub fn cache_packed(&mut self, wanted: [bool; 2], remaining: &mut u64) {
        let bytes = T::packed_bytes(self.weight.rows(), self.weight.cols(), self.precision);
        for (packed, wanted) in self.packed.iter_mut().zip(wanted) {
            match remaining.checked_sub(bytes).filter(|_| wanted) {
                Some(rest) => {
                    *remaining = rest;
                    packed.get_or_insert_with(|| PackedCache(Arc::default()));
                }
                None => *packed = None,
            }
        }
    }

    /// Packs x `[tokens, n]` for [`Self::forward`] of this layer and of all others that read x in the same
    /// precision.
    pub fn input<'x>(&self, x: ArrayView2<'x, T>) -> T::PackedLhs<'x> {
        T::pack_lhs(x, self.precision)
    }

    /// x `[tokens, n]` to y `[tokens, m]`; with a term also z `[tokens, r]`, which the backward pass needs.
    pub fn forward(&self, x: &T::PackedLhs<'_>) -> (Array2<T>, Option<Array2<T>>) {
        let mut y = T::pooled((T::lhs_rows(x), self.weight.rows()));
        self.multiply(&mut y, false, x);
        let z = self.term.as_ref().map(|term| term.forward(&mut y));
        self.add_bias(&mut y);
        (y, z)
    }

    /// `y += x W^T` plus the bias, for y `[tokens, m]`; for layers without a term.
    pub fn forward_onto(&self, y: &mut Array2<T>, x: &T::PackedLhs<'_>) {
        assert!(self.term.is_none(), "a term needs x W^T alone");
        self.multiply(y, true, x);
        self.add_bias(y);
    }

    fn add_bias(&self, y: &mut Array2<T>) {
        let Some(bias) = &self.bias else { return };
        y.axis_chunks_iter_mut(Axis(0), TILE).into_par_iter().for_each(|mut rows| {
            let rows = rows.rows_mut().into_iter();
            rows.for_each(|mut y| elementwise::add(y.as_slice_mut().expect(CONTIGUOUS), bias));
        });
    }

    /// `y = x W^T` or `y += x W^T`.
    fn multiply(&self, y: &mut Array2<T>, accumulate: bool, x: &T::PackedLhs<'_>) {
        let pack = |rows| packing::weight_transposed::<T>(&self.weight, rows, self.precision);
        self.for_each_row_block(&self.packed[0], pack, |rows, w| {
            T::multiply(y.slice_mut(s![.., rows]), accumulate, x, w);
        });
    }

    /// Calls `work` with each block of rows and its packed matrix: from the cache, or packed for the moment
    /// by `pack`.
    fn for_each_row_block(
        &self,
        cache: &Option<PackedCache<T>>,
        pack: impl Fn(Range<usize>) -> T::PackedRhs,
        mut work: impl FnMut(Range<usize>, &T::PackedRhs),
    ) {
        match cache {
            Some(cache) => {
                let packed = cache
                    .0
                    .get_or_init(|| self.row_blocks().map(|rows| T::shrink_to_fit(pack(rows))).collect());
                self.row_blocks().zip(packed).for_each(|(rows, w)| work(rows, w));
            }
            None => self.row_blocks().for_each(|rows| work(rows.clone(), &pack(rows))),
        }
    }

    /// From g = dL/dy `[tokens, m]` and the z of the forward pass: gives dL/dU to `sink`, and adds
    /// dL/dx `[tokens, n]` to `dx` if given; `None` in it counts as zeros.
    pub fn backward(
        &self,
        mut g: CowArray<T, Ix2>,
        z: Option<&Array2<T>>,
        sink: &mut dyn TermSink<T>,
        dx: Option<&mut Option<Array2<T>>>,
    ) {
        if let (Some(term), Some(z)) = (&self.term, z) {
            term.backward(&mut g, z, sink, dx.is_some());
        }
        if let Some(sum) = dx {
            self.backward_frozen(g, sum);
        }
    }

    /// Adds g W `[tokens, n]` to `sum`, from g = dL/dy `[tokens, m]`; `None` counts as zeros. For
    /// layers without a term, this is dL/dx.
    pub fn backward_frozen(&self, g: CowArray<T, Ix2>, sum: &mut Option<Array2<T>>) {
        let pack = |rows| packing::weight::<T>(&self.weight, rows, self.precision);
        self.for_each_row_block(&self.packed[1], pack, |rows, w| {
            let part = T::pack_lhs(g.slice(s![.., rows]), self.precision);
            let accumulate = sum.is_some();
            let dx = sum.get_or_insert_with(|| T::pooled((g.nrows(), self.weight.cols())));
            T::multiply(dx.view_mut(), accumulate, &part, w);
        });
        if !g.is_view() {
            T::recycle(g.into_owned());
        }
    }

    /// The blocks of rows that are decoded together.
    fn row_blocks(&self) -> impl Iterator<Item = Range<usize>> + use<T> {
        let rows = self.weight.rows();
        let max_rows = (DECODED_VALUES / self.weight.cols()).max(1);
        let step = if max_rows > DECODED_ROWS { max_rows - max_rows % DECODED_ROWS } else { max_rows };
        (0..rows).step_by(step).map(move |start| start..(start + step).min(rows))
    }
}

impl<T: Real> CurTerm<T> {
    /// Adds s z U^T C^T to y0 `[tokens, m]`, and returns z `[tokens, r]`.
    fn forward(&self, y: &mut Array2<T>) -> Array2<T> {
        let mut z = Array2::zeros((y.nrows(), self.rows.len()));
        let tiles = y.axis_chunks_iter_mut(Axis(0), TILE).into_par_iter();
        tiles.zip(z.axis_chunks_iter_mut(Axis(0), TILE)).for_each(|(mut y, mut z)| {
            for (mut z, y) in z.rows_mut().into_iter().zip(y.rows()) {
                z.iter_mut().zip(&self.rows).for_each(|(z, &i)| *z = y[i as usize]);
            }
            let mut uz = Array2::zeros((z.nrows(), self.u.nrows()));
            matmul_single(uz.view_mut(), false, z.view(), self.u.t());
            uz *= self.scale;
            matmul_single(y.view_mut(), true, uz.view(), self.c.t());
        });
        z
    }

    /// Gives h and z to `sink`; when `want_dx`, also adds s scatter_I(h U) to g `[tokens, m]`.
    fn backward(&self, g: &mut CowArray<T, Ix2>, z: &Array2<T>, sink: &mut dyn TermSink<T>, want_dx: bool) {
        let mut h = Array2::zeros((g.nrows(), self.c.ncols()));
        matmul(h.view_mut(), false, g.view(), self.c.view());
        h *= self.scale;
        sink.add(self.slot, h.view(), z.view());
        if !want_dx {
            return;
        }
        let tiles = g.axis_chunks_iter_mut(Axis(0), TILE).into_par_iter();
        tiles.zip(h.axis_chunks_iter(Axis(0), TILE)).for_each(|(mut g, h)| {
            let mut v = Array2::zeros((h.nrows(), self.u.ncols()));
            matmul_single(v.view_mut(), false, h, self.u.view());
            for (mut g, v) in g.rows_mut().into_iter().zip(v.rows()) {
                v.iter().zip(&self.rows).for_each(|(&v, &i)| g[i as usize] += v);
            }
        });
    }
}
