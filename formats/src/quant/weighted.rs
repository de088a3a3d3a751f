//! Encoding by importance: an importance matrix has one weight a column, and an error counts as much as its column
//! matters. Here is what all types share, and the blocks of 32 with one scale.
//!
//! Source: `quantize_row_q4_0_impl` and its neighbours in ggml-quants.c.

use super::k_search::{IMPORTANCE_TRIES, affine_scale, symmetric_scale};
use super::plain::{pack_fifths, pack_nibbles};
use super::{TooLarge, f32_to_half};

const BLOCK: usize = 32;

/// More than any block can hold (65504 * 128 * 32, of Q6_K). Below it the squares of values do not overflow.
const BEYOND: f32 = 1e9;

/// Whether the searches can be done on these values without overflow.
pub(super) fn within_reach(x: &[f32]) -> Option<()> {
    x.iter().all(|x| x.abs() < BEYOND).then_some(())
}

/// From the first value to the last.
pub(super) fn sum_of_squares(x: &[f32]) -> f32 {
    x.iter().fold(0f32, |sum, x| sum + x * x)
}

/// What the error of each value counts.
pub(super) fn error_weights<const N: usize>(
    x: &[f32; N],
    importance: &[f32; N],
    mean_square: f32,
) -> [f32; N] {
    std::array::from_fn(|j| importance[j] * (mean_square + x[j] * x[j]).sqrt())
}

/// Calls `encode_block` on each block of `B` values with its importance and its `N` zeroed output bytes. The importance
/// of one row serves all rows. Where `encode_block` gives `None`, a scale is too large for half precision.
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

/// Calls `encode_block` on each block with its error weights, which depend on the whole row's mean square.
fn each_row<const N: usize>(
    values: &[f32],
    importance: &[f32],
    out: &mut [u8],
    encode_block: impl Fn(&[f32; BLOCK], &[f32; BLOCK], &mut [u8; N]) -> Option<()>,
) -> Result<(), TooLarge> {
    let columns = importance.len();
    let rows = values.chunks_exact(columns).zip(out.chunks_exact_mut(columns / BLOCK * N));
    for (number, (row, out)) in rows.enumerate() {
        within_reach(row).ok_or_else(|| TooLarge::in_block(number * columns, row))?;
        let mean_square = sum_of_squares(row) / columns as f32;
        each_weighted_block(row, Some(importance), out, |x, importance, out| {
            encode_block(x, &error_weights(x, importance?, mean_square), out)
        })
        .map_err(|TooLarge { index }| TooLarge { index: number * columns + index })?;
    }
    Ok(())
}

pub(super) fn encode_q4_0(values: &[f32], importance: &[f32], out: &mut [u8]) -> Result<(), TooLarge> {
    each_row::<18>(values, importance, out, |x, weights, out| {
        let fit = symmetric_scale(8, x, weights)?;
        out[..2].copy_from_slice(&f32_to_half(fit.scale)?.to_le_bytes());
        pack_nibbles(&fit.levels, &mut out[2..]);
        Some(())
    })
}

pub(super) fn encode_q4_1(values: &[f32], importance: &[f32], out: &mut [u8]) -> Result<(), TooLarge> {
    each_row::<20>(values, importance, out, |x, weights, out| {
        let fit = affine_scale(15, x, weights, &IMPORTANCE_TRIES);
        out[..2].copy_from_slice(&f32_to_half(fit.scale)?.to_le_bytes());
        out[2..4].copy_from_slice(&f32_to_half(-fit.minimum)?.to_le_bytes());
        pack_nibbles(&fit.levels, &mut out[4..]);
        Some(())
    })
}

pub(super) fn encode_q5_0(values: &[f32], importance: &[f32], out: &mut [u8]) -> Result<(), TooLarge> {
    each_row::<22>(values, importance, out, |x, weights, out| {
        let fit = symmetric_scale(16, x, weights)?;
        out[..2].copy_from_slice(&f32_to_half(fit.scale)?.to_le_bytes());
        pack_fifths(&fit.levels, &mut out[2..6]);
        pack_nibbles(&fit.levels, &mut out[6..]);
        Some(())
    })
}

pub(super) fn encode_q5_1(values: &[f32], importance: &[f32], out: &mut [u8]) -> Result<(), TooLarge> {
    each_row::<24>(values, importance, out, |x, weights, out| {
        let fit = affine_scale(31, x, weights, &IMPORTANCE_TRIES);
        out[..2].copy_from_slice(&f32_to_half(fit.scale)?.to_le_bytes());
        out[2..4].copy_from_slice(&f32_to_half(-fit.minimum)?.to_le_bytes());
        pack_fifths(&fit.levels, &mut out[4..8]);
        pack_nibbles(&fit.levels, &mut out[8..]);
        Some(())
    })
}
