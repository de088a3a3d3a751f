//! stub
use super::{GgufTensor, Value};
use crate::dtype::DType;
use crate::error::Result;

/// A tensor to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct NewTensor {
    /// Its name, unique in the file.
    pub name: String,
    /// How its values will be stored.
    pub dtype: DType,
    /// Lengths in ggml's order: `dims[0]` is the row length.
    pub dims: Vec<u64>,
}

/// The header of a GGUF file to be written.
#[derive(Clone, Debug)]
pub struct GgufLayout;

impl GgufLayout {
    /// Lays out.
    pub fn new(
        _version: u32,
        _alignment: u64,
        _metadata: &[(String, Value)],
        _tensors: Vec<NewTensor>,
    ) -> Result<Self> {
        todo!()
    }
    /// Everything before the data.
    pub fn header(&self) -> &[u8] {
        todo!()
    }
    /// Tensors with their offsets from the start of the file.
    pub fn tensors(&self) -> &[GgufTensor] {
        todo!()
    }
    /// Length of the whole file.
    pub fn file_bytes(&self) -> u64 {
        todo!()
    }
}
