//! Encodes super-blocks whose sub-blocks have a signed scale and no minimum: Q3_K and Q6_K.
//! [`super::k_decode`] describes the layouts.
//!
//! Source: `quantize_row_q3_K_ref`, `quantize_row_q3_K_impl` and their neighbours in ggml-quants.c.

use super::k_affine::{pack_pairs, twice_mean_square};
use super::k_search::{NEGLIGIBLE, Symmetric, nearest_int, symmetric_descent, symmetric_scale};
use super::weighted::{each_weighted_block, error_weights, within_reach};
use super::{TooLarge, f32_to_half, half_to_f32};

const BLOCK: usize = 256;
const SUBS: usize = 16;

/// The fits of the sixteen sub-blocks of 16.
type Fits = [Symmetric<SUBS>; SUBS];

/// Calls `fit` with the number of each sub-block. `None` if any call returns `None`.
fn fits(fit: impl Fn(usize) -> Option<Symmetric<SUBS>>) -> Option<Fits> {
    let mut found = [const { Symmetric { scale: 0.0, levels: [0; SUBS] } }; SUBS];
    for (j, found) in found.iter_mut().enumerate() {
        *found = fit(j)?;
    }
    Some(found)
}

/// The sub-blocks' scale of greatest magnitude, with its sign; the first of equals.
fn extreme_scale(fits: &Fits) -> f32 {
    let mut extreme = 0f32;
    for fit in fits {
        if fit.scale.abs() > extreme.abs() {
            extreme = fit.scale;
        }
    }
    extreme
}

/// The final levels `0..2 * half`, chosen for the stored `d` times the small scales.
fn levels(x: &[f32; BLOCK], half: i32, fits: Fits, d: u16, small: &[i8; SUBS]) -> [[u8; SUBS]; SUBS] {
    let (subs, _) = x.as_chunks::<SUBS>();
    let mut levels = fits.map(|fit| fit.levels);
    for (j, levels) in levels.iter_mut().enumerate() {
        let scale = half_to_f32(d) * f32::from(small[j]);
        if scale != 0.0 {
            *levels = subs[j].map(|x| (nearest_int(x / scale).clamp(-half, half - 1) + half) as u8);
        }
    }
    levels
}

pub(super) fn encode_q3_k(
    values: &[f32],
    importance: Option<&[f32]>,
    out: &mut [u8],
) -> Result<(), TooLarge> {
    each_weighted_block::<BLOCK, 110>(values, importance, out, |x, importance, out| {
        within_reach(x)?;
        let (fits, d, scales) = match importance {
            None => fit_q3(x)?,
            Some(importance) => fit_q3_by_importance(x, importance)?,
        };
        for (j, scale) in scales.into_iter().enumerate() {
            out[96 + j % 8] |= (scale & 15) << (j / 8 * 4);
            out[104 + j % 4] |= scale >> 4 << (j / 4 * 2);
        }
        let d = f32_to_half(d)?;
        out[108..].copy_from_slice(&d.to_le_bytes());
        let levels = levels(x, 4, fits, d, &scales.map(|scale| scale as i8 - 32));
        pack_pairs(&levels, &mut out[32..96]);
        for (sub, levels) in levels.iter().enumerate() {
            for (h, level) in out[sub % 2 * 16..].iter_mut().zip(levels) {
                *h |= level >> 2 << (sub / 2);
            }
        }
        Some(())
    })
}

/// The fits, the scale of the super-block, and the sub-blocks' scales from 0 to 63, where 32 means zero.
fn fit_q3(x: &[f32; BLOCK]) -> Option<(Fits, f32, [u8; SUBS])> {
    let (subs, _) = x.as_chunks::<SUBS>();
    let fits = fits(|j| symmetric_descent(4, &subs[j]))?;
    let extreme = extreme_scale(&fits);
    if extreme == 0.0 {
        return Some((fits, 0.0, [0; SUBS]));
    }
    let inverse = -32.0 / extreme;
    let scales = std::array::from_fn(|j| {
        // The reference converts to a byte before it clamps.
        let small = nearest_int(inverse * fits[j].scale) as i8;
        (small.clamp(-32, 31) + 32) as u8
    });
    Some((fits, 1.0 / inverse, scales))
}

/// Like [`fit_q3`], by importance. The scales are also quantized by importance: each has the weight of its
/// sub-block.
fn fit_q3_by_importance(x: &[f32; BLOCK], importance: &[f32; BLOCK]) -> Option<(Fits, f32, [u8; SUBS])> {
    let (subs, _) = x.as_chunks::<SUBS>();
    let (importance, _) = importance.as_chunks::<SUBS>();
    let mean_square = twice_mean_square(x);
    let errors: [[f32; SUBS]; SUBS] =
        std::array::from_fn(|j| error_weights(&subs[j], &importance[j], mean_square));
    let weights = errors.map(|errors| errors.into_iter().fold(0f32, |sum, weight| sum + weight));
    let fits = fits(|j| symmetric_scale(4, &subs[j], &errors[j]))?;
    let scales = symmetric_scale(32, &std::array::from_fn(|j| fits[j].scale), &weights)?;
    Some((fits, scales.scale, scales.levels))
}

pub(super) fn encode_q6_k(
    values: &[f32],
    importance: Option<&[f32]>,
    out: &mut [u8],
) -> Result<(), TooLarge> {
    each_weighted_block::<BLOCK, 210>(values, importance, out, |x, importance, out| {
        within_reach(x)?;
        let (subs, _) = x.as_chunks::<SUBS>();
        let fits = fits(|j| match importance {
            None => symmetric_scale(32, &subs[j], &subs[j].map(|x| x * x)),
            Some(importance) => symmetric_scale(32, &subs[j], &importance.as_chunks().0[j]),
        })?;
        let extreme = extreme_scale(&fits);
        if extreme.abs() < NEGLIGIBLE {
            return Some(());
        }
        let inverse = -128.0 / extreme;
        let d = f32_to_half(1.0 / inverse)?;
        out[208..].copy_from_slice(&d.to_le_bytes());
        let small = std::array::from_fn(|j| nearest_int(inverse * fits[j].scale).min(127) as i8);
        for (out, small) in out[192..208].iter_mut().zip(small) {
            *out = small as u8;
        }
        for (j, levels) in levels(x, 32, fits, d, &small).into_iter().enumerate() {
            let (half, run, start) = (j / 8, j / 2 % 4, j % 2 * 16);
            for (l, level) in levels.into_iter().enumerate() {
                out[half * 64 + run % 2 * 32 + start + l] |= (level & 15) << (run / 2 * 4);
                out[128 + half * 32 + start + l] |= level >> 4 << (run * 2);
            }
        }
        Some(())
    })
}
