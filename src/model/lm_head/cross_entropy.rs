//! The cross-entropy of the head's predictions, and its gradient.
//!
//! The loss of a row is -log p_t with p = softmax(l), and its gradient with respect to h is (sum over v
//! of p_v W_v) - W_t. Both sums over the vocabulary are taken in one pass by an online softmax (Milakov
//! and Gimelshein
//! 2018, arXiv 1805.02867): relative to the maximum so far, and scaled down when a greater logit comes, as
//! FlashAttention does (arXiv 2205.14135). So every logit is computed once. The target token's own part,
//! (p_t -
//! 1) W_t, is added last: with p_t near 1, it would be a small difference of large sums.

use std::ops::Range;

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis};
use rayon::prelude::*;

use super::{CONTIGUOUS, LmHead, TILE};
use crate::kernels::{Real, elementwise, reduce, softmax};
use crate::model::packing;

/// The online softmax of a row: what is known after some blocks of the vocabulary.
#[derive(Clone, Copy, Debug)]
struct OnlineSoftmax<T> {
    /// The target token.
    token: usize,
    /// Its logit, once its block is processed.
    logit: f64,
    /// The maximum logit.
    max: T,
    /// The sum over all other tokens of exp(l - max).
    others: f64,
}

impl<T: Real> OnlineSoftmax<T> {
    fn new(token: u32) -> Self {
        Self { token: token as usize, logit: f64::NEG_INFINITY, max: T::neg_infinity(), others: 0.0 }
    }

    /// Replaces the logits of a block by exp(l - max), and by 0 for the target token. Returns the factor of
    /// earlier sums, if it is not 1.
    fn add(&mut self, vocab: &Range<usize>, logits: &mut [T]) -> Option<T> {
        let max = reduce::max(self.max, logits);
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
        self.others += softmax::exp_shifted(logits, T::one(), max).as_f64();
        shrink
    }

    /// exp(l - max) of the target token.
    fn own(&self) -> f64 {
        (self.logit - self.max.as_f64()).exp()
    }

    fn log_prob(&self) -> f64 {
        self.logit - self.max.as_f64() - (self.others + self.own()).ln()
    }
}

impl LmHead<'_> {
    /// The derivative of the soft cap at a logit.
    fn slope(&self, logit: f64) -> f64 {
        self.soft_cap.map_or(1.0, |cap| 1.0 - (logit / cap) * (logit / cap))
    }

    /// The natural log-probability of `tokens[i]` given hidden state i: `[rows]`.
    pub fn log_probs<T: Real>(&self, hidden: ArrayView2<T>, tokens: &[u32]) -> Vec<f64> {
        let mut unused = Array2::zeros((0, hidden.ncols()));
        self.softmax(hidden, tokens, &mut unused).iter().map(OnlineSoftmax::log_prob).collect()
    }

    /// [`Self::log_probs`], and the gradient of `-weight * sum(log_probs)` with respect to the hidden states,
    /// `[rows, d_model]`.
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
        (rows.iter().map(OnlineSoftmax::log_prob).collect(), dhidden)
    }

    /// The softmax of every row. Unless `sums` has no rows, also adds to it the sum of exp(l - max) W over
    /// all tokens but the target.
    fn softmax<T: Real>(
        &self,
        hidden: ArrayView2<T>,
        tokens: &[u32],
        sums: &mut Array2<T>,
    ) -> Vec<OnlineSoftmax<T>> {
        let backward = sums.nrows() > 0;
        let mut rows: Vec<OnlineSoftmax<T>> = tokens.iter().map(|&token| OnlineSoftmax::new(token)).collect();
        let hidden: Vec<T::PackedLhs<'_>> =
            hidden.axis_chunks_iter(Axis(0), TILE).map(|tile| T::pack_lhs(tile, self.precision)).collect();
        for vocab in self.row_blocks() {
            let w = packing::weight_transposed::<T>(&self.weight, vocab.clone(), self.precision);
            let packed = backward.then(|| packing::weight::<T>(&self.weight, vocab.clone(), self.precision));
            let mut sums: Vec<Option<ArrayViewMut2<T>>> = if backward {
                sums.axis_chunks_iter_mut(Axis(0), TILE).map(Some).collect()
            } else {
                hidden.iter().map(|_| None).collect()
            };
            let tiles = rows.par_chunks_mut(TILE).zip(&hidden).zip(&mut sums);
            tiles.for_each(|((rows, hidden), sums)| {
                let mut logits = Array2::zeros((rows.len(), vocab.len()));
                T::multiply_single(logits.view_mut(), false, hidden, &w);
                let mut capped = Vec::new();
                for (i, (row, mut logits)) in rows.iter_mut().zip(logits.rows_mut()).enumerate() {
                    let logits = logits.as_slice_mut().expect(CONTIGUOUS);
                    self.finish(logits, &vocab);
                    capped.clear();
                    capped.extend_from_slice(if backward && self.soft_cap.is_some() { logits } else { &[] });
                    let shrink = row.add(&vocab, logits);
                    if let Some(cap) = self.soft_cap.filter(|_| backward) {
                        elementwise::soft_cap_backward(&capped, T::from_f64(cap), logits);
                    }
                    if let (Some(shrink), Some(sums)) = (shrink, sums.as_mut()) {
                        let mut sums = sums.row_mut(i);
                        elementwise::scale(sums.as_slice_mut().expect(CONTIGUOUS), shrink);
                    }
                }
                if let (Some(sums), Some(w)) = (sums, &packed) {
                    T::multiply_single(sums.view_mut(), true, &T::pack_lhs(logits.view(), self.precision), w);
                }
            });
        }
        rows
    }
}
