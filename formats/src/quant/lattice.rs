//! Decodes super-blocks of 256 values whose codes are points of a codebook. A point of IQ1 is eight
//! coordinates, which are shifted. A point of IQ2 is eight magnitudes and one of IQ3 four; their signs are
//! stored separately. A super-block has eight sub-blocks of 32 values, each four groups of eight.
//!
//! Source: `block_iq1_s` and its neighbours in ggml-common.h, `dequantize_row_iq*` in ggml-quants.c, and the
//! class `IQ2_XXS` and its neighbours in quants.py of the PyPI package `gguf`. Numbers of several bytes are
//! little-endian.

use super::codebook::{self, evenly_signed, joined, signed};
use super::{half_at, half_to_f32};

const BLOCK: usize = 256;
const SUB: usize = 32;

/// Writes `scale` times each code.
#[inline(always)]
fn scaled(codes: &[[i8; 8]], scale: f32, out: &mut [f32]) {
    for (out, code) in out.iter_mut().zip(codes.as_flattened()) {
        *out = scale * f32::from(*code);
    }
}

/// The scales of the two halves of a sub-block of IQ2_XS or IQ2_S, four bits each.
#[inline(always)]
fn half_scales(d: f32, packed: u8) -> [f32; 2] {
    [packed & 15, packed >> 4].map(|scale| d * (0.5 + f32::from(scale)) * 0.25)
}

/// Stored: `d`, then for each sub-block 4 indices into the codebook and a 32-bit word: 4 times 7 sign bits, 4
/// bits of scale.
pub(super) fn decode_iq2_xxs(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<66>().0.iter().zip(out.as_chunks_mut::<BLOCK>().0) {
        let d = half_at(block, 0);
        for (sub, out) in block[2..].as_chunks::<8>().0.iter().zip(out.as_chunks_mut::<SUB>().0) {
            let [places @ .., s0, s1, s2, s3] = *sub;
            let word = u32::from_le_bytes([s0, s1, s2, s3]);
            let scale = d * (0.5 + (word >> 28) as f32) * 0.25;
            let codes: [_; 4] = std::array::from_fn(|group| {
                evenly_signed(codebook::IQ2_XXS[usize::from(places[group])], word >> (7 * group))
            });
            scaled(&codes, scale, out);
        }
    }
}

/// Stored: `d`, `qs` 32 numbers of 16 bits (index 9, signs 7), `scales` 8 (first half of the sub-block in the
/// low four bits).
pub(super) fn decode_iq2_xs(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<74>().0.iter().zip(out.as_chunks_mut::<BLOCK>().0) {
        let d = half_at(block, 0);
        let subs = block[2..66].as_chunks::<8>().0.iter().zip(&block[66..]);
        for ((qs, scale), out) in subs.zip(out.as_chunks_mut::<SUB>().0) {
            let scales = half_scales(d, *scale);
            let codes: [_; 4] = std::array::from_fn(|group| {
                let q = u16::from_le_bytes([qs[2 * group], qs[2 * group + 1]]);
                evenly_signed(codebook::IQ2_XS[usize::from(q & 511)], u32::from(q >> 9))
            });
            scaled(&codes[..2], scales[0], &mut out[..16]);
            scaled(&codes[2..], scales[1], &mut out[16..]);
        }
    }
}

/// Stored: `d`, `qs` 32 (low eight bits of the indices), signs 32, `qh` 8 (top two bits, four to a byte),
/// `scales` 8.
pub(super) fn decode_iq2_s(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<82>().0.iter().zip(out.as_chunks_mut::<BLOCK>().0) {
        let d = half_at(block, 0);
        let (qs, signs) = (block[2..34].as_chunks::<4>().0, block[34..66].as_chunks::<4>().0);
        let subs = qs.iter().zip(signs).zip(block[66..74].iter().zip(&block[74..]));
        for (((qs, signs), (qh, scale)), out) in subs.zip(out.as_chunks_mut::<SUB>().0) {
            let scales = half_scales(d, *scale);
            let codes: [_; 4] = std::array::from_fn(|group| {
                let place = usize::from(qs[group]) | usize::from(qh >> (2 * group) & 3) << 8;
                signed(codebook::IQ2_S[place], signs[group])
            });
            scaled(&codes[..2], scales[0], &mut out[..16]);
            scaled(&codes[2..], scales[1], &mut out[16..]);
        }
    }
}

/// Stored: `d`, `qs` 64 indices, two to a group, then a word for each sub-block as in IQ2_XXS.
pub(super) fn decode_iq3_xxs(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<98>().0.iter().zip(out.as_chunks_mut::<BLOCK>().0) {
        let d = half_at(block, 0);
        let subs = block[2..66].as_chunks::<8>().0.iter().zip(block[66..].as_chunks::<4>().0);
        for ((qs, word), out) in subs.zip(out.as_chunks_mut::<SUB>().0) {
            let word = u32::from_le_bytes(*word);
            let scale = d * (0.5 + (word >> 28) as f32) * 0.5;
            let points = qs.map(|q| codebook::IQ3_XXS[usize::from(q)]);
            let codes: [_; 4] = std::array::from_fn(|group| {
                evenly_signed(joined(points[2 * group], points[2 * group + 1]), word >> (7 * group))
            });
            scaled(&codes, scale, out);
        }
    }
}

/// Stored: `d`, `qs` 64 (low eight bits of the indices), `qh` 8 (ninth bits), `signs` 32, `scales` 4 (two
/// sub-blocks to a byte, the first low).
pub(super) fn decode_iq3_s(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<110>().0.iter().zip(out.as_chunks_mut::<BLOCK>().0) {
        let d = half_at(block, 0);
        let (qs, signs) = (block[2..66].as_chunks::<8>().0, block[74..106].as_chunks::<4>().0);
        let subs = qs.iter().zip(&block[66..74]).zip(signs).zip(out.as_chunks_mut::<SUB>().0);
        for (sub, (((qs, qh), signs), out)) in subs.enumerate() {
            let scale = d * f32::from(1 + 2 * (block[106 + sub / 2] >> (sub % 2 * 4) & 15));
            let points: [_; 8] = std::array::from_fn(|at| {
                codebook::IQ3_S[usize::from(qs[at]) | usize::from(qh >> at & 1) << 8]
            });
            let codes: [_; 4] = std::array::from_fn(|group| {
                signed(joined(points[2 * group], points[2 * group + 1]), signs[group])
            });
            scaled(&codes, scale, out);
        }
    }
}

/// Writes `scale` times each coordinate of the point, shifted by an eighth.
#[inline(always)]
fn shifted(place: usize, down: bool, scale: f32, out: &mut [f32; 8]) {
    let shift = if down { -0.125 } else { 0.125 };
    for (out, coordinate) in out.iter_mut().zip(codebook::IQ1[place]) {
        *out = scale * (f32::from(coordinate) + shift);
    }
}

/// Stored: `d`, `qs` 32 (low eight bits of the indices), `qh` 8 numbers of 16 bits, one for each sub-block: 4
/// times the top three bits of an index, three bits of scale, one bit that is set to shift down.
pub(super) fn decode_iq1_s(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<50>().0.iter().zip(out.as_chunks_mut::<BLOCK>().0) {
        let d = half_at(block, 0);
        let subs = block[2..34].as_chunks::<4>().0.iter().zip(block[34..].as_chunks::<2>().0);
        for ((qs, qh), out) in subs.zip(out.as_chunks_mut::<SUB>().0) {
            let qh = u16::from_le_bytes(*qh);
            let scale = d * f32::from(2 * (qh >> 12 & 7) + 1);
            for (group, (q, out)) in qs.iter().zip(out.as_chunks_mut::<8>().0).enumerate() {
                let place = usize::from(*q) | usize::from(qh >> (3 * group) & 7) << 8;
                shifted(place, qh & 0x8000 != 0, scale, out);
            }
        }
    }
}

/// Stored: `qs` 32 (low eight bits of the indices), `qh` 16 (two groups to a byte, the first low: the top
/// three bits of the index, and one bit that is set to shift down), `scales` 4 numbers of 16 bits. The top
/// four bits of these numbers are `d`, lowest first. Their other bits are four scales of three bits, one for
/// each half of a sub-block.
pub(super) fn decode_iq1_m(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<56>().0.iter().zip(out.as_chunks_mut::<BLOCK>().0) {
        let packed: [u16; 4] =
            std::array::from_fn(|j| u16::from_le_bytes([block[48 + 2 * j], block[49 + 2 * j]]));
        let d = half_to_f32(packed.iter().rev().fold(0, |d, packed| d << 4 | packed >> 12));
        let halves = block[..32].as_chunks::<2>().0.iter().zip(&block[32..48]);
        for (half, ((qs, qh), out)) in halves.zip(out.as_chunks_mut::<16>().0).enumerate() {
            let scale = d * f32::from(2 * (packed[half / 4] >> (half % 4 * 3) & 7) + 1);
            let (groups, _) = out.as_chunks_mut::<8>();
            for ((q, high), out) in qs.iter().zip([qh & 15, qh >> 4]).zip(groups) {
                shifted(usize::from(*q) | usize::from(high & 7) << 8, high & 8 != 0, scale, out);
            }
        }
    }
}
