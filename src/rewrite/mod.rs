//! Writes a model again, with new values or types for some of its tensors.
//!
//! A [`ComputedTensor`] computes its bytes, whose meaning only the caller knows. Everything else of the model
//! is copied byte for byte. If no size changes, the output is the old file with some ranges replaced: header,
//! order, gaps and padding stay. If a type changes, the file gets a new header and the tensors move.
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

pub use companions::{Companion, copy_companions, copy_folder, renamed_card};
pub use destination::Destination;
pub use rows::in_blocks;
pub use shard_index::text as shard_index_text;
pub use tensors::{ComputedTensor, ComputedTensors};
pub use writer::{Hooks, Writer};
