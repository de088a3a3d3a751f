//! Encodes the 4-bit types whose levels are not evenly spaced: IQ4_NL, IQ4_XS and MXFP4.
//!
//! All store value j of 32 in the low half of byte j and value j + 16 in its high half. IQ4_NL is a
//! half-precision scale and 16 such bytes. IQ4_XS is 256 values: `d`, the upper two bits of eight 6-bit
//! scales (`u16`), their lower four bits (4 bytes), 128 bytes. MXFP4 is an exponent byte and 16 bytes.
//! Source: `quantize_row_iq4_nl_impl` and `quantize_row_mxfp4_ref` in ggml-quants.c.

use super::k_search::{extreme, nearest_int};
use super::legacy::{pack_nibbles, truncate};
use super::non_linear::IQ4_LEVELS as LEVELS;
use super::weighted::{each_weighted_block, error_weights, sum_of_squares, within_reach};
use super::{TooLarge, each_block, f32_to_half};

const SUB: usize = 32;

/// The index in [`LEVELS`] of the level nearest to `x`: the upper one if two are equally near, the last for
/// NaN. All midpoints are exact, so comparing with them rounds as comparing distances does.
#[inline(always)]
fn nearest(x: f32) -> u8 {
    LEVELS.windows(2).fold(0, |place, pair| place + u8::from(!below_middle(x, pair)))
}

/// That level itself, as a sum of gaps between levels, so that a loop over it becomes SIMD.
#[inline(always)]
fn nearest_level(x: f32) -> f32 {
    LEVELS
        .windows(2)
        .fold(LEVELS[0], |level, pair| level + if below_middle(x, pair) { 0.0 } else { pair[1] - pair[0] })
}

#[inline(always)]
fn below_middle(x: f32, pair: &[f32]) -> bool {
    x < (pair[0] + pair[1]) / 2.0
}

/// The scale of 32 values. The error of `x[i]` has the weight `weights[i]`. `None` if the weights are so
/// large that sums overflow.
fn scale(x: &[f32; SUB], weights: &[f32; SUB]) -> Option<f32> {
    /// The scale at which the extreme has the lowest level, the scales up to 7 whole levels on either side,
    /// and the first again.
    const TRIES: usize = 16;
    let Some(extreme) = extreme(x) else { return Some(0.0) };
    let mut inverses = [1.0 / (-extreme / LEVELS[0]); TRIES];
    for (inverse, step) in inverses[1..].iter_mut().zip(-7i8..=7) {
        *inverse = (f32::from(step) + LEVELS[0]) / extreme;
    }
    let (mut with_x, mut with_q) = ([0f32; TRIES], [0f32; TRIES]);
    for (&x, &w) in x.iter().zip(weights) {
        for ((inverse, with_x), with_q) in inverses.iter().zip(&mut with_x).zip(&mut with_q) {
            let q = nearest_level(inverse * x);
            *with_x += w * q * x;
            *with_q += w * q * q;
        }
    }
    let mut scale = if with_q[0] > 0.0 { with_x[0] / with_q[0] } else { 0.0 };
    let mut best = scale * with_x[0];
    for (&with_x, &with_q) in with_x.iter().zip(&with_q).skip(1) {
        if with_q > 0.0 && with_x * with_x > best * with_q {
            scale = with_x / with_q;
            best = scale * with_x;
        }
    }
    (scale.is_finite() && with_q[0].is_finite()).then_some(scale)
}

/// `1 / scale`, or 0 if the scale is 0.
fn inverse(scale: f32) -> f32 {
    if scale != 0.0 { 1.0 / scale } else { 0.0 }
}

/// The weight of each of 32 errors. Without importance it is the value's square.
fn weights(x: &[f32; SUB], importance: Option<&[f32; SUB]>, twice_mean_square: f32) -> [f32; SUB] {
    match importance {
        None => x.map(|x| x * x),
        Some(importance) => error_weights(x, importance, twice_mean_square),
    }
}

pub(super) fn encode_iq4_nl(
    values: &[f32],
    importance: Option<&[f32]>,
    out: &mut [u8],
) -> Result<(), TooLarge> {
    each_weighted_block::<SUB, 18>(values, importance, out, |x, importance, out| {
        within_reach(x)?;
        let twice_mean_square = sum_of_squares(x) * (2.0 / SUB as f32);
        let scale = scale(x, &weights(x, importance, twice_mean_square))?;
        out[..2].copy_from_slice(&f32_to_half(scale)?.to_le_bytes());
        let inverse = inverse(scale);
        pack_nibbles(&x.map(|x| nearest(inverse * x)), &mut out[2..]);
        Some(())
    })
}

pub(super) fn encode_iq4_xs(
    values: &[f32],
    importance: Option<&[f32]>,
    out: &mut [u8],
) -> Result<(), TooLarge> {
    const BLOCK: usize = 256;
    each_weighted_block::<BLOCK, 136>(values, importance, out, |x, importance, out| {
        within_reach(x)?;
        let twice_mean_square = sum_of_squares(x) * (2.0 / BLOCK as f32);
        let (subs, _) = x.as_chunks::<SUB>();
        let mut scales = [0f32; 8];
        let mut greatest = 0f32;
        for (j, (sub, found)) in subs.iter().zip(&mut scales).enumerate() {
            let importance = importance.map(|importance| &importance.as_chunks().0[j]);
            *found = scale(sub, &weights(sub, importance, twice_mean_square))?;
            if found.abs() > greatest.abs() {
                greatest = *found;
            }
        }
        let d = -greatest / 32.0;
        out[..2].copy_from_slice(&f32_to_half(d)?.to_le_bytes());
        let mut high = 0u16;
        for (j, (sub, scale)) in subs.iter().zip(scales).enumerate() {
            let small = nearest_int(inverse(d) * scale).clamp(-32, 31);
            let inverse = inverse(d * small as f32);
            pack_nibbles(&sub.map(|x| nearest(inverse * x)), &mut out[8 + j * 16..][..16]);
            let stored = (small + 32) as u8;
            out[4 + j / 2] |= (stored & 15) << (j % 2 * 4);
            high |= u16::from(stored >> 4) << (j * 2);
        }
        out[2..4].copy_from_slice(&high.to_le_bytes());
        Some(())
    })
}

/// The midpoints between MXFP4's magnitudes 0, 1, 2, 3, 4, 6, 8 and 12.
const MX_MIDDLES: [f32; 7] = [0.5, 1.5, 2.5, 3.5, 5.0, 7.0, 10.0];

pub(super) fn encode_mxfp4(values: &[f32], out: &mut [u8]) -> Result<(), TooLarge> {
    each_block::<SUB, 17>(values, out, |x, out| {
        let greatest = x.iter().fold(0f32, |greatest, x| if greatest < x.abs() { x.abs() } else { greatest });
        out[0] = exponent(greatest)?;
        let middles = MX_MIDDLES.map(|middle| middle * half_power(out[0]));
        let q = x.map(|x| {
            let place = middles.iter().fold(0, |place, &middle| place + u8::from(x.abs() > middle));
            place | if x < 0.0 && place > 0 { 8 } else { 0 }
        });
        pack_nibbles(&q, &mut out[1..]);
        Some(())
    })
}

/// The stored exponent that puts `greatest` among the largest magnitudes. The logarithm is rounded to single
/// precision before its fraction is cut off, so a number just below a large power of two counts as that
/// power. Below 2^-125 the byte wraps around to a large power, at which the values round to zero. `None` if
/// the largest magnitude would be infinite.
fn exponent(greatest: f32) -> Option<u8> {
    if greatest == 0.0 {
        return Some(0);
    }
    let power = (f64::from(greatest).log2() as f32).floor();
    (power < 128.0).then(|| truncate(power - 2.0 + 127.0) as u8)
}

/// `2^(exponent - 128)`.
fn half_power(exponent: u8) -> f32 {
    match exponent {
        0 | 1 => f32::from_bits(0x0020_0000 << exponent),
        _ => f32::from_bits(u32::from(exponent - 1) << 23),
    }
}
