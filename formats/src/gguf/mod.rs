//! GGUF, the container of llama.cpp and Ollama: typed metadata and tensors of ggml's types in one file.
//!
//! Why is the crate `gguf-rs` not the reader? It turns metadata into JSON values in a sorted map. A `u32` is
//! then the same as an `i64`, an empty array has no element type, and the order of the keys is gone. A file
//! read through it could not be written again as it was, and llama.cpp refuses some keys in another type
//! (`general.alignment` must be a `u32`). It knows no type after MXFP4, computes wrong sizes for integers,
//! BF16, IQ4_NL and MXFP4, reads through a stream, and trusts the counts in it. Here every value keeps its
//! type and place, the weights stay mapped, and a file written from what was read has the same header bytes.
//!
//! `gguf-rs` serves as a second reader instead: [`second_opinion`] compares what it sees in a header with
//! what ours sees.
//!
//! The format, all little-endian (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>):
//!
//! ```text
//! "GGUF"  version u32  tensor count u64  key count u64
//! key:    name string  type u32  value          string: length u64, UTF-8 bytes
//! tensor: name string  dimension count u32  dimensions u64...  ggml type u32  offset u64
//! zeros up to a multiple of `general.alignment` (32 unless given), then the data, each tensor so aligned
//! ```
//!
//! Versions 2 and 3 differ only in big-endian files, which version 3 allows and nobody uses. Version 1
//! counted in `u32`; llama.cpp no longer reads it.

mod parse;
mod read;
mod second_reader;
mod split;
mod value;
mod write;

use crate::dtype::DType;

pub use read::{Gguf, GgufTensor};
pub use second_reader::{Disagreement, SecondOpinion, second_opinion};
pub use split::{GgufModel, split_metadata, split_name};
pub use value::{Array, Value};
pub use write::{GgufLayout, NewTensor};

/// The key whose value is the alignment of the data, as a `u32`.
const ALIGNMENT_KEY: &str = "general.alignment";

/// The alignment of a file that has no [`ALIGNMENT_KEY`].
const DEFAULT_ALIGNMENT: u64 = 32;

/// The largest alignment accepted, more than any file needs. Padding of that length is allocated, so a file
/// must not choose it freely.
const MAX_ALIGNMENT: u64 = 1 << 24;

/// The most dimensions that ggml has.
const MAX_DIMS: usize = 4;

/// Bytes that a tensor takes, or what is wrong with its dimensions.
fn tensor_bytes(dtype: DType, dims: &[u64]) -> Result<u64, String> {
    if dims.contains(&0) {
        return Err("a dimension is zero".to_owned());
    }
    let row = dims.first().copied().unwrap_or(1);
    let block = dtype.block_elements();
    if !row.is_multiple_of(block as u64) {
        return Err(format!("rows of {row} values are not a whole number of {dtype} blocks of {block}"));
    }
    dims.iter()
        .try_fold(1u64, |product, &dim| product.checked_mul(dim))
        // ggml counts elements and bytes in signed 64-bit integers.
        .filter(|&elements| i64::try_from(elements).is_ok())
        .and_then(|elements| dtype.bytes_for(elements))
        .filter(|&bytes| i64::try_from(bytes).is_ok())
        .ok_or_else(|| format!("dimensions {dims:?} are too large"))
}
