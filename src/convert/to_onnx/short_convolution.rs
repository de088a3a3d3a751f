//! A gated short convolution (LFM2), with onnxruntime's CausalConvWithState. Its state is an input and an output of the
//! graph, like the caches of attention, with the names that onnxruntime-genai expects.

use curmerge_formats::onnx::{Dimension, ElementType};

use super::builder::{MICROSOFT, Value, int, ints, string};
use super::modules::{BATCH, Modules, named};
use crate::Result;

impl Modules<'_> {
    /// 1 for each new token and 0 for padding, `[batch, sequence, 1]` in FLOAT.
    pub(super) fn real_tokens(&mut self) -> Value {
        let at = |op: &str| format!("/model/real/{op}");
        let (one, axis, last) = (self.b.int(1), self.b.ints(&[1]), self.b.ints(&[2]));
        let (flat, end) = (self.b.ints(&[1]), self.b.ints(&[i64::MAX]));
        let shape = self.b.node(&at("Shape"), "Shape", &["input_ids"]);
        let new = self.b.node(&at("Gather"), "Gather", &[&shape, &one]);
        let from = self.b.node(&at("Neg"), "Neg", &[&new]);
        let from = self.b.node(&at("Reshape"), "Reshape", &[&from, &flat]);
        let mask = self.b.node(&at("Slice"), "Slice", &["attention_mask", &from, &end, &axis]);
        let mask = self.b.node_with(&at("Cast"), "Cast", &[&mask], vec![int("to", ElementType::FLOAT.id())]);
        self.b.node(&at("Unsqueeze"), "Unsqueeze", &[&mask, &last])
    }

    /// C conv(B x) of `x` `[batch, sequence, d_model]` in FLOAT, of which `real` tells padding; its output in the type of
    /// products.
    pub(super) fn short_convolution(
        &mut self,
        layer: usize,
        x: Value,
        real: Option<&Value>,
    ) -> Result<Value> {
        let path = format!("/model/layers.{layer}/conv");
        let at = |op: &str| format!("{path}/{op}");
        let channels = self.base.config().d_model;
        // Padding must not reach the tokens after it.
        let x = real.map_or(x.clone(), |real| self.b.node(&at("Mul"), "Mul", &[&x, real]));
        let x = self.b.for_products(&path, x);
        let bcx = self.linear(&format!("blk.{layer}.shortconv.in_proj"), &x)?;
        let bcx = self.b.float_of(&path, bcx);
        let turn = || vec![ints("perm", &[0, 2, 1])];
        let bcx = self.b.node_with(&at("Transpose"), "Transpose", &[&bcx], turn());
        let parts = [0, 1, 2].map(|part| format!("{}_output_{part}", at("Split")));
        let lengths = self.b.ints(&[channels as i64; 3]);
        let given: Vec<&str> = parts.iter().map(String::as_str).collect();
        self.b.node_giving(&at("Split"), ("", "Split"), &[&bcx, &lengths], &given, vec![int("axis", 1)]);
        let [b, c, x] = &parts;
        let gated = self.b.node(&at("Mul_1"), "Mul", &[b, x]);
        let y = self.convolution(layer, "shortconv.conv", &gated)?;
        let y = self.b.node(&at("Mul_2"), "Mul", &[c, &y]);
        let y = self.b.node_with(&at("Transpose_1"), "Transpose", &[&y], turn());
        let y = self.b.for_products(&at("out"), y);
        self.linear(&format!("blk.{layer}.shortconv.out_proj"), &y)
    }

    /// The causal convolution of each channel of `x` `[batch, channels, sequence]`, all in FLOAT.
    fn convolution(&mut self, layer: usize, part: &str, x: &Value) -> Result<Value> {
        let canonical = format!("blk.{layer}.{part}");
        let (module, weight) = (self.module(&canonical)?, self.base.weight(&canonical)?);
        let [channels, taps] = [weight.rows(), weight.cols()].map(|n| n as u64);
        let float = ElementType::FLOAT;
        let kernel =
            self.b.tensor(&format!("{module}.weight"), float, &[channels, 1, taps], &weight.vector())?;
        let shape = [named(BATCH), Dimension::Fixed(channels), Dimension::Fixed(taps.saturating_sub(1))];
        let past = self.b.input(&format!("past.{layer}.conv"), float, &shape);
        let present = format!("present.{layer}.conv");
        self.b.output(&present, float, &shape);
        let name = format!("{}/CausalConvWithState", super::modules::path(&module));
        let output = format!("{name}_output_0");
        let operator = (MICROSOFT, "CausalConvWithState");
        let attributes = vec![string("activation", "none")];
        self.b.node_giving(&name, operator, &[x, &kernel, "", &past], &[&output, &present], attributes);
        Ok(output)
    }
}
