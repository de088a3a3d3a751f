//! What a path holds, told by its content and never by its ending.

use std::path::Path;

use crate::error::Result;

/// The kinds of model container.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Container {
    /// A GGUF file.
    Gguf,
    /// A safetensors file.
    SafeTensors,
    /// A folder with a `config.json`.
    HfFolder,
    /// An ONNX file.
    Onnx,
    /// None of these.
    Unknown,
}

/// Tells what `path` holds.
pub fn detect(_path: &Path) -> Result<Container> {
    todo!()
}
