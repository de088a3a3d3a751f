//! The output head: logits and cross-entropy in blocks of the vocabulary, so that tokens x vocabulary never exists.

use ndarray::{Array2, ArrayView2, Axis, s};
use rayon::prelude::*;

use super::linear::for_decoded_blocks;
use crate::base::Weight;
use crate::kernels::{Real, matmul};

/// The frozen matrix `[vocab, d_model]` that turns normed hidden states into logits.
#[derive(Clone, Debug)]
pub struct Head<'a> {
    weight: Weight<'a>,
}

/// The maximum of a row of logits so far, and the sum of their exponentials relative to it.
#[derive(Clone, Copy, Debug)]
struct RunningSum {
    max: f64,
    sum: f64,
}

impl RunningSum {
    const EMPTY: Self = Self { max: f64::NEG_INFINITY, sum: 0.0 };

    fn add<T: Real>(&mut self, logits: &[T]) {
        let max = logits.iter().fold(T::neg_infinity(), |m, &x| m.max(x));
        let new = self.max.max(max.as_f64());
        let shift = T::from_f64(new);
        let sum: f64 = logits.iter().map(|&x| (x - shift).exp().as_f64()).sum();
        self.sum = self.sum * (self.max - new).exp() + sum;
        self.max = new;
    }

    fn log(&self) -> f64 {
        self.max + self.sum.ln()
    }
}

impl<'a> Head<'a> {
    /// A head over this matrix.
    pub fn new(weight: Weight<'a>) -> Self {
        Self { weight }
    }

    /// All logits `[rows, vocab]` of a few hidden states `[rows, d_model]`.
    pub fn logits<T: Real>(&self, hidden: ArrayView2<T>) -> Array2<T> {
        let mut logits = Array2::zeros((hidden.nrows(), self.weight.rows()));
        for_decoded_blocks(&self.weight, |rows, block| {
            matmul(logits.slice_mut(s![.., rows]), false, hidden, block.t());
        });
        logits
    }

    /// The natural logarithm of the probability of `tokens[i]` after hidden state i: `[rows]`.
    pub fn log_probs<T: Real>(&self, hidden: ArrayView2<T>, tokens: &[u32]) -> Vec<f64> {
        self.log_sums(hidden, tokens).into_iter().map(|(log_sum, logit)| logit - log_sum).collect()
    }

    /// The log-probabilities as [`Self::log_probs`] gives them, and the gradient of `-weight * sum(log_probs)` to the
    /// hidden states, `[rows, d_model]`.
    pub fn loss_backward<T: Real>(
        &self,
        hidden: ArrayView2<T>,
        tokens: &[u32],
        weight: f64,
    ) -> (Vec<f64>, Array2<T>) {
        let sums = self.log_sums(hidden, tokens);
        let mut dhidden = Array2::zeros(hidden.dim());
        let factor = T::from_f64(weight);
        for_decoded_blocks(&self.weight, |vocab, block| {
            let mut d = Array2::zeros((hidden.nrows(), vocab.len()));
            matmul(d.view_mut(), false, hidden, block.t());
            d.axis_iter_mut(Axis(0)).into_par_iter().zip(&sums).zip(tokens).for_each(
                |((mut row, (log_sum, _)), &token)| {
                    let log_sum = T::from_f64(*log_sum);
                    row.iter_mut().for_each(|x| *x = (*x - log_sum).exp() * factor);
                    if vocab.contains(&(token as usize)) {
                        row[token as usize - vocab.start] -= factor;
                    }
                },
            );
            matmul(dhidden.view_mut(), true, d.view(), block);
        });
        (sums.into_iter().map(|(log_sum, logit)| logit - log_sum).collect(), dhidden)
    }

    /// For each row the logarithm of the sum of exponentials of all logits, and the logit of its token.
    fn log_sums<T: Real>(&self, hidden: ArrayView2<T>, tokens: &[u32]) -> Vec<(f64, f64)> {
        let mut rows = vec![(RunningSum::EMPTY, 0.0); tokens.len()];
        for_decoded_blocks(&self.weight, |vocab, block| {
            let mut logits = Array2::zeros((hidden.nrows(), vocab.len()));
            matmul(logits.view_mut(), false, hidden, block.t());
            rows.par_iter_mut().zip(logits.axis_iter(Axis(0)).into_par_iter()).zip(tokens).for_each(
                |(((running, logit), row), &token)| {
                    running.add(row.as_slice().expect("a fresh array"));
                    if vocab.contains(&(token as usize)) {
                        *logit = row[token as usize - vocab.start].as_f64();
                    }
                },
            );
        });
        rows.into_iter().map(|(running, logit)| (running.log(), logit)).collect()
    }
}
