//! Blocks of 32 values with one half-precision scale `d`, and for the `_1` types a minimum `m`.
//!
//! Stored, in order: `d` \[`m`\] \[`qh`: fifth bits, value j at bit j\] `qs`. Of 4- and 5-bit types, byte j of `qs` has
//! value j in its low half and value j + 16 in its high half. `_0` types are `d * (q - middle)`, `_1` types
//! `d * q + m`. Source: `block_q4_0` and its neighbours in ggml-common.h, ggml-quants.c.

use super::{TooLarge, f32_to_half, half_to_f32};

const BLOCK: usize = 32;
const HALF: usize = BLOCK / 2;

#[inline(always)]
fn half_at(block: &[u8], at: usize) -> f32 {
    half_to_f32(u16::from_le_bytes([block[at], block[at + 1]]))
}

pub(super) fn decode_q4_0(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<18>().0.iter().zip(out.as_chunks_mut::<BLOCK>().0) {
        let d = half_at(block, 0);
        let (low, high) = out.split_at_mut(HALF);
        for ((q, low), high) in block[2..].iter().zip(low).zip(high) {
            *low = (i32::from(q & 15) - 8) as f32 * d;
            *high = (i32::from(q >> 4) - 8) as f32 * d;
        }
    }
}

pub(super) fn decode_q4_1(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<20>().0.iter().zip(out.as_chunks_mut::<BLOCK>().0) {
        let (d, m) = (half_at(block, 0), half_at(block, 2));
        let (low, high) = out.split_at_mut(HALF);
        for ((q, low), high) in block[4..].iter().zip(low).zip(high) {
            *low = f32::from(q & 15) * d + m;
            *high = f32::from(q >> 4) * d + m;
        }
    }
}

/// The fifth bits of a block's values, each as 16 or 0.
#[inline(always)]
fn fifth_bits(qh: &[u8]) -> [u8; BLOCK] {
    // A mask and a comparison instead of a shift by j: SSE2 shifts all lanes alike.
    const MASK: [u8; 8] = [1, 2, 4, 8, 16, 32, 64, 128];
    std::array::from_fn(|j| if qh[j / 8] & MASK[j % 8] != 0 { 16 } else { 0 })
}

pub(super) fn decode_q5_0(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<22>().0.iter().zip(out.as_chunks_mut::<BLOCK>().0) {
        let d = half_at(block, 0);
        let fifth = fifth_bits(&block[2..6]);
        let qs = &block[6..22];
        for j in 0..HALF {
            out[j] = (i32::from(qs[j] & 15 | fifth[j]) - 16) as f32 * d;
            out[j + HALF] = (i32::from(qs[j] >> 4 | fifth[j + HALF]) - 16) as f32 * d;
        }
    }
}

pub(super) fn decode_q5_1(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<24>().0.iter().zip(out.as_chunks_mut::<BLOCK>().0) {
        let (d, m) = (half_at(block, 0), half_at(block, 2));
        let fifth = fifth_bits(&block[4..8]);
        let qs = &block[8..24];
        for j in 0..HALF {
            out[j] = f32::from(qs[j] & 15 | fifth[j]) * d + m;
            out[j + HALF] = f32::from(qs[j] >> 4 | fifth[j + HALF]) * d + m;
        }
    }
}

pub(super) fn decode_q8_0(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<34>().0.iter().zip(out.as_chunks_mut::<BLOCK>().0) {
        let d = half_at(block, 0);
        for (q, out) in block[2..].iter().zip(out) {
            *out = f32::from(*q as i8) * d;
        }
    }
}

/// The value of greatest magnitude with its sign, the first of equals; 0 for a block of zeros.
fn extreme(block: &[f32; BLOCK]) -> f32 {
    let (mut magnitude, mut value) = (0f32, 0f32);
    for &x in block {
        if magnitude < x.abs() {
            (magnitude, value) = (x.abs(), x);
        }
    }
    value
}

/// Least and greatest value.
fn range(block: &[f32; BLOCK]) -> (f32, f32) {
    let (mut least, mut greatest) = (f32::MAX, -f32::MAX);
    for &x in block {
        least = if x < least { x } else { least };
        greatest = if x > greatest { x } else { greatest };
    }
    (least, greatest)
}

/// `1 / d`, or 0 for a block without spread.
fn inverse(d: f32) -> f32 {
    if d != 0.0 { 1.0 / d } else { 0.0 }
}

/// Truncation as x86 converts: out of range and NaN give `i32::MIN`, whose low byte is 0. Such a value arises where
/// `d` is so small that `1 / d` is infinite; C leaves it open, and this is what llama.cpp's builds do.
fn truncate(value: f32) -> i32 {
    if (-2_147_483_648.0..2_147_483_648.0).contains(&value) { value as i32 } else { i32::MIN }
}

/// Writes the low four bits of the 32 values of `q`.
fn pack_nibbles(q: &[u8; BLOCK], qs: &mut [u8]) {
    for (j, byte) in qs.iter_mut().enumerate() {
        *byte = (q[j] & 15) | (q[j + HALF] << 4);
    }
}

/// Writes the fifth bits of the 32 values of `q`.
fn pack_fifths(q: &[u8; BLOCK], qh: &mut [u8]) {
    let bits = q.iter().enumerate().fold(0u32, |bits, (j, q)| bits | u32::from(q >> 4 & 1) << j);
    qh.copy_from_slice(&bits.to_le_bytes());
}

/// Calls `encode_block` on each block of values with its `N` output bytes; where that gives `None`, a scale is too
/// large for half precision.
fn each_block<const N: usize>(
    values: &[f32],
    out: &mut [u8],
    encode_block: impl Fn(&[f32; BLOCK], &mut [u8; N]) -> Option<()>,
) -> Result<(), TooLarge> {
    let blocks = values.as_chunks::<BLOCK>().0.iter().zip(out.as_chunks_mut::<N>().0);
    for (number, (block, out)) in blocks.enumerate() {
        encode_block(block, out).ok_or_else(|| TooLarge::in_block(number * BLOCK, block))?;
    }
    Ok(())
}

pub(super) fn encode_q4_0(values: &[f32], out: &mut [u8]) -> Result<(), TooLarge> {
    each_block::<18>(values, out, |x, out| {
        let d = extreme(x) / -8.0;
        let id = inverse(d);
        out[..2].copy_from_slice(&f32_to_half(d)?.to_le_bytes());
        let q = x.map(|x| (truncate(x * id + 8.5) as i8).min(15) as u8);
        pack_nibbles(&q, &mut out[2..]);
        Some(())
    })
}

pub(super) fn encode_q4_1(values: &[f32], out: &mut [u8]) -> Result<(), TooLarge> {
    each_block::<20>(values, out, |x, out| {
        let (least, greatest) = range(x);
        let d = (greatest - least) / 15.0;
        let id = inverse(d);
        out[..2].copy_from_slice(&f32_to_half(d)?.to_le_bytes());
        out[2..4].copy_from_slice(&f32_to_half(least)?.to_le_bytes());
        let q = x.map(|x| (truncate((x - least) * id + 0.5) as i8).min(15) as u8);
        pack_nibbles(&q, &mut out[4..]);
        Some(())
    })
}

pub(super) fn encode_q5_0(values: &[f32], out: &mut [u8]) -> Result<(), TooLarge> {
    each_block::<22>(values, out, |x, out| {
        let d = extreme(x) / -16.0;
        let id = inverse(d);
        out[..2].copy_from_slice(&f32_to_half(d)?.to_le_bytes());
        let q = x.map(|x| (truncate(x * id + 16.5) as i8).min(31) as u8);
        pack_fifths(&q, &mut out[2..6]);
        pack_nibbles(&q, &mut out[6..]);
        Some(())
    })
}

pub(super) fn encode_q5_1(values: &[f32], out: &mut [u8]) -> Result<(), TooLarge> {
    each_block::<24>(values, out, |x, out| {
        let (least, greatest) = range(x);
        let d = (greatest - least) / 31.0;
        let id = inverse(d);
        out[..2].copy_from_slice(&f32_to_half(d)?.to_le_bytes());
        out[2..4].copy_from_slice(&f32_to_half(least)?.to_le_bytes());
        let q = x.map(|x| truncate((x - least) * id + 0.5) as u8);
        pack_fifths(&q, &mut out[4..8]);
        pack_nibbles(&q, &mut out[8..]);
        Some(())
    })
}

pub(super) fn encode_q8_0(values: &[f32], out: &mut [u8]) -> Result<(), TooLarge> {
    each_block::<34>(values, out, |x, out| {
        let d = extreme(x).abs() / 127.0;
        let id = inverse(d);
        out[..2].copy_from_slice(&f32_to_half(d)?.to_le_bytes());
        for (out, x) in out[2..].iter_mut().zip(x) {
            // `round` takes halves away from zero, as C's roundf.
            *out = truncate((x * id).round()) as u8;
        }
        Some(())
    })
}
