//! stub
use crate::dtype::DType;
use crate::error::Result;
use std::collections::BTreeMap;
use std::path::Path;

/// An open safetensors file.
#[derive(Debug)]
pub struct SafeTensors;

/// A tensor of a safetensors file.
#[derive(Clone, Debug, PartialEq)]
pub struct SafeTensor {
    /// Its name, unique in the file.
    pub name: String,
    /// How its values are stored.
    pub dtype: DType,
    /// Lengths, slowest first: `[out, in]`.
    pub shape: Vec<u64>,
    /// First byte, from the start of the file.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
}

impl SafeTensors {
    /// Opens.
    pub fn open(_path: &Path) -> Result<Self> {
        todo!()
    }
    /// Path.
    pub fn path(&self) -> &Path {
        todo!()
    }
    /// Metadata.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        todo!()
    }
    /// Tensors in order of offset.
    pub fn tensors(&self) -> &[SafeTensor] {
        todo!()
    }
    /// Tensor by name.
    pub fn tensor(&self, _name: &str) -> Option<&SafeTensor> {
        todo!()
    }
    /// Its bytes.
    pub fn data(&self, _tensor: &SafeTensor) -> &[u8] {
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
