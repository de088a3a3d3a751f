//! stub

use crate::dtype::DType;

/// Why values could not be decoded or encoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantError {
    /// The type cannot be read.
    #[error(
        "{0} cannot be decoded; convert the model to a type such as Q8_0, Q4_K or F16 with llama-quantize first"
    )]
    CannotDecode(DType),
    /// The type cannot be written.
    #[error("{0} cannot be written; choose F32, F16, BF16, Q8_0, Q6_K, Q5_K, Q4_K, Q5_1, Q5_0, Q4_1 or Q4_0")]
    CannotEncode(DType),
    /// The two slices do not hold the same whole number of blocks.
    #[error("{dtype}: {bytes} bytes do not hold {elements} values")]
    Length {
        /// The stored type.
        dtype: DType,
        /// Length of the stored form.
        bytes: usize,
        /// Number of values.
        elements: usize,
    },
    /// A value is NaN or infinite, or becomes so in the stored type.
    #[error("value {index} is {value}, which {dtype} cannot hold")]
    OutOfRange {
        /// The stored type.
        dtype: DType,
        /// Position of the value, counted from zero.
        index: usize,
        /// The value, printed.
        value: String,
    },
}

/// Decodes whole blocks of `dtype` into `out`; `bytes.len()` must be `dtype.bytes_for(out.len())`.
pub fn decode(_dtype: DType, _bytes: &[u8], _out: &mut [f32]) -> Result<(), QuantError> {
    todo!()
}

/// Encodes `values` as whole blocks of `dtype` into `out`; `out.len()` must be `dtype.bytes_for(values.len())`.
pub fn encode(_dtype: DType, _values: &[f32], _out: &mut [u8]) -> Result<(), QuantError> {
    todo!()
}
