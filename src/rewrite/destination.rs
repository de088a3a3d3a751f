//! Where a model is written.

use std::path::Path;

/// Where a model is written, and in which files.
#[derive(Clone, Debug)]
pub struct Destination<'a> {
    /// The file or folder.
    pub path: &'a Path,
    /// Files and folders that the output must not replace.
    pub inputs: Vec<&'a Path>,
    /// Limit of the tensors in one file, in bytes; `None` keeps one GGUF file, or a folder's own shards.
    pub max_shard_bytes: Option<u64>,
    /// Whether to replace an existing folder.
    pub force: bool,
    /// The chat template that the model gets in place of its own.
    pub chat_template: Option<&'a str>,
    /// The model card that a folder gets in place of its own.
    pub card: Option<String>,
}

impl<'a> Destination<'a> {
    /// One file, which must be none of `inputs`.
    pub fn file(path: &'a Path, inputs: &[&'a Path]) -> Self {
        Self {
            path,
            inputs: inputs.to_vec(),
            max_shard_bytes: None,
            force: false,
            chat_template: None,
            card: None,
        }
    }
}
