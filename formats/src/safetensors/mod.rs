//! safetensors, the container of Hugging Face: a JSON header and tensors of plain element types.
//!
//! The format: the header's length as a little-endian `u64`, the header, then the data without gaps. The header maps
//! each name to `{"dtype", "shape", "data_offsets": [begin, end]}`, and `__metadata__` to a map of texts
//! (<https://github.com/huggingface/safetensors>).
//!
//! The crate `safetensors` (0.8) is our independent reader in the tests, not our parser: it adds up offsets without a
//! check (tensors that claim 2^64 bytes together make a build with overflow checks panic), keeps the last of two tensors
//! of one name, and most of its errors do not say which tensor is at fault. Its writer's metadata are in random order,
//! and our files must be the same bytes every time.

pub(crate) mod header;
mod index;
mod read;
pub mod sealed;
mod write;

pub use index::{SHARD_INDEX, shard_index, shard_name};
pub use read::{SafeTensor, SafeTensors};
pub use write::{NewSafeTensor, SafeTensorsLayout};

/// Longer headers (in bytes) other readers refuse.
const MAX_HEADER: usize = 100_000_000;

/// The name in the header that stands for no tensor.
const METADATA: &str = "__metadata__";
