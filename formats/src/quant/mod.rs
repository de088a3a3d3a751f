//! Decodes stored blocks to `f32`, and encodes `f32` values as blocks.
//!
//! Decoders give, bit for bit, what ggml's `dequantize_row_*` and the PyPI package `gguf` give. Encoders give
//! what ggml's `quantize_row_*_ref` gives without an importance matrix, and its `quantize_row_*_impl` with
//! one, so a merged file is rounded as by llama-quantize. That fixes the order of every operation: products
//! and sums follow the reference, and Rust never fuses them.
//!
//! - `float`: the float types.
//! - `legacy`: blocks of 32 values with one scale (Q4_0 to Q8_0).
//! - `k_decode`, `k_affine`, `k_symmetric`: k-quants, super-blocks of 256 values whose scales are
//!   quantized too.
//! - `non_linear`, `non_linear_encode`: codes for unevenly spaced levels (IQ4_NL, IQ4_XS, MXFP4, NVFP4).
//! - `lattice`: super-blocks of points of a `codebook`. They are only decoded.
//! - `two_bit`: codes of at most two bits with one scale. They are only decoded.
//! - `fixed_scales`: new codes for a block that keeps its scales; also for some types that are only decoded.
//! - `weighted`: encoding by an importance matrix.
//!
//! `tests/main/quant_goldens.rs` compares them with the references.

mod codebook;
mod fixed_scales;
mod float;
mod k_affine;
mod k_decode;
mod k_scales;
mod k_search;
mod k_symmetric;
mod lattice;
mod legacy;
mod non_linear;
mod non_linear_encode;
mod two_bit;
mod weighted;

use crate::dtype::DType;

pub use fixed_scales::{
    Grid, LinearGrid, NonLinearGrid, can_encode_with_fixed_scales, encode_with_fixed_scales,
};

/// Why values could not be decoded or encoded.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum QuantError {
    /// The type cannot be read.
    #[error(
        "{0} cannot be decoded; use the model as F32, F16 or BF16 or in any quantized type that llama.cpp runs"
    )]
    CannotDecode(DType),
    /// The type cannot be written.
    #[error(
        "{0} cannot be written; choose F32, F16, BF16, Q8_0, Q6_K, Q5_K, Q4_K, Q3_K, Q2_K, Q5_1, Q5_0, Q4_1, Q4_0, \
         IQ4_XS, IQ4_NL or MXFP4"
    )]
    CannotEncode(DType),
    /// The two slices are not whole blocks of equal number.
    #[error("{dtype}: {bytes} bytes do not hold {elements} values; give whole blocks of {}", dtype.block_elements())]
    Length {
        /// The stored type.
        dtype: DType,
        /// Length of the stored form.
        bytes: usize,
        /// Number of values.
        elements: usize,
    },
    /// A value is NaN or infinite, or would be in the stored type.
    #[error("value {index} is {value}, which {dtype} cannot hold; use a smaller scale or a wider type")]
    OutOfRange {
        /// The stored type.
        dtype: DType,
        /// Position of the value, counted from zero.
        index: usize,
        /// The value itself.
        value: f32,
    },
    /// There is not one importance weight for each column of whole rows.
    #[error(
        "{dtype}: {weights} importance weights do not fit {elements} values; give one for each column, whole blocks of \
         {}, and whole rows",
        dtype.block_elements()
    )]
    WeightCount {
        /// The stored type.
        dtype: DType,
        /// Number of weights.
        weights: usize,
        /// Number of values.
        elements: usize,
    },
    /// An importance weight is negative or not finite.
    #[error(
        "importance weight {column} is {weight}, but must be finite and not negative; make the matrix again"
    )]
    Weight {
        /// Position of the weight, counted from zero.
        column: usize,
        /// The weight itself.
        weight: f32,
    },
    /// The block can be stored, but not with the importance weights: its scale becomes too large or NaN.
    #[error(
        "value {index} is in a block that {dtype} cannot hold with the importance weights from column {column} on; \
         encode without them, or choose a wider type"
    )]
    WeightedScale {
        /// The stored type.
        dtype: DType,
        /// First column of the block, counted from zero.
        column: usize,
        /// Position of the block's value of greatest magnitude, counted from zero.
        index: usize,
    },
}

/// Decodes whole blocks of `dtype` into `out`.
///
/// # Errors
/// [`QuantError::CannotDecode`] for a type without a decoder, [`QuantError::Length`] unless `bytes.len()` is
/// `dtype.bytes_for(out.len())`.
pub fn decode(dtype: DType, bytes: &[u8], out: &mut [f32]) -> Result<(), QuantError> {
    if !dtype.can_decode() {
        return Err(QuantError::CannotDecode(dtype));
    }
    check_length(dtype, bytes.len(), out.len())?;
    match dtype {
        DType::F32 => float::decode_f32(bytes, out),
        DType::F16 => float::decode_f16(bytes, out),
        DType::BF16 => float::decode_bf16(bytes, out),
        DType::F64 => float::decode_f64(bytes, out),
        DType::Q4_0 => legacy::decode_q4_0(bytes, out),
        DType::Q4_1 => legacy::decode_q4_1(bytes, out),
        DType::Q5_0 => legacy::decode_q5_0(bytes, out),
        DType::Q5_1 => legacy::decode_q5_1(bytes, out),
        DType::Q8_0 => legacy::decode_q8_0(bytes, out),
        DType::Q2_K => k_decode::decode_q2_k(bytes, out),
        DType::Q3_K => k_decode::decode_q3_k(bytes, out),
        DType::Q4_K => k_decode::decode_q4_k(bytes, out),
        DType::Q5_K => k_decode::decode_q5_k(bytes, out),
        DType::Q6_K => k_decode::decode_q6_k(bytes, out),
        DType::Q1_0 => two_bit::decode_q1_0(bytes, out),
        DType::Q2_0 => two_bit::decode_q2_0(bytes, out),
        DType::TQ1_0 => two_bit::decode_tq1_0(bytes, out),
        DType::TQ2_0 => two_bit::decode_tq2_0(bytes, out),
        DType::IQ1_S => lattice::decode_iq1_s(bytes, out),
        DType::IQ1_M => lattice::decode_iq1_m(bytes, out),
        DType::IQ2_XXS => lattice::decode_iq2_xxs(bytes, out),
        DType::IQ2_XS => lattice::decode_iq2_xs(bytes, out),
        DType::IQ2_S => lattice::decode_iq2_s(bytes, out),
        DType::IQ3_XXS => lattice::decode_iq3_xxs(bytes, out),
        DType::IQ3_S => lattice::decode_iq3_s(bytes, out),
        DType::IQ4_NL => non_linear::decode_iq4_nl(bytes, out),
        DType::IQ4_XS => non_linear::decode_iq4_xs(bytes, out),
        DType::MXFP4 => non_linear::decode_mxfp4(bytes, out),
        DType::NVFP4 => non_linear::decode_nvfp4(bytes, out),
        _ => return Err(QuantError::CannotDecode(dtype)),
    }
    Ok(())
}

/// Encodes `values` as whole blocks of `dtype` into `out`.
///
/// # Errors
/// [`QuantError::CannotEncode`] for a type without an encoder, [`QuantError::Length`] unless `out.len()` is
/// `dtype.bytes_for(values.len())`, [`QuantError::OutOfRange`] for a value that is not finite or would not be
/// finite once stored. After an error `out` may hold some blocks already.
pub fn encode(dtype: DType, values: &[f32], out: &mut [u8]) -> Result<(), QuantError> {
    check_encode(dtype, values, out)?;
    let encoded = match dtype {
        DType::F32 => float::encode_f32(values, out),
        DType::F16 => float::encode_f16(values, out),
        DType::BF16 => float::encode_bf16(values, out),
        DType::F64 => float::encode_f64(values, out),
        DType::Q4_0 => legacy::encode_q4_0(values, out),
        DType::Q4_1 => legacy::encode_q4_1(values, out),
        DType::Q5_0 => legacy::encode_q5_0(values, out),
        DType::Q5_1 => legacy::encode_q5_1(values, out),
        DType::Q8_0 => legacy::encode_q8_0(values, out),
        DType::Q2_K => k_affine::encode_q2_k(values, None, out),
        DType::Q3_K => k_symmetric::encode_q3_k(values, None, out),
        DType::Q4_K => k_affine::encode_q4_k(values, None, out),
        DType::Q5_K => k_affine::encode_q5_k(values, None, out),
        DType::Q6_K => k_symmetric::encode_q6_k(values, None, out),
        DType::IQ4_NL => non_linear_encode::encode_iq4_nl(values, None, out),
        DType::IQ4_XS => non_linear_encode::encode_iq4_xs(values, None, out),
        DType::MXFP4 => non_linear_encode::encode_mxfp4(values, out),
        _ => return Err(QuantError::CannotEncode(dtype)),
    };
    encoded.map_err(|TooLarge { index }| QuantError::OutOfRange { dtype, index, value: values[index] })
}

/// Rounds each value to the nearest that the float type `dtype` holds, as [`encode`] and [`decode`] would.
/// Values that are too large become infinite. Other types change nothing.
pub fn round_to_float(dtype: DType, values: &mut [f32]) {
    match dtype {
        DType::F16 => float::round_f16(values),
        DType::BF16 => float::round_bf16(values),
        _ => {}
    }
}

/// Encodes whole rows of `weights.len()` values as [`encode`] does, with smaller errors in columns of greater
/// weight. `weights` is the tensor's importance matrix, the same for every row. Floats, Q8_0 and MXFP4 ignore
/// it.
///
/// # Errors
/// As of [`encode`]; [`QuantError::WeightCount`] unless the values are whole rows and the rows whole blocks,
/// [`QuantError::Weight`] for a weight that is negative or not finite, [`QuantError::WeightedScale`] where
/// sums of products with the weights are not finite.
pub fn encode_weighted(
    dtype: DType,
    values: &[f32],
    weights: &[f32],
    out: &mut [u8],
) -> Result<(), QuantError> {
    check_encode(dtype, values, out)?;
    let columns = weights.len();
    if columns == 0
        || !values.len().is_multiple_of(columns)
        || !columns.is_multiple_of(dtype.block_elements())
    {
        return Err(QuantError::WeightCount { dtype, weights: columns, elements: values.len() });
    }
    if let Some(column) = weights.iter().position(|weight| !(weight.is_finite() && *weight >= 0.0)) {
        return Err(QuantError::Weight { column, weight: weights[column] });
    }
    let encoded = match dtype {
        DType::Q4_0 => weighted::encode_q4_0(values, weights, out),
        DType::Q4_1 => weighted::encode_q4_1(values, weights, out),
        DType::Q5_0 => weighted::encode_q5_0(values, weights, out),
        DType::Q5_1 => weighted::encode_q5_1(values, weights, out),
        DType::Q2_K => k_affine::encode_q2_k(values, Some(weights), out),
        DType::Q3_K => k_symmetric::encode_q3_k(values, Some(weights), out),
        DType::Q4_K => k_affine::encode_q4_k(values, Some(weights), out),
        DType::Q5_K => k_affine::encode_q5_k(values, Some(weights), out),
        DType::Q6_K => k_symmetric::encode_q6_k(values, Some(weights), out),
        DType::IQ4_NL => non_linear_encode::encode_iq4_nl(values, Some(weights), out),
        DType::IQ4_XS => non_linear_encode::encode_iq4_xs(values, Some(weights), out),
        _ => return encode(dtype, values, out),
    };
    encoded.map_err(|TooLarge { index }| {
        // The weights are to blame if the block can be stored without them.
        let start = index - index % dtype.block_elements();
        let block = &values[start..start + dtype.block_elements()];
        match encode(dtype, block, &mut vec![0; dtype.block_bytes()]) {
            Ok(()) => QuantError::WeightedScale { dtype, column: start % columns, index },
            Err(_) => QuantError::OutOfRange { dtype, index, value: values[index] },
        }
    })
}

fn check_encode(dtype: DType, values: &[f32], out: &[u8]) -> Result<(), QuantError> {
    if !dtype.can_encode() {
        return Err(QuantError::CannotEncode(dtype));
    }
    check_length(dtype, out.len(), values.len())?;
    // No branch for each value, so that the loop compiles to SIMD.
    const INFINITE: u32 = f32::INFINITY.to_bits();
    if values.iter().fold(0, |greatest: u32, value| greatest.max(value.abs().to_bits())) < INFINITE {
        return Ok(());
    }
    match values.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(QuantError::OutOfRange { dtype, index, value: values[index] }),
        None => Ok(()),
    }
}

/// Calls `encode_block` with each block of `B` values and its `N` zeroed output bytes. It returns `None` if a
/// scale is too large for half precision.
fn each_block<const B: usize, const N: usize>(
    values: &[f32],
    out: &mut [u8],
    encode_block: impl Fn(&[f32; B], &mut [u8; N]) -> Option<()>,
) -> Result<(), TooLarge> {
    let blocks = values.as_chunks::<B>().0.iter().zip(out.as_chunks_mut::<N>().0);
    for (number, (block, out)) in blocks.enumerate() {
        out.fill(0);
        encode_block(block, out).ok_or_else(|| TooLarge::in_block(number * B, block))?;
    }
    Ok(())
}

fn check_length(dtype: DType, bytes: usize, elements: usize) -> Result<(), QuantError> {
    if dtype.bytes_for(elements as u64) == Some(bytes as u64) {
        Ok(())
    } else {
        Err(QuantError::Length { dtype, bytes, elements })
    }
}

/// A value, or the scale of its block, is too large for the stored type.
struct TooLarge {
    /// Position of the value among all.
    index: usize,
}

impl TooLarge {
    /// Blames the value of greatest magnitude of the block that begins at `start`.
    fn in_block(start: usize, block: &[f32]) -> Self {
        let mut largest = 0;
        for (index, value) in block.iter().enumerate() {
            if value.abs() > block[largest].abs() {
                largest = index;
            }
        }
        TooLarge { index: start + largest }
    }
}

/// Converts half precision to single, exactly for every bit pattern. It has no branches, so that loops over
/// it become SIMD.
#[inline(always)]
fn half_to_f32(bits: u16) -> f32 {
    // After the shift the exponent is 112 too small. The product corrects it, also for subnormal numbers.
    const TWO_TO_112: f32 = f32::from_bits((127 + 112) << 23);
    let magnitude = u32::from(bits & 0x7fff) << 13;
    let finite = (f32::from_bits(magnitude) * TWO_TO_112).to_bits();
    let special = magnitude | 0x7f80_0000;
    let sign = u32::from(bits & 0x8000) << 16;
    f32::from_bits(sign | if bits & 0x7c00 == 0x7c00 { special } else { finite })
}

/// The half-precision number that begins at byte `at`.
#[inline(always)]
fn half_at(block: &[u8], at: usize) -> f32 {
    half_to_f32(u16::from_le_bytes([block[at], block[at + 1]]))
}

/// Converts single precision to half, to the nearest, ties to even. `None` if the result is not finite.
#[inline(always)]
fn f32_to_half(value: f32) -> Option<u16> {
    let half = half::f16::from_f32(value);
    half.is_finite().then(|| half.to_bits())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_convert_as_the_half_crate_converts_them() {
        for bits in 0..=u16::MAX {
            let expected = half::f16::from_bits(bits).to_f32();
            let found = half_to_f32(bits);
            assert!(
                found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan()),
                "{bits:04x}"
            );
        }
    }

    #[test]
    fn every_type_decodes_and_encodes_exactly_if_it_says_so() {
        for dtype in DType::all() {
            let values = vec![0.5f32; dtype.block_elements() * 2];
            let mut bytes = vec![0u8; dtype.block_bytes() * 2];
            let encoded = encode(dtype, &values, &mut bytes);
            assert_eq!(encoded.is_ok(), dtype.can_encode(), "{dtype}");
            let mut back = vec![0f32; values.len()];
            assert_eq!(decode(dtype, &bytes, &mut back).is_ok(), dtype.can_decode(), "{dtype}");
            if dtype.can_encode() && dtype.can_decode() {
                assert!(back.iter().all(|v| (v - 0.5).abs() < 0.05), "{dtype}: {back:?}");
            }
        }
    }

    #[test]
    fn wrong_lengths_are_refused() {
        let mut out = [0f32; 32];
        assert!(matches!(decode(DType::Q4_0, &[0; 17], &mut out), Err(QuantError::Length { .. })));
        assert!(matches!(decode(DType::Q4_0, &[0; 36], &mut out), Err(QuantError::Length { .. })));
        assert!(matches!(encode(DType::Q4_K, &[0.0; 32], &mut [0; 144]), Err(QuantError::Length { .. })));
    }

    #[test]
    fn values_a_type_cannot_hold_are_named() {
        for dtype in DType::all().filter(|dtype| dtype.can_encode()) {
            let mut values = vec![1f32; dtype.block_elements().max(4) * 2];
            let at = values.len() - 3;
            let mut out = vec![0; dtype.bytes_for(values.len() as u64).unwrap() as usize];
            for hostile in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, -f32::MAX] {
                if hostile.is_finite() && matches!(dtype, DType::F32 | DType::F64) {
                    continue;
                }
                values[at] = hostile;
                match encode(dtype, &values, &mut out) {
                    Err(QuantError::OutOfRange { index, .. }) => assert_eq!(index, at, "{dtype}"),
                    other => panic!("{dtype} {hostile}: {other:?}"),
                }
            }
        }
    }
}
