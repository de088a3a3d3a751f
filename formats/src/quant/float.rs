//! F32, F16, BF16 and F64: one value, one element; all little-endian.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::{TooLarge, f32_to_half};

pub(super) fn decode_f32(bytes: &[u8], out: &mut [f32]) {
    for (bytes, out) in bytes.as_chunks::<4>().0.iter().zip(out) {
        *out = f32::from_le_bytes(*bytes);
    }
}

pub(super) fn decode_f16(bytes: &[u8], out: &mut [f32]) {
    // A few at a time through the `half` crate, which uses the processor's own conversion where there is one.
    const CHUNK: usize = 64;
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
    for (index, (value, out)) in values.iter().zip(out.as_chunks_mut::<2>().0).enumerate() {
        *out = f32_to_half(*value).ok_or(TooLarge { index })?.to_le_bytes();
    }
    Ok(())
}

pub(super) fn encode_bf16(values: &[f32], out: &mut [u8]) -> Result<(), TooLarge> {
    for (index, (value, out)) in values.iter().zip(out.as_chunks_mut::<2>().0).enumerate() {
        let rounded = bf16::from_f32(*value);
        if !rounded.is_finite() {
            return Err(TooLarge { index });
        }
        *out = rounded.to_le_bytes();
    }
    Ok(())
}

pub(super) fn encode_f64(values: &[f32], out: &mut [u8]) -> Result<(), TooLarge> {
    for (value, out) in values.iter().zip(out.as_chunks_mut::<8>().0) {
        *out = f64::from(*value).to_le_bytes();
    }
    Ok(())
}
