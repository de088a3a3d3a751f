//! A causal convolution of each channel with a short kernel of its own, forward and backward.

use ndarray::{Array2, ArrayView2, Axis, concatenate, s};
use rayon::prelude::*;

use crate::kernels::{Real, elementwise};
use crate::model::attention::SequenceRows;

/// Channels that one thread processes at a time in the backward pass.
const CHANNELS: usize = 256;

const CONTIGUOUS: &str = "rows of channels are contiguous";

/// y_t = b + sum over j of w_j x_(t - taps + 1 + j), channel by channel; x is 0 before a sequence.
#[derive(Clone, Debug)]
pub struct CausalConvolution<T> {
    /// w, `[taps, channels]`.
    pub weight: Array2<T>,
    /// b, `[channels]`, if there is one.
    pub bias: Option<Vec<T>>,
}

impl<T: Real> CausalConvolution<T> {
    /// How many tokens before a token it reads.
    pub fn history(&self) -> usize {
        self.weight.nrows().saturating_sub(1)
    }

    /// x `[rows, channels]` to y `[tokens, channels]`: the rows of the sequences' own tokens become those of their
    /// queries.
    pub fn forward(&self, x: ArrayView2<T>, sequences: &[SequenceRows]) -> Array2<T> {
        let tokens: Vec<(&SequenceRows, usize)> =
            sequences.iter().flat_map(|rows| (0..rows.own.len()).map(move |i| (rows, i))).collect();
        let mut y = T::pooled((tokens.len(), x.ncols()));
        y.axis_iter_mut(Axis(0)).into_par_iter().zip(tokens).for_each(|(mut y, (rows, token))| {
            let y = y.as_slice_mut().expect(CONTIGUOUS);
            match &self.bias {
                Some(bias) => y.copy_from_slice(bias),
                None => y.fill(T::zero()),
            }
            for (w, source) in self.taps(rows, token) {
                elementwise::add_product(
                    y,
                    self.weight.row(w).to_slice().expect(CONTIGUOUS),
                    row(&x, source),
                );
            }
        });
        y
    }

    /// [`Self::forward`] of x `[tokens, channels]` of sequences, each after its history `[history, channels]`, which then ends
    /// with the new tokens. `slots` are the histories of the sequences.
    pub fn extend(
        &self,
        x: ArrayView2<T>,
        histories: &mut [Array2<T>],
        slots: &[usize],
        sequences: &[SequenceRows],
    ) -> Array2<T> {
        let history = self.history();
        let mut rows = Vec::with_capacity(sequences.len());
        let mut parts = Vec::with_capacity(2 * sequences.len());
        let mut start = 0;
        for (&slot, sequence) in slots.iter().zip(sequences) {
            let (prefix, queries) = (start..start + history, sequence.queries.clone());
            start = prefix.end + queries.len();
            parts.extend([histories[slot].view(), x.slice_move(s![queries.clone(), ..])]);
            rows.push(SequenceRows { own: prefix.end..start, prefix, queries });
        }
        let all = concatenate(Axis(0), &parts).expect("the same width");
        for (&slot, rows) in slots.iter().zip(&rows) {
            histories[slot].assign(&all.slice(s![rows.own.end - history..rows.own.end, ..]));
        }
        self.forward(all.view(), &rows)
    }

    /// dL/dx `[rows, channels]` from dy = dL/dy `[tokens, channels]`.
    pub fn backward(&self, dy: ArrayView2<T>, rows: usize, sequences: &[SequenceRows]) -> Array2<T> {
        let mut dx = Array2::zeros((rows, dy.ncols()));
        dx.axis_chunks_iter_mut(Axis(1), CHANNELS).into_par_iter().enumerate().for_each(|(chunk, mut dx)| {
            let channels = chunk * CHANNELS..chunk * CHANNELS + dx.ncols();
            for rows in sequences {
                for (token, query) in rows.queries.clone().enumerate() {
                    let dy = &row(&dy, query)[channels.clone()];
                    for (w, source) in self.taps(rows, token) {
                        let w = &self.weight.row(w).to_slice().expect(CONTIGUOUS)[channels.clone()];
                        let mut dx = dx.row_mut(source);
                        elementwise::add_product(dx.as_slice_mut().expect(CONTIGUOUS), w, dy);
                    }
                }
            }
        });
        dx
    }

    /// The taps that a token of a sequence has, each with the row that it reads.
    fn taps<'s>(
        &self,
        rows: &'s SequenceRows,
        token: usize,
    ) -> impl Iterator<Item = (usize, usize)> + use<'s, T> {
        let history = self.history();
        (0..=history).filter_map(move |w| {
            let back = history - w;
            let own = token.checked_sub(back).map(|own| rows.own.start + own);
            let before = || Some(rows.prefix.start + rows.prefix.len().checked_sub(back - token)?);
            Some((w, own.or_else(before)?))
        })
    }
}

fn row<'x, T>(x: &'x ArrayView2<'_, T>, row: usize) -> &'x [T] {
    let width = x.ncols();
    &x.as_slice().expect(CONTIGUOUS)[row * width..(row + 1) * width]
}
