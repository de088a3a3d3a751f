//! Non-linear 4-bit types: a code stands for one of 16 unevenly spaced levels. IQ4_NL and IQ4_XS share a
//! table of levels; MXFP4 and NVFP4 use the float E2M1.
//!
//! In `qs`, byte j of a run of values has value j in its low half and the value half a run later in its high
//! half. Source: `kvalues_iq4nl`, `kvalues_fp4`, `block_iq4_nl`, `block_iq4_xs`, `block_mxfp4` and
//! `block_nvfp4` in ggml-common.h, `dequantize_row_*` in ggml-quants.c, `ggml_e8m0_to_fp32_half` and
//! `ggml_ue4m3_to_fp32` in ggml-impl.h.

use super::half_at;

/// The levels of the codes of IQ4_NL and IQ4_XS.
pub(super) const IQ4_LEVELS: [f32; 16] = [
    -127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0,
];

/// Twice the levels of the codes of E2M1. Code 8 is a zero without sign.
pub(super) const E2M1: [f32; 16] =
    [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 0.0, -1.0, -2.0, -3.0, -4.0, -6.0, -8.0, -12.0];

/// Decodes a run of `2 * qs.len()` values.
#[inline(always)]
fn run(scale: f32, values: &[f32; 16], qs: &[u8], out: &mut [f32]) {
    let (low, high) = out.split_at_mut(qs.len());
    for ((q, low), high) in qs.iter().zip(low).zip(high) {
        *low = scale * values[usize::from(q & 15)];
        *high = scale * values[usize::from(q >> 4)];
    }
}

/// Stored: `d`, `qs` 16.
pub(super) fn decode_iq4_nl(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<18>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        run(half_at(block, 0), &IQ4_LEVELS, &block[2..], out);
    }
}

/// Stored: `d`, `scales_h` 2 (top two bits of the sub-blocks' scales, lowest first), `scales_l` 4 (low four
/// bits), `qs` 128; eight sub-blocks of 32 values.
pub(super) fn decode_iq4_xs(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<136>().0.iter().zip(out.as_chunks_mut::<256>().0) {
        let subs = block[8..].as_chunks::<16>().0.iter().zip(out.as_chunks_mut::<32>().0);
        for (sub, (qs, out)) in subs.enumerate() {
            run(iq4_xs_scale(block, sub), &IQ4_LEVELS, qs, out);
        }
    }
}

/// The scale of sub-block `sub`, multiplied out.
#[inline(always)]
pub(super) fn iq4_xs_scale(block: &[u8], sub: usize) -> f32 {
    let low = block[4 + sub / 2] >> (sub % 2 * 4) & 15;
    let high = block[2 + sub / 4] >> (sub % 4 * 2) & 3;
    half_at(block, 0) * f32::from((low | high << 4) as i8 - 32)
}

/// Stored: `e` (E8M0, a power of two), `qs` 16.
pub(super) fn decode_mxfp4(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<17>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        run(half_of_e8m0(block[0]), &E2M1, &block[1..], out);
    }
}

/// Stored: `d` 4 (UE4M3, one for each 16 values), `qs` 32.
pub(super) fn decode_nvfp4(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<36>().0.iter().zip(out.as_chunks_mut::<64>().0) {
        let subs = block[..4].iter().zip(block[4..].as_chunks::<8>().0);
        for ((scale, qs), out) in subs.zip(out.as_chunks_mut::<16>().0) {
            run(half_of_ue4m3(*scale), &E2M1, qs, out);
        }
    }
}

/// `2^(e - 128)`. 255 does not mean NaN here.
#[inline(always)]
pub(super) fn half_of_e8m0(e: u8) -> f32 {
    let e = u32::from(e);
    // The smallest two are subnormal.
    f32::from_bits(if e < 2 { 1 << (21 + e) } else { (e - 1) << 23 })
}

/// Half of the float with four bits of exponent and three of mantissa. The eighth bit is ignored. 0x7f, a
/// NaN, gives 0.
#[inline(always)]
pub(super) fn half_of_ue4m3(bits: u8) -> f32 {
    let (exponent, mantissa) = (u32::from(bits >> 3 & 15), u32::from(bits & 7));
    match (bits, exponent) {
        (0x7f, _) => 0.0,
        (_, 0) => mantissa as f32 / 1024.0,
        _ => f32::from_bits((exponent + 127 - 8) << 23 | mantissa << 20),
    }
}
