//! Containers and number formats of language models.
//!
//! This crate opens what a model comes in (GGUF, safetensors, a Hugging Face folder, ONNX), turns stored blocks into `f32`
//! and back, writes the same containers, and reads and writes curmerge's adapter file. It knows no model and no
//! training.
//!
//! A file from the internet is hostile: every length, offset, count, dimension and string is checked before it is
//! used, and nothing is allocated that the file's own size does not justify. Bad input gives an [`Error`], which is one
//! line that names the file, the place and what to do. Weights stay in the mapped file; outputs appear whole or not at
//! all.

pub mod adapter;
pub mod detect;
pub mod digest;
pub mod dtype;
pub mod error;
pub mod gguf;
pub mod imatrix;
pub mod mmap;
pub mod onnx;
pub mod output;
pub mod quant;
pub mod safetensors;
pub mod shards;

pub use adapter::{Adapter, AdapterTarget, BaseInfo, Training};
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
