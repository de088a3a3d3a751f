//! Decodes super-blocks of 256 values: 8 sub-blocks of 32 (Q4_K, Q5_K) or 16 of 16 (Q2_K, Q3_K, Q6_K). A
//! sub-block's scale is its small integer times the super-block's half-precision scale.
//!
//! Source: `block_q2_K` and its neighbours in ggml-common.h, `dequantize_row_*_K` in ggml-quants.c, and the
//! class `Q2_K` and its neighbours in quants.py of the PyPI package `gguf`.

use super::{half_at, k_scales};

const BLOCK: usize = 256;

/// Stored: `scales` 16 (low half scale, high half minimum), `qs` 64, `d`, `dmin`.
pub(super) fn decode_q2_k(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<84>().0.iter().zip(out.as_chunks_mut::<BLOCK>().0) {
        let (scales, qs) = (&block[..16], &block[16..80]);
        let (d, dmin) = (half_at(block, 80), half_at(block, 82));
        // Each 32 bytes of `qs` hold four runs of 32 values, two bits each; a run is two sub-blocks.
        for (sub, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let scale = d * f32::from(scales[sub] & 15);
            let minimum = dmin * f32::from(scales[sub] >> 4);
            let (start, shift) = (sub / 8 * 32 + sub % 2 * 16, sub / 2 % 4 * 2);
            for (out, q) in out.iter_mut().zip(&qs[start..start + 16]) {
                *out = scale * f32::from(q >> shift & 3) - minimum;
            }
        }
    }
}

/// Stored: `hmask` 32 (third bits; a value whose bit is clear is 4 less), `qs` 64, `scales` 12, `d`.
pub(super) fn decode_q3_k(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<110>().0.iter().zip(out.as_chunks_mut::<BLOCK>().0) {
        let (hmask, qs, packed) = (&block[..32], &block[32..96], &block[96..108]);
        let d = half_at(block, 108);
        for (sub, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let scale = d * q3_k_scale(packed, sub);
            let (start, shift) = (sub / 8 * 32 + sub % 2 * 16, sub / 2 % 4 * 2);
            let third = 1u8 << (sub / 2);
            let h = &hmask[sub % 2 * 16..sub % 2 * 16 + 16];
            for ((out, q), h) in out.iter_mut().zip(&qs[start..start + 16]).zip(h) {
                let below = if h & third != 0 { 0 } else { 4 };
                *out = scale * (i32::from(q >> shift & 3) - below) as f32;
            }
        }
    }
}

/// The small scale of sub-block `sub` of a Q3_K block, from the 12 bytes of `scales`.
#[inline(always)]
pub(super) fn q3_k_scale(packed: &[u8], sub: usize) -> f32 {
    let low = packed[sub % 8] >> (sub / 8 * 4) & 15;
    let high = packed[8 + sub % 4] >> (sub / 4 * 2) & 3;
    f32::from((low | high << 4) as i8 - 32)
}

/// The scales and minimums of the eight sub-blocks of a Q4_K or Q5_K block, multiplied out.
#[inline(always)]
fn sub_block_scales(block: &[u8]) -> ([f32; 8], [f32; 8]) {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    let mut packed = [0; 12];
    packed.copy_from_slice(&block[4..16]);
    let (scales, minimums) = k_scales::unpack(&packed);
    (scales.map(|scale| d * f32::from(scale)), minimums.map(|minimum| dmin * f32::from(minimum)))
}

/// Stored: `d`, `dmin`, `scales` 12, `qs` 128; each 32 bytes of `qs` hold two sub-blocks, low halves first.
pub(super) fn decode_q4_k(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<144>().0.iter().zip(out.as_chunks_mut::<BLOCK>().0) {
        let (scales, minimums) = sub_block_scales(block);
        let pairs = block[16..].as_chunks::<32>().0.iter().zip(out.as_chunks_mut::<64>().0);
        for (pair, (qs, out)) in pairs.enumerate() {
            let (low, high) = out.split_at_mut(32);
            let (scale, minimum) = (&scales[2 * pair..2 * pair + 2], &minimums[2 * pair..2 * pair + 2]);
            for ((q, low), high) in qs.iter().zip(low).zip(high) {
                *low = scale[0] * f32::from(q & 15) - minimum[0];
                *high = scale[1] * f32::from(q >> 4) - minimum[1];
            }
        }
    }
}

/// Stored: `d`, `dmin`, `scales` 12, `qh` 32 (fifth bits: sub-block s at bit s), `qs` 128 as in Q4_K.
pub(super) fn decode_q5_k(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<176>().0.iter().zip(out.as_chunks_mut::<BLOCK>().0) {
        let (scales, minimums) = sub_block_scales(block);
        let qh = &block[16..48];
        let pairs = block[48..].as_chunks::<32>().0.iter().zip(out.as_chunks_mut::<64>().0);
        for (pair, (qs, out)) in pairs.enumerate() {
            let (low, high) = out.split_at_mut(32);
            let (scale, minimum) = (&scales[2 * pair..2 * pair + 2], &minimums[2 * pair..2 * pair + 2]);
            for (((q, h), low), high) in qs.iter().zip(qh).zip(low).zip(high) {
                let fifths = h >> (2 * pair);
                *low = scale[0] * f32::from(q & 15 | (fifths & 1) << 4) - minimum[0];
                *high = scale[1] * f32::from(q >> 4 | (fifths & 2) << 3) - minimum[1];
            }
        }
    }
}

/// Stored: `ql` 128 (low four bits), `qh` 64 (top two bits), `scales` 16 (signed), `d`.
pub(super) fn decode_q6_k(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<210>().0.iter().zip(out.as_chunks_mut::<BLOCK>().0) {
        let d = half_at(block, 208);
        // Two halves of 128 values; in each, runs of 32 values share a nibble of `ql` and a bit pair of `qh`.
        for (half, out) in out.as_chunks_mut::<128>().0.iter_mut().enumerate() {
            let (ql, qh) = (&block[half * 64..][..64], &block[128 + half * 32..][..32]);
            let scales: [f32; 8] = std::array::from_fn(|j| d * f32::from(block[192 + half * 8 + j] as i8));
            let (runs, _) = out.as_chunks_mut::<32>();
            six_bit_run::<0, 0>(&ql[..32], qh, &scales[0..2], &mut runs[0]);
            six_bit_run::<0, 2>(&ql[32..], qh, &scales[2..4], &mut runs[1]);
            six_bit_run::<4, 4>(&ql[..32], qh, &scales[4..6], &mut runs[2]);
            six_bit_run::<4, 6>(&ql[32..], qh, &scales[6..8], &mut runs[3]);
        }
    }
}

/// Decodes two sub-blocks of 16 whose bits are at `NIBBLE` and `PAIR`. These are constants so that the shifts
/// become SIMD.
#[inline(always)]
fn six_bit_run<const NIBBLE: u32, const PAIR: u32>(
    low: &[u8],
    high: &[u8],
    scales: &[f32],
    out: &mut [f32; 32],
) {
    let subs =
        out.as_chunks_mut::<16>().0.iter_mut().zip(low.as_chunks::<16>().0).zip(high.as_chunks::<16>().0);
    for (((out, low), high), scale) in subs.zip(scales) {
        for ((out, low), high) in out.iter_mut().zip(low).zip(high) {
            let q = low >> NIBBLE & 15 | (high >> PAIR & 3) << 4;
            *out = scale * (i32::from(q) - 32) as f32;
        }
    }
}
