//! Writing super-blocks: Q4_K, Q5_K and Q6_K, laid out as [`super::k_decode`] reads them.
//!
//! Source: `quantize_row_q4_K_ref` and its neighbours in ggml-quants.c.

use super::k_search::{Affine, NEGLIGIBLE, Symmetric, Tries, affine_scale, nearest_int, symmetric_scale};
use super::{TooLarge, each_block, f32_to_half, half_to_f32, k_scales};

const BLOCK: usize = 256;

/// More than any super-block can hold (65504 * 128 * 32, of Q6_K). Below it no product or sum of the search overflows.
const BEYOND: f32 = 1e9;

/// Whether the searches can be done on this super-block without overflow.
fn within_reach(block: &[f32; BLOCK]) -> Option<()> {
    block.iter().all(|x| x.abs() < BEYOND).then_some(())
}

/// Fits the eight sub-blocks, writes `d`, `dmin` and the packed scales to `out[..16]`, and gives the final levels.
fn affine_super_block(x: &[f32; BLOCK], top: u8, tries: &Tries, out: &mut [u8]) -> Option<[[u8; 32]; 8]> {
    within_reach(x)?;
    let (subs, _) = x.as_chunks::<32>();
    let mut fits: [Affine<32>; 8] = std::array::from_fn(|j| {
        let sub = &subs[j];
        let mut sum_of_squares = 0f32;
        for x in sub {
            sum_of_squares += x * x;
        }
        let mean = (sum_of_squares / 32.0).sqrt();
        affine_scale(top, sub, &sub.map(|x| mean + x.abs()), tries)
    });
    let (mut max_scale, mut max_minimum) = (0f32, 0f32);
    for fit in &fits {
        max_scale = if fit.scale > max_scale { fit.scale } else { max_scale };
        max_minimum = if fit.minimum > max_minimum { fit.minimum } else { max_minimum };
    }
    let inverse = |max: f32| if max > 0.0 { 63.0 / max } else { 0.0 };
    let six_bits = |value: f32| (nearest_int(value) as u8).min(63);
    let (inverse_scale, inverse_minimum) = (inverse(max_scale), inverse(max_minimum));
    let scales: [u8; 8] = std::array::from_fn(|j| six_bits(inverse_scale * fits[j].scale));
    let minimums: [u8; 8] = std::array::from_fn(|j| six_bits(inverse_minimum * fits[j].minimum));
    let (d, dmin) = (f32_to_half(max_scale / 63.0)?, f32_to_half(max_minimum / 63.0)?);
    out[..2].copy_from_slice(&d.to_le_bytes());
    out[2..4].copy_from_slice(&dmin.to_le_bytes());
    out[4..16].copy_from_slice(&k_scales::pack(&scales, &minimums));

    // Levels once more, now against the scales as they were rounded.
    for (j, fit) in fits.iter_mut().enumerate() {
        let scale = half_to_f32(d) * f32::from(scales[j]);
        if scale == 0.0 {
            continue;
        }
        let minimum = half_to_f32(dmin) * f32::from(minimums[j]);
        fit.levels = subs[j].map(|x| nearest_int((x + minimum) / scale).clamp(0, top.into()) as u8);
    }
    Some(fits.map(|fit| fit.levels))
}

/// Writes the low four bits of eight sub-blocks, two to each 32 bytes.
fn pack_nibbles(levels: &[[u8; 32]; 8], qs: &mut [u8]) {
    for (pair, qs) in levels.as_chunks::<2>().0.iter().zip(qs.as_chunks_mut::<32>().0) {
        for (l, q) in qs.iter_mut().enumerate() {
            *q = pair[0][l] & 15 | pair[1][l] << 4;
        }
    }
}

pub(super) fn encode_q4_k(values: &[f32], out: &mut [u8]) -> Result<(), TooLarge> {
    let tries = Tries { first: -1.0, step: 0.1, steps: 20 };
    each_block::<BLOCK, 144>(values, out, |x, out| {
        let levels = affine_super_block(x, 15, &tries, &mut out[..16])?;
        pack_nibbles(&levels, &mut out[16..]);
        Some(())
    })
}

pub(super) fn encode_q5_k(values: &[f32], out: &mut [u8]) -> Result<(), TooLarge> {
    let tries = Tries { first: -0.5, step: 0.1, steps: 15 };
    each_block::<BLOCK, 176>(values, out, |x, out| {
        let levels = affine_super_block(x, 31, &tries, &mut out[..16])?;
        for (sub, levels) in levels.iter().enumerate() {
            for (h, level) in out[16..48].iter_mut().zip(levels) {
                *h |= level >> 4 << sub;
            }
        }
        pack_nibbles(&levels, &mut out[48..]);
        Some(())
    })
}

pub(super) fn encode_q6_k(values: &[f32], out: &mut [u8]) -> Result<(), TooLarge> {
    each_block::<BLOCK, 210>(values, out, |x, out| {
        within_reach(x)?;
        let (subs, _) = x.as_chunks::<16>();
        let fits: [Symmetric<16>; 16] = std::array::from_fn(|j| symmetric_scale(32, &subs[j]));
        let (mut magnitude, mut extreme) = (0f32, 0f32);
        for fit in &fits {
            if fit.scale.abs() > magnitude {
                (magnitude, extreme) = (fit.scale.abs(), fit.scale);
            }
        }
        if magnitude < NEGLIGIBLE {
            return Some(());
        }
        let inverse = -128.0 / extreme;
        let d = f32_to_half(1.0 / inverse)?;
        out[208..].copy_from_slice(&d.to_le_bytes());
        for (j, (fit, sub)) in fits.iter().zip(subs).enumerate() {
            let small = nearest_int(inverse * fit.scale).min(127) as i8;
            out[192 + j] = small as u8;
            let scale = half_to_f32(d) * f32::from(small);
            let (half, run, start) = (j / 8, j / 2 % 4, j % 2 * 16);
            let levels = if scale == 0.0 {
                fit.levels
            } else {
                sub.map(|x| (nearest_int(x / scale).clamp(-32, 31) + 32) as u8)
            };
            for (l, level) in levels.into_iter().enumerate() {
                out[half * 64 + run % 2 * 32 + start + l] |= (level & 15) << (run / 2 * 4);
                out[128 + half * 32 + start + l] |= level >> 4 << (run * 2);
            }
        }
        Some(())
    })
}
