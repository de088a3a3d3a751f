//! Tensors in which Hugging Face folders have rows of several matrices of a block.

use super::{Architecture, RowGroups};
use crate::arch::pattern::renamed;

/// One such tensor. GGUF has its matrices apart.
#[derive(Clone, Copy, Debug)]
pub struct JoinedRows {
    /// Hugging Face's name, without `.weight`; `{}` stands for the layer.
    pub hugging_face: &'static str,
    /// How it stores the rows.
    pub groups: RowGroups,
    /// The segments, from the first, in which the rotary halves of each head are stored apart.
    pub rotary: usize,
    /// The canonical names of its matrices, after `blk.N.`, and how many of the segments each has, in their order.
    pub parts: &'static [(&'static str, usize)],
}

impl JoinedRows {
    /// Hugging Face's name in a block, without `.weight`.
    pub fn name(&self, layer: usize) -> String {
        self.hugging_face.replacen("{}", &layer.to_string(), 1)
    }
}

impl Architecture {
    /// The tensor that Hugging Face calls this (without `.weight`), and its layer.
    pub fn joined_rows(&self, name: &str) -> Option<(&'static JoinedRows, usize)> {
        self.tensors.joined_rows.iter().find_map(|joined| {
            let layer = renamed(name, joined.hugging_face, "{}")?;
            Some((joined, layer.parse().ok()?))
        })
    }

    /// The tensor that the matrix of this canonical name is in, its layer, and which of its parts it is.
    pub fn joined_rows_with(&self, canonical: &str) -> Option<(&'static JoinedRows, usize, usize)> {
        let (layer, own) = canonical.strip_prefix("blk.")?.split_once('.')?;
        let layer = layer.parse().ok()?;
        self.tensors.joined_rows.iter().find_map(|joined| {
            let part = joined.parts.iter().position(|(part, _)| *part == own)?;
            Some((joined, layer, part))
        })
    }
}
