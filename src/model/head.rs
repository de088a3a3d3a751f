//! The output head: logits and cross-entropy in blocks of the vocabulary, so that tokens x vocabulary never exists.
//!
//! With W `[vocab, d_model]` and hidden states h, l = h W^T; the loss of a row is -log p_t with p = softmax(l), and its
//! gradient to h is (sum over v of p_v W_v) - W_t. Both sums over the vocabulary are taken in one pass, relative to the
//! greatest logit so far and scaled down when a greater one comes, as FlashAttention does with its values
//! (arXiv 2205.14135): so every logit is computed once. The predicted token's own part, (p_t - 1) W_t, is added last:
//! where p_t is near 1, it would be a small difference of large sums.

use std::ops::Range;

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, s};
use rayon::prelude::*;

use super::panels;
use crate::base::Weight;
use crate::kernels::{Precision, Real, elementwise};

/// Numbers of a block of the vocabulary, in each of its two roles.
const BLOCK_VALUES: usize = 1 << 20;
/// Most rows of such a block; a multiple of every tile.
const BLOCK_ROWS: usize = 1536;
/// Hidden states that one thread takes at a time: their logits of a block stay in its cache. A multiple of
/// the rows of a product's tile.
const TILE: usize = 66;

const CONTIGUOUS: &str = "rows of fresh arrays are contiguous";

/// The frozen matrix `[vocab, d_model]` that turns normed hidden states into logits.
#[derive(Clone, Debug)]
pub struct Head<'a> {
    weight: Weight<'a>,
    /// What logits are multiplied by.
    scale: f64,
    /// Logits l become `cap tanh(l / cap)`.
    cap: Option<f64>,
    /// How the products with the matrix are computed.
    pub precision: Precision,
}

/// The softmax of a row so far.
#[derive(Clone, Copy, Debug)]
struct Running<T> {
    /// The token that is predicted.
    token: usize,
    /// Its logit, once its block has come.
    logit: f64,
    /// The greatest logit.
    max: T,
    /// The sum over all other tokens of exp(l - max).
    others: f64,
}

impl<T: Real> Running<T> {
    fn new(token: u32) -> Self {
        Self { token: token as usize, logit: f64::NEG_INFINITY, max: T::neg_infinity(), others: 0.0 }
    }

    /// Turn the logits of a block into exp(l - max), 0 for the predicted token; what the sums before must be multiplied
    /// by, when that is not 1.
    fn add(&mut self, vocab: &Range<usize>, logits: &mut [T]) -> Option<T> {
        let max = elementwise::max(self.max, logits);
        let shrink = (max > self.max).then(|| (self.max - max).exp());
        if let Some(shrink) = shrink {
            self.max = max;
            self.others *= shrink.as_f64();
        }
        if vocab.contains(&self.token) {
            let own = &mut logits[self.token - vocab.start];
            self.logit = own.as_f64();
            *own = T::neg_infinity();
        }
        self.others += elementwise::exp_shifted(logits, T::one(), max).as_f64();
        shrink
    }

    /// exp(l - max) of the predicted token.
    fn own(&self) -> f64 {
        (self.logit - self.max.as_f64()).exp()
    }

    fn log_prob(&self) -> f64 {
        self.logit - self.max.as_f64() - (self.others + self.own()).ln()
    }
}

impl<'a> Head<'a> {
    /// A head over this matrix; its products are multiplied by `scale`, and perhaps capped.
    pub fn new(weight: Weight<'a>, scale: f64, cap: Option<f64>) -> Self {
        Self { weight, scale, cap, precision: Precision::F32 }
    }

    /// Turn products into logits.
    fn finish<T: Real>(&self, products: &mut [T]) {
        let scale = T::from_f64(self.scale);
        match self.cap {
            Some(cap) => elementwise::soft_cap(products, scale, T::from_f64(cap)),
            None if self.scale != 1.0 => elementwise::scale(products, scale),
            None => {}
        }
    }

    /// The derivative of a logit to its product, but for the scale.
    fn slope(&self, logit: f64) -> f64 {
        self.cap.map_or(1.0, |cap| 1.0 - (logit / cap) * (logit / cap))
    }

    /// All logits `[rows, vocab]` of a few hidden states `[rows, d_model]`.
    pub fn logits<T: Real>(&self, hidden: ArrayView2<T>) -> Array2<T> {
        let mut logits = Array2::zeros((hidden.nrows(), self.weight.rows()));
        let hidden = T::rows(hidden, self.precision);
        for vocab in self.blocks() {
            let w = panels::transposed::<T>(&self.weight, vocab.clone(), self.precision);
            T::multiply(logits.slice_mut(s![.., vocab]), false, &hidden, &w);
        }
        let rows = logits.axis_iter_mut(Axis(0)).into_par_iter();
        rows.for_each(|mut row| self.finish(row.as_slice_mut().expect(CONTIGUOUS)));
        logits
    }

    /// The natural logarithm of the probability of `tokens[i]` after hidden state i: `[rows]`.
    pub fn log_probs<T: Real>(&self, hidden: ArrayView2<T>, tokens: &[u32]) -> Vec<f64> {
        let mut unused = Array2::zeros((0, hidden.ncols()));
        self.softmax(hidden, tokens, &mut unused).iter().map(Running::log_prob).collect()
    }

    /// The log-probabilities as [`Self::log_probs`] gives them, and the gradient of `-weight * sum(log_probs)` to the
    /// hidden states, `[rows, d_model]`.
    pub fn loss_backward<T: Real>(
        &self,
        hidden: ArrayView2<T>,
        tokens: &[u32],
        weight: f64,
    ) -> (Vec<f64>, Array2<T>) {
        let mut dhidden = Array2::zeros(hidden.dim());
        let rows = self.softmax(hidden, tokens, &mut dhidden);
        dhidden.axis_iter_mut(Axis(0)).into_par_iter().zip(&rows).for_each_init(
            || vec![0.0; self.weight.cols()],
            |own, (mut d, row)| {
                self.weight.decode_row(row.token, own);
                let factor = self.scale * weight / (row.others + row.own());
                let own_slope = self.slope(row.logit);
                let (all, own_factor) = (T::from_f64(factor), T::from_f64(-factor * row.others * own_slope));
                d.iter_mut().zip(own).for_each(|(d, &mut w)| *d = all * *d + own_factor * T::from_f32(w));
            },
        );
        (rows.iter().map(Running::log_prob).collect(), dhidden)
    }

    /// The softmax of every row, and unless `sums` has no rows, the sum of exp(l - max) W over all but the predicted
    /// token added to it.
    fn softmax<T: Real>(
        &self,
        hidden: ArrayView2<T>,
        tokens: &[u32],
        sums: &mut Array2<T>,
    ) -> Vec<Running<T>> {
        let backward = sums.nrows() > 0;
        let mut rows: Vec<Running<T>> = tokens.iter().map(|&token| Running::new(token)).collect();
        let hidden: Vec<T::Rows<'_>> =
            hidden.axis_chunks_iter(Axis(0), TILE).map(|tile| T::rows(tile, self.precision)).collect();
        for vocab in self.blocks() {
            let w = panels::transposed::<T>(&self.weight, vocab.clone(), self.precision);
            let upright = backward.then(|| panels::upright::<T>(&self.weight, vocab.clone(), self.precision));
            let mut sums: Vec<Option<ArrayViewMut2<T>>> = if backward {
                sums.axis_chunks_iter_mut(Axis(0), TILE).map(Some).collect()
            } else {
                hidden.iter().map(|_| None).collect()
            };
            let tiles = rows.par_chunks_mut(TILE).zip(&hidden).zip(&mut sums);
            tiles.for_each(|((rows, hidden), sums)| {
                let mut logits = Array2::zeros((rows.len(), vocab.len()));
                T::multiply_here(logits.view_mut(), false, hidden, &w);
                let mut capped = Vec::new();
                for (i, (row, mut logits)) in rows.iter_mut().zip(logits.rows_mut()).enumerate() {
                    let logits = logits.as_slice_mut().expect(CONTIGUOUS);
                    self.finish(logits);
                    capped.clear();
                    capped.extend_from_slice(if backward && self.cap.is_some() { logits } else { &[] });
                    let shrink = row.add(&vocab, logits);
                    if let Some(cap) = self.cap.filter(|_| backward) {
                        elementwise::soft_cap_backward(&capped, T::from_f64(cap), logits);
                    }
                    if let (Some(shrink), Some(sums)) = (shrink, sums.as_mut()) {
                        let mut sums = sums.row_mut(i);
                        elementwise::scale(sums.as_slice_mut().expect(CONTIGUOUS), shrink);
                    }
                }
                if let (Some(sums), Some(w)) = (sums, &upright) {
                    T::multiply_here(sums.view_mut(), true, &T::rows(logits.view(), self.precision), w);
                }
            });
        }
        rows
    }

    /// Rows of the matrix that are decoded together.
    fn blocks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let rows = self.weight.rows();
        let step = (BLOCK_VALUES / self.weight.cols()).clamp(1, BLOCK_ROWS);
        (0..rows).step_by(step).map(move |start| start..(start + step).min(rows))
    }
}
