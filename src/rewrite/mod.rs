//! A model file again, with some of its tensors computed anew.
//!
//! A [`ComputedTensor`] computes its bytes; what they mean is the caller's business. Everything else of the
//! model is copied byte for byte. Where no size changes, the output is the old file with some ranges
//! replaced: header, order, gaps and padding stay, whoever wrote them. Where a type changes, the header is
//! laid out anew and the tensors move.
//!
//! [`gguf`], [`safetensors`] and [`onnx`] each cut the files of a container into pieces
//! ([`curmerge_formats::output::Pieces`]). A [`Writer`] writes the pieces: one thread copies and writes while
//! the others compute, a few blocks of rows at a time ([`in_blocks`]), so that memory does not grow with the
//! model.

mod companions;
mod destination;
pub mod gguf;
pub mod onnx;
mod rows;
pub mod safetensors;
mod shard_index;
mod tensors;
mod writer;

pub use companions::{Companion, copy_companions};
pub use destination::Destination;
pub use rows::in_blocks;
pub use tensors::{ComputedTensor, ComputedTensors};
pub use writer::{Hooks, Writer};
