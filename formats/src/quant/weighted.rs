//! Encoding by importance. An importance matrix has one weight a column, and an error counts by the weight of
//! its column. This file has the parts that all types share, and the encoders of blocks of 32 with one scale.
//!
//! Source: `quantize_row_q4_0_impl` and its neighbours in ggml-quants.c.

use super::k_search::{Affine, IMPORTANCE_TRIES, Symmetric, affine_scales, symmetric_scale};
use super::legacy::{pack_fifths, pack_nibbles};
use super::{TooLarge, f32_to_half};

const BLOCK: usize = 32;

/// The values of a row, or their weights.
type Blocks = [[f32; BLOCK]];

/// More than any block can hold (the most is 65504 * 128 * 32, in Q6_K). The squares of smaller values do not
/// overflow.
const BEYOND: f32 = 1e9;

/// `None` if the searches could overflow on these values.
pub(super) fn within_reach(x: &[f32]) -> Option<()> {
    x.iter().all(|x| x.abs() < BEYOND).then_some(())
}

/// The sum of squares, from the first value to the last.
pub(super) fn sum_of_squares(x: &[f32]) -> f32 {
    x.iter().fold(0f32, |sum, x| sum + x * x)
}

/// The weight of each value's error.
pub(super) fn error_weights<const N: usize>(
    x: &[f32; N],
    importance: &[f32; N],
    mean_square: f32,
) -> [f32; N] {
    std::array::from_fn(|j| importance[j] * (mean_square + x[j] * x[j]).sqrt())
}

/// Calls `encode_block` with each block of `B` values, its importance and its `N` zeroed output bytes. All
/// rows have the same importance. `encode_block` returns `None` if a scale is too large for half precision.
pub(super) fn each_weighted_block<const B: usize, const N: usize>(
    values: &[f32],
    importance: Option<&[f32]>,
    out: &mut [u8],
    encode_block: impl Fn(&[f32; B], Option<&[f32; B]>, &mut [u8; N]) -> Option<()>,
) -> Result<(), TooLarge> {
    let row = importance.map(|importance| importance.as_chunks::<B>().0);
    let blocks = values.as_chunks::<B>().0.iter().zip(out.as_chunks_mut::<N>().0);
    for (number, (block, out)) in blocks.enumerate() {
        out.fill(0);
        let importance = row.map(|row| &row[number % row.len()]);
        encode_block(block, importance, out).ok_or_else(|| TooLarge::in_block(number * B, block))?;
    }
    Ok(())
}

/// Calls `fit` with the blocks of each row and the weights of their errors, which depend on the mean square
/// of the whole row. Then calls `write` with each fit and its `N` bytes. `write` returns `None` if a scale is
/// too large for half precision.
fn each_row<F, const N: usize>(
    values: &[f32],
    importance: &[f32],
    out: &mut [u8],
    fit: impl Fn(&Blocks, &Blocks) -> Vec<F>,
    write: impl Fn(F, &mut [u8; N]) -> Option<()>,
) -> Result<(), TooLarge> {
    let columns = importance.len();
    let (importance, _) = importance.as_chunks();
    let rows = values.chunks_exact(columns).zip(out.chunks_exact_mut(columns / BLOCK * N));
    for (number, (row, out)) in rows.enumerate() {
        let start = number * columns;
        within_reach(row).ok_or_else(|| TooLarge::in_block(start, row))?;
        let mean_square = sum_of_squares(row) / columns as f32;
        let (blocks, _) = row.as_chunks();
        let weights: Vec<_> = blocks
            .iter()
            .zip(importance)
            .map(|(block, importance)| error_weights(block, importance, mean_square))
            .collect();
        let fits = fit(blocks, &weights).into_iter().zip(out.as_chunks_mut().0);
        for (number, (fit, out)) in fits.enumerate() {
            write(fit, out).ok_or_else(|| TooLarge::in_block(start + number * BLOCK, &blocks[number]))?;
        }
    }
    Ok(())
}

/// Fits with a scale only, for [`each_row`].
fn symmetric(half: u8) -> impl Fn(&Blocks, &Blocks) -> Vec<Option<Symmetric<BLOCK>>> {
    move |x, weights| x.iter().zip(weights).map(|(x, weights)| symmetric_scale(half, x, weights)).collect()
}

/// Fits with a scale and a minimum, for [`each_row`].
fn affine(top: u8) -> impl Fn(&Blocks, &Blocks) -> Vec<Affine<BLOCK>> {
    move |x, weights| affine_scales(top, x, weights, &IMPORTANCE_TRIES)
}

pub(super) fn encode_q4_0(values: &[f32], importance: &[f32], out: &mut [u8]) -> Result<(), TooLarge> {
    each_row::<_, 18>(values, importance, out, symmetric(8), |fit, out| {
        let fit = fit?;
        out[..2].copy_from_slice(&f32_to_half(fit.scale)?.to_le_bytes());
        pack_nibbles(&fit.levels, &mut out[2..]);
        Some(())
    })
}

pub(super) fn encode_q4_1(values: &[f32], importance: &[f32], out: &mut [u8]) -> Result<(), TooLarge> {
    each_row::<_, 20>(values, importance, out, affine(15), |fit, out| {
        out[..2].copy_from_slice(&f32_to_half(fit.scale)?.to_le_bytes());
        out[2..4].copy_from_slice(&f32_to_half(-fit.minimum)?.to_le_bytes());
        pack_nibbles(&fit.levels, &mut out[4..]);
        Some(())
    })
}

pub(super) fn encode_q5_0(values: &[f32], importance: &[f32], out: &mut [u8]) -> Result<(), TooLarge> {
    each_row::<_, 22>(values, importance, out, symmetric(16), |fit, out| {
        let fit = fit?;
        out[..2].copy_from_slice(&f32_to_half(fit.scale)?.to_le_bytes());
        pack_fifths(&fit.levels, &mut out[2..6]);
        pack_nibbles(&fit.levels, &mut out[6..]);
        Some(())
    })
}

pub(super) fn encode_q5_1(values: &[f32], importance: &[f32], out: &mut [u8]) -> Result<(), TooLarge> {
    each_row::<_, 24>(values, importance, out, affine(31), |fit, out| {
        out[..2].copy_from_slice(&f32_to_half(fit.scale)?.to_le_bytes());
        out[2..4].copy_from_slice(&f32_to_half(-fit.minimum)?.to_le_bytes());
        pack_fifths(&fit.levels, &mut out[4..8]);
        pack_nibbles(&fit.levels, &mut out[8..]);
        Some(())
    })
}
