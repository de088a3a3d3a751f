//! How far the predictions of one model are from those of another.
//!
//! With the logits l0 of the reference and l of the model, p0 = softmax(l0) and p = softmax(l), the
//! divergence of a row is
//!
//! ```text
//! KL(p0 || p) = sum over v of p0_v (l0_v - l_v) - log Z0 + log Z
//! dKL/dl_v    = p_v - p0_v
//! ```
//!
//! The differences of logits are taken before their exponentials are summed, so that a small divergence
//! is not the difference of two large sums. The sums run over blocks of the vocabulary as in
//! [`cross_entropy`](super::cross_entropy).

use std::ops::Range;

use ndarray::{Array2, ArrayView2, Axis};
use rayon::prelude::*;

use super::{CONTIGUOUS, LmHead, TILE};
use crate::kernels::{Real, elementwise, reduce, softmax};
use crate::model::packing;

/// A model's prediction of one token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// The natural log-probability of the token.
    pub log_prob: f64,
    /// Whether the model finds this token the most probable.
    pub is_top: bool,
}

/// Two models' predictions of one token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// By the reference.
    pub reference: Prediction,
    /// By the model.
    pub model: Prediction,
    /// KL(reference || model), nats.
    pub kl: f64,
    /// Whether both find the same token the most probable.
    pub same_top: bool,
}

/// The softmax of one row by one model: what is known after some blocks of the vocabulary.
#[derive(Clone, Copy, Debug)]
struct Softmax<T> {
    /// The maximum logit, and its token.
    max: T,
    top: usize,
    /// The sum of exp(l - max).
    sum: f64,
    /// The logit of the token to predict, once its block is processed.
    logit: f64,
}

/// One row by both models, the reference first.
#[derive(Clone, Copy, Debug)]
struct Row<T> {
    token: usize,
    sides: [Softmax<T>; 2],
    /// The sum of exp(l0 - max0) (l0 - l).
    difference: f64,
}

impl<T: Real> Softmax<T> {
    fn new() -> Self {
        Self { max: T::neg_infinity(), top: 0, sum: 0.0, logit: f64::NEG_INFINITY }
    }

    /// Replaces the logits of a block by exp(l - max). Returns the factor of earlier sums.
    fn add(&mut self, vocab: &Range<usize>, token: usize, logits: &mut [T]) -> f64 {
        if vocab.contains(&token) {
            self.logit = logits[token - vocab.start].as_f64();
        }
        let max = reduce::max(self.max, logits);
        let mut shrink = 1.0;
        if max > self.max {
            self.top = vocab.start + logits.iter().position(|&l| l == max).unwrap_or(0);
            shrink = (self.max - max).exp().as_f64();
            self.max = max;
        }
        self.sum = self.sum * shrink + softmax::exp_shifted(logits, T::one(), max).as_f64();
        shrink
    }

    /// log Z.
    fn log_sum(&self) -> f64 {
        self.max.as_f64() + self.sum.ln()
    }
}

impl<T: Real> Row<T> {
    fn new(token: u32) -> Self {
        Self { token: token as usize, sides: [Softmax::new(); 2], difference: 0.0 }
    }

    fn add(&mut self, vocab: &Range<usize>, [reference, logits]: [&mut [T]; 2], buffer: &mut Vec<T>) {
        buffer.clear();
        buffer.extend(reference.iter().zip(logits.iter()).map(|(&l0, &l)| l0 - l));
        let shrink = self.sides[0].add(vocab, self.token, reference);
        self.difference = self.difference * shrink + reduce::dot_f64(reference, buffer);
        self.sides[1].add(vocab, self.token, logits);
    }

    fn compared(&self) -> Comparison {
        let [reference, model] = &self.sides;
        let prediction = |side: &Softmax<T>| Prediction {
            log_prob: side.logit - side.log_sum(),
            is_top: side.top == self.token,
        };
        Comparison {
            reference: prediction(reference),
            model: prediction(model),
            kl: self.difference / reference.sum - reference.log_sum() + model.log_sum(),
            same_top: reference.top == model.top,
        }
    }
}

impl LmHead<'_> {
    /// Compares the predictions of `tokens` from these hidden states `[rows, d_model]` with those
    /// that `reference` makes from hidden states of its own. Both heads must have the same
    /// vocabulary.
    pub fn compare<T: Real>(
        &self,
        hidden: ArrayView2<T>,
        (reference, reference_hidden): (&LmHead<'_>, ArrayView2<T>),
        tokens: &[u32],
    ) -> Vec<Comparison> {
        let rows = self.rows(hidden, (reference, reference_hidden), tokens);
        rows.iter().map(Row::compared).collect()
    }

    /// KL(reference || model) of each row, nats, and the gradient of `weight` times their sum with
    /// respect to `hidden`, `[rows, d_model]`. `reference` are the hidden states `[rows, d_model]` of
    /// a model with this head.
    pub fn kl_backward<T: Real>(
        &self,
        hidden: ArrayView2<T>,
        reference: ArrayView2<T>,
        weight: f64,
    ) -> (Vec<f64>, Array2<T>) {
        let rows = self.rows(hidden, (self, reference), &vec![0; hidden.nrows()]);
        let mut dhidden = Array2::zeros(hidden.dim());
        let factor = T::from_f64(self.scale * weight);
        let tiles: Vec<[T::PackedLhs<'_>; 2]> =
            self.tiles(reference).zip(self.tiles(hidden)).map(|(a, b)| [a, b]).collect();
        for vocab in self.row_blocks() {
            let transposed = packing::weight_transposed::<T>(&self.weight, vocab.clone(), self.precision);
            let w = packing::weight::<T>(&self.weight, vocab.clone(), self.precision);
            let dhidden = dhidden.axis_chunks_iter_mut(Axis(0), TILE).into_par_iter();
            dhidden.zip(&tiles).zip(rows.par_chunks(TILE)).for_each(|((d, [hidden0, hidden]), rows)| {
                let mut reference = self.tile_logits(hidden0, &transposed, &vocab);
                let mut logits = self.tile_logits(hidden, &transposed, &vocab);
                let mut capped = Vec::new();
                let pairs = reference.rows_mut().into_iter().zip(logits.rows_mut());
                for ((mut p0, mut p), row) in pairs.zip(rows) {
                    let [p0, p] = [&mut p0, &mut p].map(|row| row.as_slice_mut().expect(CONTIGUOUS));
                    capped.clear();
                    capped.extend_from_slice(if self.soft_cap.is_some() { p } else { &[] });
                    let [shift0, shift] = row.sides.map(|side| T::from_f64(side.log_sum()));
                    softmax::exp_shifted(p0, T::one(), shift0);
                    softmax::exp_shifted(p, T::one(), shift);
                    p.iter_mut().zip(p0).for_each(|(p, p0)| *p = (*p - *p0) * factor);
                    if let Some(cap) = self.soft_cap {
                        elementwise::soft_cap_backward(&capped, T::from_f64(cap), p);
                    }
                }
                T::multiply_single(d, true, &T::pack_lhs(logits.view(), self.precision), &w);
            });
        }
        (rows.iter().map(|row| row.compared().kl).collect(), dhidden)
    }

    /// The softmax of every row by both models.
    fn rows<T: Real>(
        &self,
        hidden: ArrayView2<T>,
        (reference, reference_hidden): (&LmHead<'_>, ArrayView2<T>),
        tokens: &[u32],
    ) -> Vec<Row<T>> {
        let mut rows: Vec<Row<T>> = tokens.iter().map(|&token| Row::new(token)).collect();
        let tiles: Vec<[T::PackedLhs<'_>; 2]> =
            reference.tiles(reference_hidden).zip(self.tiles(hidden)).map(|(a, b)| [a, b]).collect();
        for vocab in self.row_blocks() {
            let [w0, w] = [reference, self]
                .map(|head| packing::weight_transposed::<T>(&head.weight, vocab.clone(), head.precision));
            rows.par_chunks_mut(TILE).zip(&tiles).for_each(|(rows, [hidden0, hidden])| {
                let mut logits0 = reference.tile_logits(hidden0, &w0, &vocab);
                let mut logits = self.tile_logits(hidden, &w, &vocab);
                let mut buffer = Vec::with_capacity(vocab.len());
                let pairs = logits0.rows_mut().into_iter().zip(logits.rows_mut());
                for ((mut l0, mut l), row) in pairs.zip(rows) {
                    let pair = [&mut l0, &mut l].map(|row| row.as_slice_mut().expect(CONTIGUOUS));
                    row.add(&vocab, pair, &mut buffer);
                }
            });
        }
        rows
    }
}
