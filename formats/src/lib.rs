//! Containers and number formats of language models.
//!
//! This crate reads and writes GGUF, safetensors and ONNX, decodes stored blocks to `f32` and encodes them
//! again, and reads and writes curmerge's adapter file. It knows nothing of models or training.
//!
//! A file from the internet is hostile: every length, offset, count, dimension and string is checked before
//! it is used, and nothing is allocated that the file's own size does not justify. Bad input gives an
//! [`Error`], one line that names the file, the place and what to do. Weights stay in the mapped file.
//! Outputs appear whole or not at all.
//!
//! Two parsers of the ecosystem take part. The crate `safetensors` parses and checks safetensors headers;
//! [`safetensors`] says what this crate adds. The crate `gguf-rs` cannot read GGUF for us, because it loses
//! the order of keys, the width of integers and the sizes of newer types; it is a second reader, whose
//! findings [`gguf::second_opinion`] compares with ours. ONNX has no Rust parser that keeps the bytes it does
//! not understand, so its few protobuf messages are read here.

pub mod adapter;
pub mod detect;
pub mod digest;
pub mod dtype;
pub mod error;
pub mod gguf;
pub mod imatrix;
pub mod input;
pub mod mmap;
pub mod onnx;
pub mod output;
pub mod quant;
pub mod safetensors;
pub mod shards;

pub use adapter::{Adapter, AdapterTarget, BaseInfo, TargetFisher, Training};
pub use detect::{Container, detect};
pub use digest::sha256_hex;
pub use dtype::DType;
pub use error::{Error, Result};
pub use gguf::{Array, Gguf, GgufLayout, GgufModel, GgufTensor, NewTensor, Value};
pub use imatrix::Imatrix;
pub use mmap::MappedFile;
pub use onnx::Onnx;
pub use output::{OutputFile, OutputFolder};
pub use quant::{QuantError, decode, encode, encode_weighted};
pub use safetensors::{NewSafeTensor, SafeTensor, SafeTensors, SafeTensorsLayout, shard_index};
