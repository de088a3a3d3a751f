//! F32, F16, BF16 and F64: little-endian floats, one element a value.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::TooLarge;

/// Values that the `half` crate converts at a time. It uses the processor's conversion instructions if there
/// are any.
const CHUNK: usize = 64;

pub(super) fn decode_f32(bytes: &[u8], out: &mut [f32]) {
    for (bytes, out) in bytes.as_chunks::<4>().0.iter().zip(out) {
        *out = f32::from_le_bytes(*bytes);
    }
}

pub(super) fn decode_f16(bytes: &[u8], out: &mut [f32]) {
    let (stored, _) = bytes.as_chunks::<2>();
    for (stored, out) in stored.chunks(CHUNK).zip(out.chunks_mut(CHUNK)) {
        let mut halves = [f16::ZERO; CHUNK];
        for (half, stored) in halves.iter_mut().zip(stored) {
            *half = f16::from_le_bytes(*stored);
        }
        halves[..stored.len()].convert_to_f32_slice(out);
    }
}

pub(super) fn decode_bf16(bytes: &[u8], out: &mut [f32]) {
    for (bytes, out) in bytes.as_chunks::<2>().0.iter().zip(out) {
        *out = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
    }
}

pub(super) fn decode_f64(bytes: &[u8], out: &mut [f32]) {
    for (bytes, out) in bytes.as_chunks::<8>().0.iter().zip(out) {
        *out = f64::from_le_bytes(*bytes) as f32;
    }
}

pub(super) fn encode_f32(values: &[f32], out: &mut [u8]) -> Result<(), TooLarge> {
    for (value, out) in values.iter().zip(out.as_chunks_mut::<4>().0) {
        *out = value.to_le_bytes();
    }
    Ok(())
}

pub(super) fn encode_f16(values: &[f32], out: &mut [u8]) -> Result<(), TooLarge> {
    let (out, _) = out.as_chunks_mut::<2>();
    for (chunk, (values, out)) in values.chunks(CHUNK).zip(out.chunks_mut(CHUNK)).enumerate() {
        let mut halves = [f16::ZERO; CHUNK];
        let halves = &mut halves[..values.len()];
        halves.convert_from_f32_slice(values);
        for (out, half) in out.iter_mut().zip(&*halves) {
            *out = half.to_le_bytes();
        }
        if !all_finite(halves) {
            return Err(first_infinite(chunk * CHUNK, halves.iter().map(|half| half.is_finite())));
        }
    }
    Ok(())
}

fn all_finite(halves: &[f16]) -> bool {
    const EXPONENT: u16 = 0x7c00;
    halves.iter().fold(0, |greatest, half| greatest.max(half.to_bits() & EXPONENT)) < EXPONENT
}

fn first_infinite(start: usize, mut finite: impl Iterator<Item = bool>) -> TooLarge {
    TooLarge { index: start + finite.position(|finite| !finite).unwrap_or(0) }
}

pub(super) fn encode_bf16(values: &[f32], out: &mut [u8]) -> Result<(), TooLarge> {
    let (out, _) = out.as_chunks_mut::<2>();
    for (chunk, (values, out)) in values.chunks(CHUNK).zip(out.chunks_mut(CHUNK)).enumerate() {
        let mut finite = true;
        for (value, out) in values.iter().zip(out) {
            let rounded = round_to_bf16(*value);
            finite &= rounded.is_finite();
            *out = ((rounded.to_bits() >> 16) as u16).to_le_bytes();
        }
        if !finite {
            let finite = values.iter().map(|value| bf16::from_f32(*value).is_finite());
            return Err(first_infinite(chunk * CHUNK, finite));
        }
    }
    Ok(())
}

/// The nearest bfloat16 as f32, ties to even. A number at least half a step beyond the largest becomes
/// infinite.
fn round_to_bf16(value: f32) -> f32 {
    let bits = value.to_bits();
    // NaN stays NaN: adding to its bits could carry into the sign.
    if value.is_nan() {
        return value;
    }
    f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
}

pub(super) fn round_f16(values: &mut [f32]) {
    for values in values.chunks_mut(CHUNK) {
        let mut halves = [f16::ZERO; CHUNK];
        let halves = &mut halves[..values.len()];
        halves.convert_from_f32_slice(values);
        halves.convert_to_f32_slice(values);
    }
}

pub(super) fn round_bf16(values: &mut [f32]) {
    values.iter_mut().for_each(|value| *value = round_to_bf16(*value));
}

pub(super) fn encode_f64(values: &[f32], out: &mut [u8]) -> Result<(), TooLarge> {
    for (value, out) in values.iter().zip(out.as_chunks_mut::<8>().0) {
        *out = f64::from(*value).to_le_bytes();
    }
    Ok(())
}
