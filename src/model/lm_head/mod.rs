//! The LM head: from normed hidden states h to logits l = h W^T, with W `[vocab, d_model]`, and what is
//! made of them: the [cross-entropy](cross_entropy), [how two models differ](divergence), and
//! [samples](sample). All work in blocks of the vocabulary, so that no `[tokens, vocab]` array exists.

mod cross_entropy;
mod divergence;
mod sample;

use std::ops::Range;

use ndarray::{Array2, ArrayView2, Axis, s};
use rayon::prelude::*;

use super::{packing, row_product};
use crate::base::Weight;
use crate::kernels::{Precision, Real, RowProducts, elementwise};

pub use divergence::{Comparison, Prediction};

/// Values of a block of the vocabulary, in each of the two packed forms.
const BLOCK_VALUES: usize = 1 << 20;
/// The maximum rows of such a block; a multiple of every micro-kernel's tile.
const BLOCK_ROWS: usize = 1536;
/// Hidden states that one thread processes at a time: their logits of a block stay in its cache. A multiple
/// of the rows of a micro-kernel's tile.
const TILE: usize = 66;

const CONTIGUOUS: &str = "rows of fresh arrays are contiguous";

/// The frozen matrix `[vocab, d_model]` that turns normed hidden states into logits.
#[derive(Clone, Debug)]
pub struct LmHead<'a> {
    weight: Weight<'a>,
    /// Added to the products, `[vocab]`, if there is one.
    bias: Option<Vec<f32>>,
    /// The factor of the logits.
    scale: f64,
    /// Logits l become `cap tanh(l / cap)`.
    soft_cap: Option<f64>,
    /// What the products with the matrix are computed in.
    pub precision: Precision,
    /// How those of a single hidden state are computed, if not as those of many are.
    pub row_products: Option<RowProducts>,
}

/// The matrix packed for logits, one block of the vocabulary after another.
#[derive(Debug)]
pub struct PackedHead<T: Real>(Vec<T::PackedRhs>);

impl<'a> LmHead<'a> {
    /// A head over this matrix and its bias, if it has one, whose logits are scaled and then soft-capped.
    pub fn new(weight: Weight<'a>, bias: Option<Vec<f32>>, scale: f64, soft_cap: Option<f64>) -> Self {
        Self { weight, bias, scale, soft_cap, precision: Precision::F32, row_products: None }
    }

    /// Packs the whole matrix, for many passes over few hidden states.
    pub fn pack<T: Real>(&self) -> PackedHead<T> {
        let pack = |vocab| {
            let packed = packing::weight_transposed::<T>(&self.weight, vocab, self.precision);
            T::shrink_to_fit(packed)
        };
        PackedHead(self.row_blocks().map(pack).collect())
    }

    /// The bytes of [`Self::pack`].
    pub fn packed_bytes<T: Real>(&self) -> u64 {
        T::packed_bytes(self.weight.rows(), self.weight.cols(), self.precision)
    }

    /// Turns products with these rows of the matrix into logits, of one hidden state or of several.
    fn finish<T: Real>(&self, products: &mut [T], vocab: &Range<usize>) {
        if let Some(bias) = &self.bias {
            for products in products.chunks_exact_mut(vocab.len()) {
                let own = products.iter_mut().zip(&bias[vocab.clone()]);
                own.for_each(|(product, &bias)| *product += T::from_f32(bias));
            }
        }
        let scale = T::from_f64(self.scale);
        match self.soft_cap {
            Some(cap) => elementwise::soft_cap(products, scale, T::from_f64(cap)),
            None if self.scale != 1.0 => elementwise::scale(products, scale),
            None => {}
        }
    }

    /// The hidden states `[rows, d_model]`, packed in tiles of rows.
    fn tiles<'x, T: Real>(&self, hidden: ArrayView2<'x, T>) -> impl Iterator<Item = T::PackedLhs<'x>> {
        let precision = self.precision;
        let starts = (0..hidden.nrows()).step_by(TILE);
        starts.map(move |start| {
            let end = (start + TILE).min(hidden.nrows());
            T::pack_lhs(hidden.slice_move(s![start..end, ..]), precision)
        })
    }

    /// The logits `[rows, vocab]` of a tile from a packed block of the vocabulary.
    fn tile_logits<T: Real>(
        &self,
        hidden: &T::PackedLhs<'_>,
        w: &T::PackedRhs,
        vocab: &Range<usize>,
    ) -> Array2<T> {
        let mut logits = Array2::zeros((T::lhs_rows(hidden), vocab.len()));
        T::multiply_single(logits.view_mut(), false, hidden, w);
        self.finish(logits.as_slice_mut().expect(CONTIGUOUS), vocab);
        logits
    }

    /// All logits `[rows, vocab]` of a few hidden states `[rows, d_model]`.
    pub fn logits<T: Real>(&self, hidden: ArrayView2<T>) -> Array2<T> {
        let mut logits = Array2::zeros((hidden.nrows(), self.weight.rows()));
        let hidden = T::pack_lhs(hidden, self.precision);
        let single = self.row_products.and_then(|products| Some((products, T::single_row(&hidden)?)));
        if let Some((products, x)) = single {
            let row = logits.as_slice_mut().expect(CONTIGUOUS);
            row_product::multiply(&self.weight, x, products, false, row);
            self.finish(row, &(0..self.weight.rows()));
            return logits;
        }
        for vocab in self.row_blocks() {
            let w = packing::weight_transposed::<T>(&self.weight, vocab.clone(), self.precision);
            T::multiply(logits.slice_mut(s![.., vocab]), false, &hidden, &w);
        }
        let rows = logits.axis_iter_mut(Axis(0)).into_par_iter();
        let all = 0..self.weight.rows();
        rows.for_each(|mut row| self.finish(row.as_slice_mut().expect(CONTIGUOUS), &all));
        logits
    }

    /// The blocks of rows that are decoded together.
    fn row_blocks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let rows = self.weight.rows();
        let step = (BLOCK_VALUES / self.weight.cols()).clamp(1, BLOCK_ROWS);
        (0..rows).step_by(step).map(move |start| start..(start + step).min(rows))
    }
}
