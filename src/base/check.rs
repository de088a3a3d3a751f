//! Checks that a base has the tensors of its architecture's table, in the shapes that its configuration
//! gives, and no tensor that would silently be ignored.

use std::collections::BTreeSet;

use super::config::Config;
use super::model::{Base, Files};
use super::tensors::layer_part;
use crate::Result;
use crate::arch::{self, Presence, Size, TensorNames};

impl Base {
    /// Checks every tensor that the forward pass reads.
    pub(super) fn check_tensors(&self) -> Result<()> {
        let experts = self.config.experts.map_or(0, |experts| experts.count);
        let Config { layers, prediction_blocks, .. } = self.config;
        let predicting = layers..layers + prediction_blocks;
        for line in self.architecture.names() {
            let places = line.canonical.matches("{}").count();
            let own = (0..layers).filter(|&layer| line.blocks.include(self.config.block_kind(layer)));
            let predicting = predicting.clone();
            let predicting =
                predicting.filter(|&layer| line.blocks.include_prediction(self.config.block_kind(layer)));
            for layer in own.chain(predicting).take(if places > 0 { usize::MAX } else { 1 }) {
                let name = line.canonical.replacen("{}", &layer.to_string(), 1);
                if places < 2 {
                    self.check_line(line, &name)?;
                }
                for expert in 0..if places < 2 { 0 } else { experts } {
                    self.check_line(line, &name.replacen("{}", &expert.to_string(), 1))?;
                }
            }
        }
        self.check_unread()
    }

    fn check_line(&self, line: &TensorNames, name: &str) -> Result<()> {
        if line.in_metadata {
            return self.number(name).map(drop);
        }
        let missing = self.place(name).is_none();
        if line.presence == Presence::Sometimes && missing {
            return Ok(());
        }
        // An ONNX file may store separately what the table joins.
        let parts = if missing { self.fused(name) } else { &[] };
        let apart = |(part, _): &(&str, Size)| self.tensors.contains_key(&format!("{name}[{part}]"));
        if parts.iter().any(apart) {
            for (part, size) in parts {
                let shape: Vec<Size> =
                    std::iter::once(*size).chain(line.shape.iter().skip(1).copied()).collect();
                let part = format!("{name}[{part}]");
                self.check(&part, &shape)?;
                let bias = format!("{part}.bias");
                if line.bias == Some(Presence::Always) || self.tensors.contains_key(&bias) {
                    self.check(&bias, &shape[..1])?;
                }
            }
            return Ok(());
        }
        self.check(name, line.shape)?;
        let Some(presence) = line.bias else { return Ok(()) };
        // The biases of all experts may be one tensor.
        let own = format!("{name}.bias");
        let (bias, shape) = match self.bias_name(name) {
            Some(bias) if bias != own => (bias, vec![Size::Experts, line.shape[0]]),
            None if presence == Presence::Sometimes => return Ok(()),
            _ => (own, vec![line.shape[0]]),
        };
        self.check(&bias, &shape)
    }

    fn check(&self, name: &str, shape: &[Size]) -> Result<()> {
        let place = self.place(name).ok_or_else(|| match self.files {
            Files::Onnx(_) => {
                let help =
                    "export the model again with optimum, torch.onnx or onnxruntime-genai, not fused further";
                self.error(name, "missing: no initializer or node of the graph has its name", help)
            }
            _ => {
                let help = "the file is incomplete or of another model; download it again";
                self.error(name, "missing", help)
            }
        })?;
        let layer = layer_part(name).map(|(layer, _)| layer);
        let wanted: Vec<u64> = shape.iter().map(|&size| self.config.size(size, layer) as u64).collect();
        let mut found = place.tensor.shape.clone();
        if place.tensor.transposed {
            found.reverse();
        }
        let experts = self.config.experts.map_or(0, |experts| experts.count as u64);
        if place.rows.is_some() && found.len() == 3 && found[0] == experts {
            found.remove(0);
        }
        // Some programs leave a dimension of 1 out.
        let left_out = !place.tensor.transposed && wanted.first() == Some(&1) && found == wanted[1..];
        if found == wanted || left_out {
            return Ok(());
        }
        let problem = format!("shape {found:?} where the configuration says {wanted:?}");
        Err(self.error(name, &problem, "the file is damaged or of another architecture; download it again"))
    }

    /// Refuses a tensor of a block that no table lists, and a bias that the table does not allow: they would
    /// silently be ignored.
    fn check_unread(&self) -> Result<()> {
        // Masks and frequencies that older programs stored are computed instead. Scales in GGUF files are
        // refused when their matrix is read.
        let (of_blocks, passed): (BTreeSet<String>, &[&str]) = match self.files {
            Files::Gguf(_) => {
                (["blk.".to_string()].into(), &["rot_embd", "rope_freqs", ".scale", ".input_scale"])
            }
            Files::HuggingFace(_) => (
                arch::ALL.iter().flat_map(|known| known.block_prefixes()).collect(),
                &[
                    "rotary_emb.inv_freq",
                    ".attn.bias",
                    ".attn.masked_bias",
                    ".attention.bias",
                    ".attention.masked_bias",
                ],
            ),
            // Opening it refused what the table does not name.
            Files::Onnx(_) => return Ok(()),
        };
        for (name, tensor) in &self.tensors {
            let stored = tensor.stored_name.strip_suffix(".weight").unwrap_or(&tensor.stored_name);
            if passed.iter().any(|end| stored.ends_with(end)) {
                continue;
            }
            let line = |name: &str| match self.files {
                Files::Gguf(_) => self.architecture.line(name).filter(|line| !line.in_metadata),
                _ => self.architecture.of_hugging_face(name).map(|(_, line)| line),
            };
            let in_block = |line: &TensorNames| match layer_part(name) {
                Some((layer, _)) if layer >= self.config.layers => {
                    line.blocks.include_prediction(self.config.block_kind(layer))
                }
                Some((layer, _)) => {
                    let kind = self.config.block_kind(layer);
                    line.blocks.include(kind) || line.blocks.may_be_unused_in(kind)
                }
                None => line.blocks.include(self.config.block_kind(0)),
            };
            let bias = || line(stored.strip_suffix(".bias")?).map(|line| line.bias.is_some());
            let joined = || {
                let name = self.architecture.unprefixed(stored);
                let rows = self.architecture.joined_rows(&name).map(|(joined, layer)| {
                    let (part, _) = joined.parts[0];
                    self.architecture.line(&format!("blk.{layer}.{part}")).is_none_or(in_block)
                });
                let experts = self.architecture.joined_experts(&name).map(|(joined, ..)| {
                    let mut lines = self.architecture.names();
                    lines.find(|line| Some(&line.canonical) == joined.parts.first()).is_none_or(in_block)
                });
                rows.or(experts)
            };
            let read = line(stored).map(in_block).or_else(bias).or_else(joined);
            let of_block = of_blocks.iter().any(|prefix| stored.starts_with(prefix.as_str()));
            let blocks = self.config.layers + self.config.prediction_blocks;
            let beyond = layer_part(name).is_some_and(|(layer, _)| layer >= blocks);
            if read == Some(false) || of_block && (read.is_none() || beyond) {
                let problem = format!("curmerge knows no such tensor of '{}' models", self.architecture.name);
                let help = "this variant of the architecture is not supported yet";
                return Err(self.error(name, &problem, help));
            }
        }
        Ok(())
    }
}
