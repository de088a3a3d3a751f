//! RMSNorm and LayerNorm in standard operators, which onnxruntime fuses into one.

use curmerge_formats::onnx::ElementType;

use super::builder::{Value, int, ints};
use super::modules::{Modules, path};
use crate::Result;
use crate::arch::NormKind;
use crate::base::layer_part;

impl Modules<'_> {
    /// Whether the architecture has a norm of this name, in this block of the model if it is of one.
    pub(super) fn has_norm(&self, canonical: &str) -> bool {
        let kind = layer_part(canonical).map(|(layer, _)| self.base.config().block_kind(layer));
        let line = self.base.architecture().line(canonical);
        line.is_some_and(|line| kind.is_none_or(|kind| line.blocks.include(kind)))
    }

    /// [`Self::norm`], if there is one of this name.
    pub(super) fn norm_if_any(&mut self, canonical: &str, x: Value) -> Result<Value> {
        if self.has_norm(canonical) { self.norm(canonical, x) } else { Ok(x) }
    }

    /// The norm of `x` in FLOAT over the last axis. The graph holds the factor itself, even if the folder stores it
    /// with a unit offset.
    pub(super) fn norm(&mut self, canonical: &str, x: Value) -> Result<Value> {
        let module = self.module(canonical)?;
        let path = path(&module);
        let at = |op: &str| format!("{path}/{op}");
        let float = ElementType::FLOAT;
        let mean_of = || vec![ints("axes", &[-1]), int("keepdims", 1)];
        let values = self.base.vector(canonical)?;
        let length = [values.len() as u64];
        let weight = self.b.tensor(&format!("{module}.weight"), float, &length, &values)?;
        let kind = self.base.architecture().forward.norm;
        let centred = match kind {
            NormKind::Rms => x,
            NormKind::Layer | NormKind::LayerUnbiased => {
                let mean = self.b.node_with(&at("ReduceMean_1"), "ReduceMean", &[&x], mean_of());
                self.b.node(&at("Sub"), "Sub", &[&x, &mean])
            }
        };
        let two = self.b.number(2.0, float);
        let eps = self.b.number(self.base.config().norm_eps, float);
        let squares = self.b.node(&at("Pow"), "Pow", &[&centred, &two]);
        let mean = self.b.node_with(&at("ReduceMean"), "ReduceMean", &[&squares], mean_of());
        let mean = self.b.node(&at("Add"), "Add", &[&mean, &eps]);
        let root = self.b.node(&at("Sqrt"), "Sqrt", &[&mean]);
        let normed = self.b.node(&at("Div"), "Div", &[&centred, &root]);
        let normed = self.b.node(&at("Mul"), "Mul", &[&normed, &weight]);
        if kind != NormKind::Layer {
            return Ok(normed);
        }
        let values = self.base.vector(&format!("{canonical}.bias"))?;
        let bias = self.b.tensor(&format!("{module}.bias"), float, &length, &values)?;
        Ok(self.b.node(&at("Add_1"), "Add", &[&normed, &bias]))
    }
}
