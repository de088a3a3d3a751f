//! A model family, and lookups in its description.

use std::borrow::Cow;

use super::{
    Activation, BlockKind, Blocks, Converter, Endings, Forward, Gguf, HuggingFace, Onnx, Positions, Size,
    TensorNames, Tensors,
};
use crate::arch::pattern::{matches, renamed};

/// The description of a model family.
///
/// A family that starts from a sibling with `..SIBLING` claims that every field it leaves out is the
/// sibling's. Each field says where to look that up.
#[derive(Clone, Copy, Debug)]
pub struct Architecture {
    /// The models that are known by it, as their makers call them.
    pub models: &'static str,
    /// `general.architecture` in GGUF, and the prefix of its keys. Several families may have the same.
    pub name: &'static str,
    /// The tensors, and their names in each container.
    pub tensors: Tensors,
    /// The options of the forward pass.
    pub forward: Forward,
    /// How llama.cpp reads its GGUF files.
    pub gguf: Gguf,
    /// How llama.cpp's converter writes its GGUF files.
    pub converter: Converter,
    /// The class in transformers, and its config.json.
    pub hugging_face: HuggingFace,
    /// The ONNX runtimes that run it.
    pub onnx: Onnx,
}

impl Architecture {
    /// The names of every tensor.
    pub fn names(&'static self) -> impl Iterator<Item = &'static TensorNames> {
        self.tensors.groups.iter().copied().flatten()
    }

    /// The canonical name for Hugging Face's (without `.weight` or `.bias`), and the table's entry.
    pub fn of_hugging_face(&'static self, name: &str) -> Option<(String, &'static TensorNames)> {
        let name = &*self.unprefixed(name);
        self.names().find_map(|n| {
            let other = || renamed(name, n.other_name?.1, n.canonical);
            Some((renamed(name, n.hugging_face, n.canonical).or_else(other)?, n))
        })
    }

    /// Hugging Face's name with the prefix of this table, where a folder has another.
    pub fn unprefixed<'n>(&self, name: &'n str) -> Cow<'n, str> {
        let other = |(theirs, ours): &(&str, &str)| Some(format!("{ours}{}", name.strip_prefix(theirs)?));
        self.tensors.prefixes.iter().find_map(other).map_or(Cow::Borrowed(name), Cow::Owned)
    }

    /// Hugging Face's name (without `.weight`) for the canonical one, which is that of a block of this kind, and the
    /// table's entry.
    pub fn to_hugging_face(
        &'static self,
        name: &str,
        kind: BlockKind,
    ) -> Option<(String, &'static TensorNames)> {
        self.names().find_map(|n| Some((renamed(name, n.canonical, n.hugging_face_in(kind))?, n)))
    }

    /// The name of the module in transformers that has a tensor of this name in folders.
    pub fn module<'n>(&self, name: &'n str) -> Cow<'n, str> {
        let own = |(stored, module): (&str, &str)| Some(format!("{module}{}", name.strip_prefix(stored)?));
        self.hugging_face.modules.and_then(own).map_or(Cow::Borrowed(name), Cow::Owned)
    }

    /// Hugging Face's name of a tensor of a block that predicts further tokens, as if the block were one of the `layers`
    /// blocks that follow each other: `mtp.layers.0.X` as `model.layers.LAYERS.X`, and `mtp.X` as
    /// `model.layers.LAYERS.mtp.X`. Blocks beyond any model's have no name.
    pub fn of_prediction(&'static self, name: &str, layers: usize) -> Option<String> {
        let own = name.strip_prefix(self.hugging_face.prediction?)?;
        let Some(in_block) = own.strip_prefix("layers.") else {
            return Some(format!("model.layers.{layers}.mtp.{own}"));
        };
        let (number, rest) = in_block.split_once('.')?;
        let block = number.parse::<u8>().ok().filter(|block| block.to_string() == number)?;
        Some(format!("model.layers.{}.{rest}", layers + usize::from(block)))
    }

    /// The inverse of [`Self::of_prediction`]; `None` for a block of the model itself.
    pub fn to_prediction(&'static self, name: &str, layers: usize) -> Option<String> {
        let start = self.hugging_face.prediction?;
        let (number, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
        let block = number.parse::<usize>().ok()?.checked_sub(layers)?;
        Some(match rest.strip_prefix("mtp.") {
            Some(own) => format!("{start}{own}"),
            None => format!("{start}layers.{block}.{rest}"),
        })
    }

    /// The table's entry for a canonical name (without `.bias`); for a tensor that stacks experts, the entry
    /// of one expert.
    pub fn line(&'static self, name: &str) -> Option<&'static TensorNames> {
        self.names().find(|n| {
            let whole = n.canonical.strip_suffix("[{}]");
            matches(name, n.canonical) || whole.is_some_and(|whole| matches(name, whole))
        })
    }

    /// A canonical name without `.bias`, and the ending of the tensor's stored names.
    pub fn stem_and_endings<'n>(&'static self, canonical: &'n str) -> (&'n str, Endings) {
        match (self.line(canonical), canonical.strip_suffix(".bias")) {
            (Some(line), _) => (canonical, line.endings),
            (None, Some(stem)) => (stem, Endings { gguf: ".bias", hugging_face: ".bias" }),
            (None, None) => (canonical, Endings::WEIGHT),
        }
    }

    /// What Hugging Face's names of a block's tensors begin with, before the block's number.
    pub fn block_prefixes(&'static self) -> impl Iterator<Item = String> {
        let own = self.names().filter_map(|n| Some(n.hugging_face.split_once("{}")?.0));
        own.flat_map(|own| {
            let other = |(theirs, ours): &(&str, &str)| Some(format!("{theirs}{}", own.strip_prefix(ours)?));
            std::iter::once(own.to_string()).chain(self.tensors.prefixes.iter().filter_map(other))
        })
    }

    /// The factor of attention scores in a model of these dimensions, unless its file gives another.
    pub fn attention_scale(&self, layers: usize, d_model: usize, heads: usize, head_dim: usize) -> f64 {
        if let Some(scale) = self.gguf.attention_scale {
            return scale;
        }
        let by_width = self.gguf.width_scaled_layers.contains(&layers);
        let width = if by_width { d_model / heads.max(1) } else { head_dim };
        1.0 / (width as f64).sqrt()
    }

    /// The canonical name, after `blk.N.`, of the matrix that has this role in blocks of this kind.
    pub fn target(&'static self, role: &str, kind: BlockKind) -> Option<&'static str> {
        let mut named = self.tensors.targets.iter().filter(|(word, _)| *word == role).map(|(_, name)| *name);
        named.find(|name| self.blocks_with(name).include(kind))
    }

    /// The blocks that have the tensor of this canonical name after `blk.N.`.
    pub fn blocks_with(&'static self, name: &str) -> Blocks {
        self.line(&format!("blk.0.{name}")).map_or(Blocks::All, |line| line.blocks)
    }

    /// The parts of a matrix that holds several roles, by its canonical name after `blk.N.`, from the first
    /// row on; empty for other matrices.
    pub fn parts(&self, name: &str) -> &'static [(&'static str, Size)] {
        self.tensors.fused.iter().find(|(fused, _)| matches(name, fused)).map_or(&[], |(_, parts)| parts)
    }

    /// Whether the matrix of this canonical name, which is outside the blocks, makes the inputs of tokens for all of them.
    pub fn makes_per_layer_inputs(&'static self, name: &str) -> bool {
        self.line(name).is_some_and(|line| line.shape.first() == Some(&Size::AllPerLayer))
    }

    /// Whether llama.cpp multiplies by the matrix of this canonical name without a LoRA of it.
    pub fn is_without_lora(&'static self, name: &str) -> bool {
        let latent = [".ffn_latent_down", ".ffn_latent_up"].iter().any(|end| name.ends_with(end));
        latent || self.makes_per_layer_inputs(name)
    }

    /// What the family has that the ONNX models that curmerge writes have no form for.
    pub fn without_onnx_form(&'static self) -> Option<&'static str> {
        if self.has_experts() && !self.has_plain_experts() {
            return Some("experts without gates, shared ones, or ones of another kind");
        }
        let Forward { activation, value_norm, .. } = self.forward;
        if activation == Activation::ClampedSwiglu && !self.has_experts() {
            return Some("a clamped SwiGLU");
        }
        if self.gguf.linear_attention.is_some() {
            return Some("linear attention");
        }
        if self.names().any(|line| line.blocks == Blocks::StateSpace) {
            return Some("state spaces");
        }
        if value_norm {
            return Some("normed values");
        }
        None
    }

    /// Whether its blocks have gated experts alone, or none.
    fn has_plain_experts(&'static self) -> bool {
        let further = ["ffn_down_exps.scale", "ffn_latent_down"];
        let gated = ["ffn_gate_exps[0]", "ffn_gate_up_exps[0]"];
        let has = |part: &&str| self.line(&format!("blk.0.{part}")).is_some();
        gated.iter().any(has)
            && !further.iter().any(has)
            && !self.has_shared_expert()
            && matches!(self.forward.activation, Activation::Silu | Activation::ClampedSwiglu)
    }

    /// Whether the two entries of a rotary pair are neighbours in folders and ONNX models, too; else they are half the
    /// rotated length apart there.
    pub fn has_rotary_neighbours(&'static self) -> bool {
        let permuted = self.names().any(|tensor| tensor.rotary_halves.is_some())
            || self.tensors.joined_rows.iter().any(|joined| joined.rotary > 0);
        self.forward.positions == Positions::RopeInterleaved && !permuted
    }

    /// Whether every token goes through a further expert.
    pub fn has_shared_expert(&'static self) -> bool {
        self.names().any(|n| n.shape.first() == Some(&Size::SharedFf))
    }

    /// Whether the feed-forward part is a mixture of experts.
    pub fn has_experts(&'static self) -> bool {
        self.names().any(|n| n.shape.first() == Some(&Size::Experts))
    }
}
