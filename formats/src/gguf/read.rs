//! stub
use super::Value;
use crate::dtype::DType;
use crate::error::Result;
use std::path::Path;

/// An open GGUF file.
#[derive(Debug)]
pub struct Gguf;

/// A tensor of a GGUF file.
#[derive(Clone, Debug, PartialEq)]
pub struct GgufTensor {
    /// Its name, unique in the file.
    pub name: String,
    /// How its values are stored.
    pub dtype: DType,
    /// Lengths in ggml's order: `dims[0]` is the row length.
    pub dims: Vec<u64>,
    /// First byte, from the start of the file.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
}

impl GgufTensor {
    /// The shape in the order `[out, in]`: `dims` reversed.
    pub fn shape(&self) -> Vec<u64> {
        self.dims.iter().rev().copied().collect()
    }
}

impl Gguf {
    /// Opens.
    pub fn open(_path: &Path) -> Result<Self> {
        todo!()
    }
    /// Path.
    pub fn path(&self) -> &Path {
        todo!()
    }
    /// Version.
    pub fn version(&self) -> u32 {
        todo!()
    }
    /// Alignment.
    pub fn alignment(&self) -> u64 {
        todo!()
    }
    /// Metadata in file order.
    pub fn metadata(&self) -> &[(String, Value)] {
        todo!()
    }
    /// Value of a key.
    pub fn get(&self, _key: &str) -> Option<&Value> {
        todo!()
    }
    /// Tensors in file order.
    pub fn tensors(&self) -> &[GgufTensor] {
        todo!()
    }
    /// Tensor by name.
    pub fn tensor(&self, _name: &str) -> Option<&GgufTensor> {
        todo!()
    }
    /// Its bytes.
    pub fn data(&self, _tensor: &GgufTensor) -> &[u8] {
        todo!()
    }
    /// Whole file.
    pub fn bytes(&self) -> &[u8] {
        todo!()
    }
    /// The mapped file, to copy ranges out of.
    pub fn file(&self) -> &crate::MappedFile {
        todo!()
    }
}
