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
use std::sync::{Arc, OnceLock};

use ndarray::{Array2, ArrayView2, Axis, CowArray, Ix2, s};
use rayon::prelude::*;

use super::panels;
use crate::base::Weight;
use crate::kernels::{Precision, Real, elementwise, matmul, matmul_single};

/// Numbers of a weight that are decoded at a time: at most 16 MiB.
const DECODED_VALUES: usize = 1 << 22;
/// Rows that are decoded at a time are a multiple of this, so that few tiles and blocks of sums are left ragged.
const DECODED_ROWS: usize = 576;

/// Token rows of a term or a bias that one thread takes at a time.
const TILE: usize = 64;

const CONTIGUOUS: &str = "rows of products are contiguous";

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

/// y = x W^T, plus the CURLoRA term and the bias where there are such.
#[derive(Clone, Debug)]
pub struct Linear<'a, T: Real> {
    weight: Weight<'a>,
    /// How the products with the frozen matrix are computed.
    precision: Precision,
    /// W^T and W, ready for products, where there is room to keep them.
    kept: [Option<KeptPanels<T>>; 2],
    /// Added to every row of what the matrix and the term give: `[m]`.
    bias: Option<Vec<T>>,
    /// The trained term.
    pub term: Option<CurTerm<T>>,
}

/// A matrix in one of its roles, made ready by the first pass; clones share it.
struct KeptPanels<T: Real>(Arc<OnceLock<Vec<T::Panels>>>);

impl<T: Real> Clone for KeptPanels<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Real> std::fmt::Debug for KeptPanels<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.get().is_some() { "kept" } else { "to be kept" })
    }
}

impl<'a, T: Real> Linear<'a, T> {
    /// The frozen matrix `[m, n]` and its bias `[m]`.
    pub fn new(weight: Weight<'a>, bias: Option<Vec<T>>) -> Self {
        Self { weight, precision: Precision::F32, kept: [None, None], bias, term: None }
    }

    /// The frozen matrix.
    pub fn weight(&self) -> &Weight<'a> {
        &self.weight
    }

    /// Compute the products with the frozen matrix in this precision.
    pub fn set_precision(&mut self, precision: Precision) {
        (self.precision, self.kept) = (precision, [None, None]);
    }

    /// How the products with the frozen matrix are computed.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Keep W^T and W ready for products where they are `wanted` and fit into what is `left` of the memory for that.
    pub fn keep_panels(&mut self, wanted: [bool; 2], left: &mut u64) {
        let bytes = T::panel_bytes(self.weight.rows(), self.weight.cols(), self.precision);
        for (kept, wanted) in self.kept.iter_mut().zip(wanted) {
            match left.checked_sub(bytes).filter(|_| wanted) {
                Some(rest) => {
                    *left = rest;
                    kept.get_or_insert_with(|| KeptPanels(Arc::default()));
                }
                None => *kept = None,
            }
        }
    }

    /// x `[tokens, n]` as [`Self::forward`] takes it, for all matrices that read it in this precision.
    pub fn input<'x>(&self, x: ArrayView2<'x, T>) -> T::Rows<'x> {
        T::rows(x, self.precision)
    }

    /// x `[tokens, n]` to y `[tokens, m]`; also z `[tokens, r]`, which the backward pass needs, when there is a term.
    pub fn forward(&self, x: &T::Rows<'_>) -> (Array2<T>, Option<Array2<T>>) {
        let mut y = T::space((T::row_count(x), self.weight.rows()));
        self.multiply(&mut y, false, x);
        let z = self.term.as_ref().map(|term| term.forward(&mut y));
        self.add_bias(&mut y);
        (y, z)
    }

    /// y `[tokens, m]` + x W^T from `y`, without a term.
    pub fn forward_onto(&self, y: &mut Array2<T>, x: &T::Rows<'_>) {
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
    fn multiply(&self, y: &mut Array2<T>, accumulate: bool, x: &T::Rows<'_>) {
        let make = |rows| panels::transposed::<T>(&self.weight, rows, self.precision);
        self.each_block(&self.kept[0], make, |rows, w| {
            T::multiply(y.slice_mut(s![.., rows]), accumulate, x, w);
        });
    }

    /// Do something with every block of the matrix in one of its roles: as it is kept, or made for the moment.
    fn each_block(
        &self,
        kept: &Option<KeptPanels<T>>,
        make: impl Fn(Range<usize>) -> T::Panels,
        mut work: impl FnMut(Range<usize>, &T::Panels),
    ) {
        match kept {
            Some(kept) => {
                let kept = kept.0.get_or_init(|| self.blocks().map(|rows| T::kept(make(rows))).collect());
                self.blocks().zip(kept).for_each(|(rows, w)| work(rows, w));
            }
            None => self.blocks().for_each(|rows| work(rows.clone(), &make(rows))),
        }
    }

    /// From g = dL/dy `[tokens, m]` and the z of the forward pass: adds dL/dU to its slot of `gradients`, and dL/dx
    /// `[tokens, n]` to `dx` when that is wanted; nothing yet in it is as zeros.
    pub fn backward(
        &self,
        mut g: CowArray<T, Ix2>,
        z: Option<&Array2<T>>,
        gradients: &mut [Array2<T>],
        dx: Option<&mut Option<Array2<T>>>,
    ) {
        if let (Some(term), Some(z)) = (&self.term, z) {
            term.backward(&mut g, z, &mut gradients[term.slot], dx.is_some());
        }
        let Some(sum) = dx else { return };
        let make = |rows| panels::upright::<T>(&self.weight, rows, self.precision);
        self.each_block(&self.kept[1], make, |rows, w| {
            let part = T::rows(g.slice(s![.., rows]), self.precision);
            let accumulate = sum.is_some();
            let dx = sum.get_or_insert_with(|| T::space((g.nrows(), self.weight.cols())));
            T::multiply(dx.view_mut(), accumulate, &part, w);
        });
        if !g.is_view() {
            T::done(g.into_owned());
        }
    }

    /// Rows of the matrix that are decoded together.
    fn blocks(&self) -> impl Iterator<Item = Range<usize>> + use<T> {
        let rows = self.weight.rows();
        let most = (DECODED_VALUES / self.weight.cols()).max(1);
        let step = if most > DECODED_ROWS { most - most % DECODED_ROWS } else { most };
        (0..rows).step_by(step).map(move |start| start..(start + step).min(rows))
    }
}

impl<T: Real> CurTerm<T> {
    /// Adds the term's part to y0 `[tokens, m]`; z `[tokens, r]`.
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

    /// Adds dL/dU to `gradient`, and to g `[tokens, m]` what the term makes of it on its way through W, when that is
    /// wanted.
    fn backward(&self, g: &mut CowArray<T, Ix2>, z: &Array2<T>, gradient: &mut Array2<T>, want_dx: bool) {
        let mut h = Array2::zeros((g.nrows(), self.c.ncols()));
        matmul(h.view_mut(), false, g.view(), self.c.view());
        h *= self.scale;
        matmul(gradient.view_mut(), true, h.t(), z.view());
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
