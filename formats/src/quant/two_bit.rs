//! Blocks with one half-precision scale `d` and codes of at most two bits. Values are `d` times -1 or 1 in
//! Q1_0, -1 to 2 in Q2_0 and TQ2_0, and -1 to 1 in TQ1_0.
//!
//! Source: `block_q1_0`, `block_q2_0`, `block_tq1_0` and `block_tq2_0` in ggml-common.h, `dequantize_row_*`
//! in ggml-quants.c.

use super::half_at;

/// Stored: `d`, `qs` 16. Bit j is value j: set for 1, clear for -1.
pub(super) fn decode_q1_0(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<18>().0.iter().zip(out.as_chunks_mut::<128>().0) {
        let d = half_at(block, 0);
        for (bits, out) in block[2..].iter().zip(out.as_chunks_mut::<8>().0) {
            let signs: [i32; 8] = std::array::from_fn(|j| if bits & 1 << j == 0 { -1 } else { 1 });
            *out = signs.map(|sign| sign as f32 * d);
        }
    }
}

/// Stored: `d`, `qs` 16. Each byte holds four consecutive values, the first in the lowest bits.
pub(super) fn decode_q2_0(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<18>().0.iter().zip(out.as_chunks_mut::<64>().0) {
        let d = half_at(block, 0);
        for (q, out) in block[2..].iter().zip(out.as_chunks_mut::<4>().0) {
            *out = [q & 3, q >> 2 & 3, q >> 4 & 3, q >> 6].map(|q| (i32::from(q) - 1) as f32 * d);
        }
    }
}

/// Stored: `qs` 64, `d`. Each 32 bytes hold four runs of 32 values, two bits each.
pub(super) fn decode_tq2_0(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<66>().0.iter().zip(out.as_chunks_mut::<256>().0) {
        let d = half_at(block, 64);
        for (run, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            for (out, q) in out.iter_mut().zip(&block[run / 4 * 32..][..32]) {
                *out = (i32::from(q >> (run % 4 * 2) & 3) - 1) as f32 * d;
            }
        }
    }
}

/// Stored: `qs` 48, `qh` 4, `d`. A byte holds up to five values. The first 32 bytes hold five runs of 32, the
/// next 16 hold five runs of 16, and the last 4 hold four runs of 4.
pub(super) fn decode_tq1_0(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<54>().0.iter().zip(out.as_chunks_mut::<256>().0) {
        let d = half_at(block, 52);
        let (long, rest) = out.split_at_mut(5 * 32);
        let (middle, short) = rest.split_at_mut(5 * 16);
        ternary_runs::<32>(&block[..32], d, long);
        ternary_runs::<16>(&block[32..48], d, middle);
        ternary_runs::<4>(&block[48..52], d, short);
    }
}

/// Decodes runs of `N` values, one from each byte. A byte is a fraction in 256ths, and its values are the
/// first ternary digits of that fraction. In the product with 3, the whole part is a digit, and the rest is
/// the fraction with the digits after it.
#[inline(always)]
fn ternary_runs<const N: usize>(bytes: &[u8], d: f32, out: &mut [f32]) {
    for (out, power) in out.as_chunks_mut::<N>().0.iter_mut().zip(POWERS) {
        for (out, &byte) in out.iter_mut().zip(bytes) {
            *out = (i32::from(ternary_digit(byte, power)) - 1) as f32 * d;
        }
    }
}

/// The powers of 3 that [`ternary_digit`] takes for the first to fifth digit of a byte.
pub(super) const POWERS: [u8; 5] = [1, 3, 9, 27, 81];

/// The ternary digit of `byte` at a `power` of 3.
#[inline(always)]
pub(super) fn ternary_digit(byte: u8, power: u8) -> u8 {
    ((u16::from(byte.wrapping_mul(power)) * 3) >> 8) as u8
}
