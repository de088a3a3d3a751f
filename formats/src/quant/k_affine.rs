//! Encodes super-blocks whose sub-blocks have a scale and a minimum: Q2_K, Q4_K and Q5_K. [`super::k_decode`]
//! describes the layouts.
//!
//! Source: `quantize_row_q2_K_ref`, `quantize_row_q2_K_impl` and their neighbours in ggml-quants.c.

use super::k_search::{Affine, IMPORTANCE_TRIES, Least, Tries, affine_scales, nearest_int, positive_scale};
use super::weighted::{each_weighted_block, error_weights, sum_of_squares, within_reach};
use super::{TooLarge, f32_to_half, half_to_f32, k_scales};

const BLOCK: usize = 256;

/// The fits of `S` sub-blocks of `N` values, with their quantized scales and minimums.
struct Fits<const S: usize, const N: usize> {
    subs: Vec<Affine<N>>,
    d: f32,
    dmin: f32,
    scales: [u8; S],
    minimums: [u8; S],
}

/// Fits each sub-block by itself, then quantizes the scales and the minimums to `0..=top`, where `top` is the
/// greatest of each.
fn fit<const S: usize, const N: usize>(
    x: &[f32; BLOCK],
    top_level: u8,
    top: u8,
    tries: &Tries,
    weigh: impl Fn(&[f32; N]) -> [f32; N],
) -> Fits<S, N> {
    let (subs, _) = x.as_chunks::<N>();
    let errors: [[f32; N]; S] = std::array::from_fn(|j| weigh(&subs[j]));
    let subs = affine_scales(top_level, subs, &errors, tries);
    let (mut scale, mut minimum) = (0f32, 0f32);
    for sub in &subs {
        scale = if sub.scale > scale { sub.scale } else { scale };
        minimum = if sub.minimum > minimum { sub.minimum } else { minimum };
    }
    let top = f32::from(top);
    let inverse = |max: f32| if max > 0.0 { top / max } else { 0.0 };
    let (inverse_scale, inverse_minimum) = (inverse(scale), inverse(minimum));
    Fits {
        d: scale / top,
        dmin: minimum / top,
        scales: std::array::from_fn(|j| nearest_int(inverse_scale * subs[j].scale) as u8),
        minimums: std::array::from_fn(|j| nearest_int(inverse_minimum * subs[j].minimum) as u8),
        subs,
    }
}

/// Fits by importance. The scales and minimums are also quantized by importance: each has the weight of its
/// sub-block. `None` if the importance is so large that sums overflow.
fn fit_by_importance<const S: usize, const N: usize>(
    x: &[f32; BLOCK],
    importance: &[f32; BLOCK],
    mean_square: f32,
    top_level: u8,
    top: u8,
) -> Option<Fits<S, N>> {
    let (subs, _) = x.as_chunks::<N>();
    let (importance, _) = importance.as_chunks::<N>();
    let errors: [[f32; N]; S] = std::array::from_fn(|j| error_weights(&subs[j], &importance[j], mean_square));
    let weights = errors.map(|errors| errors.into_iter().fold(0f32, |sum, weight| sum + weight));
    let subs = affine_scales(top_level, subs, &errors, &IMPORTANCE_TRIES);
    let scales = positive_scale(top, &std::array::from_fn(|j| subs[j].scale), &weights)?;
    let minimums = positive_scale(top, &std::array::from_fn(|j| subs[j].minimum), &weights)?;
    Some(Fits {
        subs,
        d: scales.scale,
        dmin: minimums.scale,
        scales: scales.levels,
        minimums: minimums.levels,
    })
}

/// The final levels, chosen for the scales and minimums that are stored.
fn levels<const S: usize, const N: usize>(
    x: &[f32; BLOCK],
    top_level: u8,
    fits: Fits<S, N>,
    d: u16,
    dmin: u16,
) -> [[u8; N]; S] {
    let (subs, _) = x.as_chunks::<N>();
    let mut levels: [[u8; N]; S] = std::array::from_fn(|j| fits.subs[j].levels);
    for (j, levels) in levels.iter_mut().enumerate() {
        let scale = half_to_f32(d) * f32::from(fits.scales[j]);
        if scale == 0.0 {
            continue;
        }
        let minimum = half_to_f32(dmin) * f32::from(fits.minimums[j]);
        *levels = subs[j].map(|x| nearest_int((x + minimum) / scale).clamp(0, top_level.into()) as u8);
    }
    levels
}

/// Twice the mean square, by which Q3_K and the types with eight sub-blocks weight errors.
pub(super) fn twice_mean_square(x: &[f32; BLOCK]) -> f32 {
    2.0 * sum_of_squares(x) / BLOCK as f32
}

pub(super) fn encode_q2_k(
    values: &[f32],
    importance: Option<&[f32]>,
    out: &mut [u8],
) -> Result<(), TooLarge> {
    let tries = Tries { first: -0.5, step: 0.1, steps: 15, least: Least::Magnitudes, bounded: false };
    each_weighted_block::<BLOCK, 84>(values, importance, out, |x, importance, out| {
        within_reach(x)?;
        let mut fits: Fits<16, 16> = match importance {
            None => fit(x, 3, 15, &tries, |sub| sub.map(f32::abs)),
            Some(importance) => {
                let mean_square = sum_of_squares(x) / BLOCK as f32;
                fit_by_importance(x, importance, mean_square, 3, 15)?
            }
        };
        for (j, out) in out[..16].iter_mut().enumerate() {
            *out = fits.scales[j] | fits.minimums[j] << 4;
            (fits.scales[j], fits.minimums[j]) = (*out & 15, *out >> 4);
        }
        let (d, dmin) = (f32_to_half(fits.d)?, f32_to_half(fits.dmin)?);
        out[80..82].copy_from_slice(&d.to_le_bytes());
        out[82..].copy_from_slice(&dmin.to_le_bytes());
        pack_pairs(&levels(x, 3, fits, d, dmin), &mut out[16..80]);
        Some(())
    })
}

/// Writes the low two bits of sixteen sub-blocks: four runs of two sub-blocks to each 32 bytes.
pub(super) fn pack_pairs(levels: &[[u8; 16]; 16], qs: &mut [u8]) {
    for (sub, levels) in levels.iter().enumerate() {
        let (start, shift) = (sub / 8 * 32 + sub % 2 * 16, sub / 2 % 4 * 2);
        for (q, level) in qs[start..].iter_mut().zip(levels) {
            *q |= (level & 3) << shift;
        }
    }
}

/// Fits the eight sub-blocks, writes `d`, `dmin` and the packed scales to `out[..16]`, and returns the final
/// levels.
fn eight_sub_blocks(
    x: &[f32; BLOCK],
    importance: Option<&[f32; BLOCK]>,
    top_level: u8,
    tries: &Tries,
    out: &mut [u8],
) -> Option<[[u8; 32]; 8]> {
    within_reach(x)?;
    let mut fits: Fits<8, 32> = match importance {
        None => fit(x, top_level, 63, tries, |sub| {
            let mean = (sum_of_squares(sub) / 32.0).sqrt();
            sub.map(|x| mean + x.abs())
        }),
        Some(importance) => fit_by_importance(x, importance, twice_mean_square(x), top_level, 63)?,
    };
    // In the reference, only Q4_K with importance lets a scale that wrapped around spill into its neighbours.
    if importance.is_none() || top_level == 31 {
        fits.scales = fits.scales.map(|scale| scale.min(63));
        fits.minimums = fits.minimums.map(|minimum| minimum.min(63));
    }
    let packed = k_scales::pack(&fits.scales, &fits.minimums);
    (fits.scales, fits.minimums) = k_scales::unpack(&packed);
    let (d, dmin) = (f32_to_half(fits.d)?, f32_to_half(fits.dmin)?);
    out[..2].copy_from_slice(&d.to_le_bytes());
    out[2..4].copy_from_slice(&dmin.to_le_bytes());
    out[4..16].copy_from_slice(&packed);
    Some(levels(x, top_level, fits, d, dmin))
}

/// Writes the low four bits of eight sub-blocks, two to each 32 bytes.
fn pack_nibbles(levels: &[[u8; 32]; 8], qs: &mut [u8]) {
    for (pair, qs) in levels.as_chunks::<2>().0.iter().zip(qs.as_chunks_mut::<32>().0) {
        for (l, q) in qs.iter_mut().enumerate() {
            *q = pair[0][l] & 15 | pair[1][l] << 4;
        }
    }
}

pub(super) fn encode_q4_k(
    values: &[f32],
    importance: Option<&[f32]>,
    out: &mut [u8],
) -> Result<(), TooLarge> {
    let tries = Tries { first: -1.0, step: 0.1, steps: 20, least: Least::Squares, bounded: false };
    each_weighted_block::<BLOCK, 144>(values, importance, out, |x, importance, out| {
        let levels = eight_sub_blocks(x, importance, 15, &tries, &mut out[..16])?;
        pack_nibbles(&levels, &mut out[16..]);
        Some(())
    })
}

pub(super) fn encode_q5_k(
    values: &[f32],
    importance: Option<&[f32]>,
    out: &mut [u8],
) -> Result<(), TooLarge> {
    let tries = Tries { first: -0.5, step: 0.1, steps: 15, least: Least::Squares, bounded: false };
    each_weighted_block::<BLOCK, 176>(values, importance, out, |x, importance, out| {
        let levels = eight_sub_blocks(x, importance, 31, &tries, &mut out[..16])?;
        for (sub, levels) in levels.iter().enumerate() {
            for (h, level) in out[16..48].iter_mut().zip(levels) {
                *h |= level >> 4 << sub;
            }
        }
        pack_nibbles(&levels, &mut out[48..]);
        Some(())
    })
}
