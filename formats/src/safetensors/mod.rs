//! safetensors, the container of Hugging Face: a JSON header and tensors of plain element types.
//!
//! The format: the header's length as a little-endian `u64`, the header, then the data without gaps. The
//! header maps each name to `{"dtype", "shape", "data_offsets": [begin, end]}`, and `__metadata__` to a map
//! of texts (<https://github.com/huggingface/safetensors>).
//!
//! Reading is shared with the crate `safetensors`. It parses and checks the header
//! ([`read_metadata`](::safetensors::SafeTensors::read_metadata)): shapes fit their bytes, tensors cover the
//! data without gap or overlap. This module adds what the crate leaves out. Two tensors of one name are
//! refused, where the crate keeps the last. Ends beyond the file are refused first, because the crate adds
//! offsets up unchecked. An error names the tensor at fault. Our views hold `u64` offsets from the start of
//! the file, and the program's own [`DType`](crate::DType).
//!
//! Writing is not shared: the crate writes metadata in random order, and our files must be the same bytes
//! every time.
//!
//! A header costs memory in proportion to its length, which is at most 100 MB: the crate buffers it as a tree
//! before it reads the tensors.

mod check;
pub(crate) mod header;
mod index;
mod read;
pub mod sealed;
mod write;

pub use index::{SHARD_INDEX, shard_index, shard_name};
pub use read::{SafeTensor, SafeTensors};
pub use write::{NewSafeTensor, SafeTensorsLayout};

/// The longest header in bytes that other readers accept.
const MAX_HEADER: usize = 100_000_000;

/// The one name in the header that is not a tensor.
const METADATA: &str = "__metadata__";
