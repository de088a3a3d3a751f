//! A linear layer: a frozen matrix, optionally with a bias and a trained [`Term`].

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use ndarray::{Array2, ArrayView2, Axis, CowArray, Ix2, Zip, s};
use rayon::prelude::*;

use super::terms::{BackwardPass, Term, TermSink};
use super::{packing, row_product};
use crate::base::Weight;
use crate::kernels::{Precision, Real, RowProducts, elementwise};

/// Values of a weight that are decoded at a time: at most 16 MiB.
const DECODED_VALUES: usize = 1 << 22;
/// Rows decoded at a time are a multiple of this, so that few tiles and blocks of k are ragged.
const DECODED_ROWS: usize = 576;

/// Token rows of a bias that one thread processes at a time.
const TILE: usize = 64;

const CONTIGUOUS: &str = "rows of products are contiguous";

/// y = x W^T, plus the trained term and the bias if there are any.
#[derive(Clone, Debug)]
pub struct Linear<'a, T: Real> {
    weight: Weight<'a>,
    /// What the products with the frozen matrix are computed in.
    precision: Precision,
    /// How the product of a single token is computed, if not as those of many are.
    row_products: Option<RowProducts>,
    /// W^T and W packed for products, where memory was granted for them.
    packed: [Option<PackedCache<T>>; 2],
    /// Added to every row of y: `[m]`.
    bias: Option<Vec<T>>,
    /// The trained term.
    pub term: Option<Box<dyn Term<T>>>,
    /// Terms beside it that are only used, as those of several adapters are.
    pub frozen_terms: Vec<Box<dyn Term<T>>>,
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
        Self {
            weight,
            precision: Precision::F32,
            row_products: None,
            packed: [None, None],
            bias,
            term: None,
            frozen_terms: Vec::new(),
        }
    }

    /// The bias `[m]`.
    pub fn bias(&self) -> Option<&[T]> {
        self.bias.as_deref()
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

    /// Computes products of a single row, as one token's, with the frozen matrix without decoding it, where precision is
    /// F32.
    pub fn set_row_products(&mut self, products: Option<RowProducts>) {
        self.row_products = products;
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

    /// x `[tokens, n]` to y `[tokens, m]`; with a term also what its backward pass needs, one row a token.
    pub fn forward(&self, x: &T::PackedLhs<'_>) -> (Array2<T>, Option<Array2<T>>) {
        let mut y = T::pooled((T::lhs_rows(x), self.weight.rows()));
        self.multiply(&mut y, false, x);
        let product = (!self.frozen_terms.is_empty()).then(|| y.clone());
        let saved = self.term.as_ref().map(|term| term.forward(x, self.precision, &mut y));
        product.into_iter().for_each(|product| self.add_frozen_terms(x, &product, &mut y));
        self.add_bias(&mut y);
        (y, saved)
    }

    /// Adds to y what each frozen term adds to the product x W^T, both `[tokens, m]`.
    fn add_frozen_terms(&self, x: &T::PackedLhs<'_>, product: &Array2<T>, y: &mut Array2<T>) {
        for term in &self.frozen_terms {
            let mut own = product.clone();
            term.forward(x, self.precision, &mut own);
            Zip::from(&mut *y).and(&own).and(product).par_for_each(|y, &own, &product| *y += own - product);
        }
    }

    /// Whether nothing is added to the product with the frozen matrix but the bias.
    pub fn is_plain(&self) -> bool {
        self.term.is_none() && self.frozen_terms.is_empty()
    }

    /// From now on the trained term is only used, and another one may be trained.
    pub fn freeze_term(&mut self) {
        self.frozen_terms.extend(self.term.take());
    }

    /// `y += x W^T` plus the bias, for y `[tokens, m]`; for plain layers.
    pub fn forward_onto(&self, y: &mut Array2<T>, x: &T::PackedLhs<'_>) {
        assert!(self.is_plain(), "a term needs x W^T alone");
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
        if let Some((products, x)) =
            self.row_products.and_then(|products| Some((products, T::single_row(x)?)))
        {
            let y = y.as_slice_mut().expect(CONTIGUOUS);
            return row_product::multiply(&self.weight, x, products, accumulate, y);
        }
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

    /// Whether [`Self::backward`] needs the input x.
    pub fn reads_input(&self) -> bool {
        self.term.as_ref().is_some_and(|term| term.reads_input())
    }

    /// From g = dL/dy `[tokens, m]`, what the forward pass returned, and x `[tokens, n]` if the layer
    /// [reads it](Self::reads_input): gives the gradients of the term to
    /// `sink`, and adds dL/dx `[tokens, n]` to `dx` if given; `None` in it counts as zeros. For layers without
    /// frozen terms.
    pub fn backward(
        &self,
        g: CowArray<T, Ix2>,
        saved: Option<&Array2<T>>,
        input: Option<ArrayView2<T>>,
        sink: &mut dyn TermSink<T>,
        dx: Option<&mut Option<Array2<T>>>,
    ) {
        assert!(self.frozen_terms.is_empty(), "models of several adapters are not trained");
        match (&self.term, saved) {
            (Some(term), Some(saved)) => {
                let times_weight =
                    |v: CowArray<'_, T, Ix2>, sum: &mut Option<Array2<T>>| self.backward_frozen(v, sum);
                term.backward(BackwardPass { g, saved, input, dx, times_weight: &times_weight }, sink);
            }
            _ => {
                if let Some(sum) = dx {
                    self.backward_frozen(g, sum);
                }
            }
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
