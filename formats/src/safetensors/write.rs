//! stub
use super::SafeTensor;
use crate::dtype::DType;
use crate::error::Result;
use std::collections::BTreeMap;

/// A tensor to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct NewSafeTensor {
    /// Its name, unique in the file.
    pub name: String,
    /// How its values will be stored.
    pub dtype: DType,
    /// Lengths, slowest first.
    pub shape: Vec<u64>,
}

/// The header of a safetensors file to be written.
#[derive(Clone, Debug)]
pub struct SafeTensorsLayout;

impl SafeTensorsLayout {
    /// Lays out.
    pub fn new(_metadata: &BTreeMap<String, String>, _tensors: Vec<NewSafeTensor>) -> Result<Self> {
        todo!()
    }
    /// Everything before the data.
    pub fn header(&self) -> &[u8] {
        todo!()
    }
    /// Tensors in the order given, with their offsets from the start of the file.
    pub fn tensors(&self) -> &[SafeTensor] {
        todo!()
    }
    /// Length of the whole file.
    pub fn file_bytes(&self) -> u64 {
        todo!()
    }
}
