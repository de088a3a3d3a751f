//! Blocks of 32 values with one half-precision scale `d`; the `_1` types also have a minimum `m`.
//!
//! Stored, in order: `d` \[`m`\] \[`qh`: fifth bits, value j at bit j\] `qs`. In 4- and 5-bit types, byte j
//! of `qs` has value j in its low half and value j + 16 in its high half. A value is `d * (q - middle)` in
//! `_0` types, and `d * q + m` in `_1` types. Source: `block_q4_0` and its neighbours in ggml-common.h,
//! ggml-quants.c.

use super::{TooLarge, each_block, f32_to_half, half_at};

const BLOCK: usize = 32;
const HALF: usize = BLOCK / 2;

/// Calls `decode_block` with each block of `N` bytes and the 32 values to fill.
fn each_stored<const N: usize>(
    bytes: &[u8],
    out: &mut [f32],
    decode_block: impl Fn(&[u8; N], &mut [f32; BLOCK]) + Copy,
) {
    // If this were inlined, the compiler would make lanes of four blocks and gather their bytes one by one.
    #[inline(never)]
    fn one<const N: usize>(
        decode: impl Fn(&[u8; N], &mut [f32; BLOCK]),
        block: &[u8; N],
        out: &mut [f32; BLOCK],
    ) {
        decode(block, out);
    }
    for (block, out) in bytes.as_chunks::<N>().0.iter().zip(out.as_chunks_mut::<BLOCK>().0) {
        one(decode_block, block, out);
    }
}

/// The low four bits of a block's values, in order. They become bytes first, so that the conversion to floats
/// is one straight loop that compiles to SIMD.
#[inline(always)]
fn nibbles(qs: &[u8]) -> [u8; BLOCK] {
    let mut out = [0; BLOCK];
    let (low, high) = out.split_at_mut(HALF);
    for ((q, low), high) in qs.iter().zip(low).zip(high) {
        *low = q & 15;
        *high = q >> 4;
    }
    out
}

/// The fifth bits of a block's values, each as 16 or 0.
#[inline(always)]
fn fifth_bits(qh: &[u8]) -> [u8; BLOCK] {
    // Eight bits at a time: bit i moves to bit i of byte i of a word, from there to bit 7 of that byte, and
    // then down to bit 4.
    const ONES: u64 = 0x0101_0101_0101_0101;
    const DIAGONAL: u64 = 0x8040_2010_0804_0201;
    let mut fifths = [0; BLOCK];
    for (bits, fifths) in qh.iter().zip(fifths.as_chunks_mut::<8>().0) {
        let spread = (u64::from(*bits) * ONES) & DIAGONAL;
        *fifths = (((spread + ONES * 0x7f) >> 3) & (ONES * 16)).to_le_bytes();
    }
    fifths
}

pub(super) fn decode_q4_0(bytes: &[u8], out: &mut [f32]) {
    each_stored::<18>(bytes, out, |block, out| {
        let d = half_at(block, 0);
        for (out, q) in out.iter_mut().zip(nibbles(&block[2..])) {
            *out = (i32::from(q) - 8) as f32 * d;
        }
    });
}

pub(super) fn decode_q4_1(bytes: &[u8], out: &mut [f32]) {
    each_stored::<20>(bytes, out, |block, out| {
        let (d, m) = (half_at(block, 0), half_at(block, 2));
        for (out, q) in out.iter_mut().zip(nibbles(&block[4..])) {
            *out = f32::from(q) * d + m;
        }
    });
}

pub(super) fn decode_q5_0(bytes: &[u8], out: &mut [f32]) {
    each_stored::<22>(bytes, out, |block, out| {
        let d = half_at(block, 0);
        let (low, fifth) = (nibbles(&block[6..]), fifth_bits(&block[2..6]));
        for ((out, low), fifth) in out.iter_mut().zip(low).zip(fifth) {
            *out = (i32::from(low | fifth) - 16) as f32 * d;
        }
    });
}

pub(super) fn decode_q5_1(bytes: &[u8], out: &mut [f32]) {
    each_stored::<24>(bytes, out, |block, out| {
        let (d, m) = (half_at(block, 0), half_at(block, 2));
        let (low, fifth) = (nibbles(&block[8..]), fifth_bits(&block[4..8]));
        for ((out, low), fifth) in out.iter_mut().zip(low).zip(fifth) {
            *out = f32::from(low | fifth) * d + m;
        }
    });
}

pub(super) fn decode_q8_0(bytes: &[u8], out: &mut [f32]) {
    each_stored::<34>(bytes, out, |block, out| {
        let d = half_at(block, 0);
        for (q, out) in block[2..].iter().zip(out) {
            *out = f32::from(*q as i8) * d;
        }
    });
}

/// The value of greatest magnitude, with its sign; the first of equals. 0 for a block of zeros.
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

/// `1 / d`, or 0 if `d` is 0.
fn inverse(d: f32) -> f32 {
    if d != 0.0 { 1.0 / d } else { 0.0 }
}

/// Truncates as x86 does: NaN and numbers out of range give `i32::MIN`, whose low byte is 0. They arise when
/// `d` is so small that `1 / d` is infinite. C leaves the result undefined; llama.cpp's builds do this.
pub(super) fn truncate(value: f32) -> i32 {
    if (-2_147_483_648.0..2_147_483_648.0).contains(&value) { value as i32 } else { i32::MIN }
}

/// Writes the low four bits of the 32 values of `q`.
pub(super) fn pack_nibbles(q: &[u8; BLOCK], qs: &mut [u8]) {
    for (j, byte) in qs.iter_mut().enumerate() {
        *byte = (q[j] & 15) | (q[j + HALF] << 4);
    }
}

/// Writes the fifth bits of the 32 values of `q`.
pub(super) fn pack_fifths(q: &[u8; BLOCK], qh: &mut [u8]) {
    let bits = q.iter().enumerate().fold(0u32, |bits, (j, q)| bits | u32::from(q >> 4 & 1) << j);
    qh.copy_from_slice(&bits.to_le_bytes());
}

pub(super) fn encode_q4_0(values: &[f32], out: &mut [u8]) -> Result<(), TooLarge> {
    each_block::<BLOCK, 18>(values, out, |x, out| {
        let d = extreme(x) / -8.0;
        let id = inverse(d);
        out[..2].copy_from_slice(&f32_to_half(d)?.to_le_bytes());
        let q = x.map(|x| (truncate(x * id + 8.5) as i8).min(15) as u8);
        pack_nibbles(&q, &mut out[2..]);
        Some(())
    })
}

pub(super) fn encode_q4_1(values: &[f32], out: &mut [u8]) -> Result<(), TooLarge> {
    each_block::<BLOCK, 20>(values, out, |x, out| {
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
    each_block::<BLOCK, 22>(values, out, |x, out| {
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
    each_block::<BLOCK, 24>(values, out, |x, out| {
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
    each_block::<BLOCK, 34>(values, out, |x, out| {
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
