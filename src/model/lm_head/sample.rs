//! Tokens sampled from the head's predictions.
//!
//! A token is found from a number in [0, 1) by inverting the cumulative distribution: first the block of
//! the vocabulary, from the sum of exp(l - max) of each, then the token in it. For many rows, the logits of
//! that block are computed again, since those of all blocks are not kept.

use ndarray::{Array2, ArrayView1, ArrayView2, Axis};
use rayon::prelude::*;

use super::{CONTIGUOUS, LmHead, PackedHead, TILE};
use crate::kernels::{Real, reduce, softmax};
use crate::model::packing;

/// A block's part of a row's softmax.
#[derive(Clone, Copy, Debug)]
struct Part {
    /// The maximum logit.
    max: f64,
    /// The sum of exp(l - max).
    sum: f64,
}

/// Upper limit of the bytes of exp(l - max) that the first pass keeps, so that there is no second one.
const KEPT_BYTES: usize = 64 << 20;

impl LmHead<'_> {
    /// A token for each row of `hidden` `[rows, d_model]`, sampled at a temperature of 1 by the row's
    /// number in [0, 1). Without `packed`, the matrix is packed for the moment.
    pub fn sample<T: Real>(
        &self,
        hidden: ArrayView2<T>,
        points: &[f64],
        packed: Option<&PackedHead<T>>,
    ) -> Vec<u32> {
        let blocks: Vec<_> = self.row_blocks().collect();
        let mut parts: Vec<Vec<Part>> = vec![Vec::with_capacity(blocks.len()); hidden.nrows()];
        let tiles: Vec<T::PackedLhs<'_>> = self.tiles(hidden).collect();
        let keeps = hidden.nrows() * self.weight.rows() * size_of::<T>() <= KEPT_BYTES;
        let mut kept: Vec<Vec<Array2<T>>> = Vec::new();
        for (block, vocab) in blocks.iter().enumerate() {
            let made;
            let w = match packed {
                Some(PackedHead(packed)) => &packed[block],
                None => {
                    made = packing::weight_transposed::<T>(&self.weight, vocab.clone(), self.precision);
                    &made
                }
            };
            let exps = parts.par_chunks_mut(TILE).zip(&tiles).map(|(parts, hidden)| {
                let mut logits = self.tile_logits::<T>(hidden, w, vocab);
                for (mut logits, parts) in logits.rows_mut().into_iter().zip(parts) {
                    parts.push(part(logits.as_slice_mut().expect(CONTIGUOUS)));
                }
                keeps.then_some(logits)
            });
            kept.push(exps.collect::<Vec<_>>().into_iter().flatten().collect());
        }
        // The block of each row's token, and how much of the block's sum lies before it.
        let places: Vec<(usize, f64)> =
            parts.iter().zip(points).map(|(parts, &point)| place(parts, point)).collect();
        let mut tokens = vec![0; hidden.nrows()];
        for (block, vocab) in blocks.into_iter().enumerate() {
            let rows: Vec<usize> = (0..places.len()).filter(|&row| places[row].0 == block).collect();
            if rows.is_empty() {
                continue;
            }
            let mut take = |row: usize, exps: ArrayView1<T>| {
                let exps = exps.to_slice().expect(CONTIGUOUS);
                tokens[row] = (vocab.start + within(exps, parts[row][block].sum, places[row].1)) as u32;
            };
            if keeps {
                rows.iter().for_each(|&row| take(row, kept[block][row / TILE].row(row % TILE)));
                continue;
            }
            let w = packing::weight_transposed::<T>(&self.weight, vocab.clone(), self.precision);
            for rows in rows.chunks(TILE) {
                let some = hidden.select(Axis(0), rows);
                let some = T::pack_lhs(some.view(), self.precision);
                let mut logits = self.tile_logits::<T>(&some, &w, &vocab);
                for (mut logits, &row) in logits.rows_mut().into_iter().zip(rows) {
                    part(logits.as_slice_mut().expect(CONTIGUOUS));
                    take(row, logits.view());
                }
            }
        }
        tokens
    }
}

/// Replaces logits by exp(l - max).
fn part<T: Real>(logits: &mut [T]) -> Part {
    let max = reduce::max(T::neg_infinity(), logits);
    Part { max: max.as_f64(), sum: softmax::exp_shifted(logits, T::one(), max).as_f64() }
}

/// The block that a point in [0, 1) of the whole softmax lies in, and its share of that block, in [0, 1).
fn place(parts: &[Part], point: f64) -> (usize, f64) {
    let max = parts.iter().fold(f64::NEG_INFINITY, |max, part| max.max(part.max));
    let sizes: Vec<f64> = parts.iter().map(|part| part.sum * (part.max - max).exp()).collect();
    let mut rest = point * sizes.iter().sum::<f64>();
    for (block, &size) in sizes.iter().enumerate() {
        if rest < size {
            return (block, rest / size);
        }
        rest -= size;
    }
    // Rounding can leave a rest after the last block.
    (sizes.iter().rposition(|&size| size > 0.0).unwrap_or(0), 1.0)
}

/// The index at this share of the sum of exp(l - max).
fn within<T: Real>(exps: &[T], sum: f64, share: f64) -> usize {
    let mut rest = share * sum;
    let mut last = 0;
    for (i, p) in exps.iter().enumerate().filter(|(_, p)| **p > T::zero()) {
        last = i;
        if rest < p.as_f64() {
            return i;
        }
        rest -= p.as_f64();
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_falls_on_tokens_by_their_probability() {
        // Two blocks of probability 1/4 and 3/4.
        let parts = [Part { max: 0.0, sum: 1.0 }, Part { max: 3f64.ln(), sum: 1.0 }];
        assert_eq!(place(&parts, 0.0).0, 0);
        assert_eq!(place(&parts, 0.2499).0, 0);
        let (block, share) = place(&parts, 0.5);
        assert!(block == 1 && (share - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!(place(&parts, 1.0).0, 1);
        let exps = [1.0, 0.0, 2.0, 1.0];
        for (share, index) in [(0.0, 0), (0.24, 0), (0.26, 2), (0.74, 2), (0.76, 3), (1.0, 3)] {
            assert_eq!(within(&exps, 4.0, share), index, "{share}");
        }
    }
}
