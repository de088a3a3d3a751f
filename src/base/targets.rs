//! The matrices that a selection such as `q,k,v` names.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use super::model::Base;
use super::tensors::layer_part;
use crate::error::CallerOption;
use crate::{Error, Result};

impl Base {
    /// The canonical names, sorted, that `spec` selects. It is a comma-separated list of words of the
    /// architecture's table (`q,k,v`), `all`, or canonical names; a fused matrix stands for all of its parts.
    /// Words select matrices in `layers`, or in every block if that is `None`. If the architecture is not
    /// known, any matrix can be named.
    ///
    /// # Errors
    /// A block that the model does not have; a word or name that selects nothing.
    pub fn targets(&self, spec: &str, layers: Option<RangeInclusive<usize>>) -> Result<Vec<String>> {
        let count = self.config.layers;
        if let Some(layers) = &layers
            && *layers.end() >= count
        {
            return Err(Error::request(
                format!("{} has no block {}", self.path.display(), layers.end()),
                format!("its blocks are 0 to {}", count.saturating_sub(1)),
            ));
        }
        let layers = layers.map_or(0..count, |layers| *layers.start()..*layers.end() + 1);
        let (table, small) = (self.architecture.tensors.targets, self.architecture.tensors.small);
        let mut found = BTreeSet::new();
        for word in spec.split(',').map(str::trim).filter(|w| !w.is_empty()) {
            let parts: Vec<&str> = table
                .iter()
                .filter(|(w, _)| *w == word || word == "all" && !small.contains(w))
                .map(|(_, n)| *n)
                .collect();
            if !parts.is_empty() {
                for layer in layers.clone() {
                    let kind = self.config.block_kind(layer);
                    let own = parts.iter().filter(|part| self.architecture.blocks_with(part).include(kind));
                    found.extend(own.map(|part| format!("blk.{layer}.{part}")));
                }
                continue;
            }
            let named = self.named_targets(word);
            if named.is_empty() {
                return Err(self.no_target(word));
            }
            found.extend(named);
        }
        if found.is_empty() {
            let error = Error::request("no targets are selected", "use for example q,k,v");
            return Err(error.avoidable(CallerOption::Targets));
        }
        Ok(found.into_iter().collect())
    }

    /// Every matrix that can be adapted: those of `all`, and smaller ones.
    ///
    /// # Errors
    /// An architecture that is not known.
    pub fn adaptable(&self) -> Result<Vec<String>> {
        let words: Vec<&str> = self.architecture.tensors.targets.iter().map(|(word, _)| *word).collect();
        self.targets(&words.join(","), None)
    }

    /// The matrices that a canonical name selects.
    fn named_targets(&self, name: &str) -> Vec<String> {
        if !self.is_known() {
            let matrix = self
                .tensors
                .get(name)
                .is_some_and(|tensor| tensor.shape.len() == 2 && !tensor.shape.contains(&0));
            return if matrix { vec![name.to_string()] } else { Vec::new() };
        }
        let listed = |name: &str| {
            let in_model = layer_part(name).filter(|(layer, part)| {
                let kind = self.config.block_kind(*layer);
                *layer < self.config.layers && self.architecture.blocks_with(part).include(kind)
            });
            let part = in_model.map(|(_, part)| part);
            self.place(name).is_some()
                && self.architecture.tensors.targets.iter().any(|(_, p)| Some(*p) == part)
        };
        let parts = self.parts(name).into_iter().map(|(part, _)| part);
        std::iter::once(name.to_string()).chain(parts).filter(|name| listed(name)).collect()
    }

    fn no_target(&self, word: &str) -> Error {
        let problem = format!("'{word}' is not a target of {}", self.path.display());
        if !self.is_known() {
            let matrix = self.tensors.iter().find(|(_, tensor)| tensor.shape.len() == 2);
            let example = matrix.map(|(name, _)| format!(", such as {name}")).unwrap_or_default();
            let help = format!("its architecture is not known; name its matrices{example}");
            return Error::request(problem, help).avoidable(CallerOption::Targets);
        }
        let mut words: Vec<&str> = self.architecture.tensors.targets.iter().map(|(w, _)| *w).collect();
        words.dedup();
        let example = self.architecture.tensors.targets.first().map_or("attn_q", |(_, name)| name);
        let help = format!("use {}, all, or canonical names such as blk.0.{example}", words.join(", "));
        Error::request(problem, help).avoidable(CallerOption::Targets)
    }
}
