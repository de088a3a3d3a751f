//! Tensors in which Hugging Face folders have matrices of all experts of a block.

use super::Architecture;
use crate::arch::pattern::renamed;

/// One such tensor.
#[derive(Clone, Copy, Debug)]
pub struct JoinedExperts {
    /// Hugging Face's name, without its ending; `{}` stands for the layer. That of the biases ends with `_bias`.
    pub hugging_face: &'static str,
    /// What ends the name of the matrices.
    pub ending: &'static str,
    /// The canonical names of the matrices of each expert in it. The second `{}` is the expert.
    pub parts: &'static [&'static str],
    /// Whether outputs of the parts alternate; else one part follows the other.
    pub interleaved: bool,
    /// Whether it is `[experts, in, out]`; else it is `[experts, out, in]`.
    pub transposed: bool,
}

/// What is in a joined tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinedKind {
    /// The matrices.
    Weights,
    /// Their biases.
    Biases,
}

impl JoinedExperts {
    /// The canonical name of a part, of one expert of a block.
    pub fn part(part: &str, layer: usize, expert: usize) -> String {
        part.replacen("{}", &layer.to_string(), 1).replacen("{}", &expert.to_string(), 1)
    }

    /// Hugging Face's name in a block.
    pub fn name(&self, layer: usize, kind: JoinedKind) -> String {
        let ending = if kind == JoinedKind::Biases { "_bias" } else { self.ending };
        self.hugging_face.replacen("{}", &layer.to_string(), 1) + ending
    }
}

impl Architecture {
    /// The joined tensor that Hugging Face calls this (without `.weight`), its layer, and what is in it.
    pub fn joined_experts(&'static self, name: &str) -> Option<(&'static JoinedExperts, usize, JoinedKind)> {
        let (stem, kind) = match name.strip_suffix("_bias") {
            Some(stem) => (stem, JoinedKind::Biases),
            None => (name, JoinedKind::Weights),
        };
        self.tensors.joined_experts.iter().find_map(|joined| {
            let layer = renamed(stem, joined.hugging_face, "{}")?.parse().ok()?;
            let line = self.names().find(|line| Some(&line.canonical) == joined.parts.first())?;
            (kind == JoinedKind::Weights || line.bias.is_some()).then_some((joined, layer, kind))
        })
    }

    /// The joined tensor that a matrix of this canonical name is in, and its layer.
    pub fn joined_with(&self, canonical: &str) -> Option<(&'static JoinedExperts, usize)> {
        self.tensors.joined_experts.iter().find_map(|joined| {
            let layer = joined.parts.iter().find_map(|part| {
                let numbers = renamed(canonical, part, "{} {}")?;
                numbers.split_once(' ')?.0.parse().ok()
            })?;
            Some((joined, layer))
        })
    }
}
