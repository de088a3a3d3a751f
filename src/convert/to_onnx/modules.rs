//! The modules of a decoder as nodes: matrices and norms of the base by canonical name, and small operations
//! on values.

use std::collections::BTreeSet;

use curmerge_formats::onnx::{Dimension, ElementType};

use super::builder::{Builder, MICROSOFT, Value, int};
use super::matrix::{Form, Matrix, Source};
use super::options::{OnnxType, lora_inputs};
use crate::arch::exporters;
use crate::base::{Base, RowOrder, layer_part};
use crate::{Error, Result};

/// The names of dimensions.
pub(super) const BATCH: &str = "batch_size";
pub(super) const SEQUENCE: &str = "sequence_length";
/// Tokens of the cache and of the input.
pub(super) const TOTAL: &str = "past_sequence_length + sequence_length";

/// A dimension with a name.
pub(super) fn named(name: &str) -> Dimension {
    Dimension::Named(name.into())
}

/// The path of a node in the module with this name in Hugging Face: `/model/layers.0/mlp/up_proj`.
pub(super) fn path(module: &str) -> String {
    format!("/{}", module.replace('.', "/")).replace("/layers/", "/layers.")
}

/// A base, and the graph that is being built from its modules.
pub(super) struct Modules<'a> {
    pub(super) base: &'a Base,
    pub(super) b: Builder<'a>,
    file_type: OnnxType,
    /// Canonical names of the matrices that have LoRA inputs; of a part, the name of the whole.
    adapted: BTreeSet<String>,
}

impl<'a> Modules<'a> {
    /// The modules of a base, and a graph without nodes; `lora_targets` are the canonical names of the
    /// matrices that get LoRA inputs.
    pub(super) fn new(base: &'a Base, file_type: OnnxType, lora_targets: Vec<String>) -> Self {
        let whole = |name: String| name.split('[').next().map(str::to_string);
        let adapted = lora_targets.into_iter().filter_map(whole).collect();
        Modules { base, b: Builder::new(file_type.products()), file_type, adapted }
    }

    /// Whether each block of four-bit numbers has a zero point of its own; `None` if matrices are not in blocks.
    pub(super) fn blocks(&self) -> Option<bool> {
        self.file_type.blocks()
    }

    /// `x` in FLOAT times a factor, unless it is 1.
    pub(super) fn scaled(&mut self, name: &str, x: Value, factor: f64) -> Value {
        if factor == 1.0 {
            return x;
        }
        let factor = self.b.number(factor, ElementType::FLOAT);
        self.b.node(name, "Mul", &[&x, &factor])
    }

    /// `cap tanh(x / cap)` of `x` in FLOAT, if there is a cap.
    pub(super) fn capped(&mut self, path: &str, x: Value, cap: Option<f64>) -> Value {
        let Some(cap) = cap else { return x };
        let cap = self.b.number(cap, ElementType::FLOAT);
        let x = self.b.node(&format!("{path}/cap/Div"), "Div", &[&x, &cap]);
        let x = self.b.node(&format!("{path}/cap/Tanh"), "Tanh", &[&x]);
        self.b.node(&format!("{path}/cap/Mul"), "Mul", &[&x, &cap])
    }

    /// The products of `x` with the matrices of these roles. A matrix that holds several roles gives one
    /// product, which is split.
    pub(super) fn linears(&mut self, layer: usize, roles: &[&str], x: &Value) -> Result<Vec<Value>> {
        let mut names = Vec::new();
        let kind = self.base.config().block_kind(layer);
        for role in roles {
            let part = self.base.architecture().target(role, kind).ok_or_else(|| self.no_place(role))?;
            names.push(format!("blk.{layer}.{part}"));
        }
        let whole = names[0].split_once('[').map(|(whole, _)| whole);
        let in_groups =
            |whole: &&str| self.base.architecture().line(whole).is_some_and(|l| l.groups.is_some());
        let Some(whole) = whole.filter(|whole| !in_groups(whole)) else {
            return names.iter().map(|name| self.linear(name, x)).collect();
        };
        let y = self.linear(whole, x)?;
        let parts = self.base.parts(whole);
        let lengths: Vec<i64> = parts.iter().map(|(_, rows)| (rows.end - rows.start) as i64).collect();
        let node = format!("{}/Split", path(&self.module(whole)?));
        let outputs: Vec<Value> = (0..parts.len()).map(|part| format!("{node}_output_{part}")).collect();
        let given: Vec<&str> = outputs.iter().map(String::as_str).collect();
        let lengths = self.b.ints(&lengths);
        self.b.node_giving(&node, ("", "Split"), &[&y, &lengths], &given, vec![int("axis", -1)]);
        let position = |name: &String| parts.iter().position(|(part, _)| part == name);
        names
            .iter()
            .map(|name| Ok(outputs[position(name).ok_or_else(|| self.no_place(name))?].clone()))
            .collect()
    }

    /// The product of one matrix with `x`, plus its bias if it has one.
    pub(super) fn linear(&mut self, canonical: &str, x: &Value) -> Result<Value> {
        let module = self.module(canonical)?;
        let path = path(&module);
        let products = self.b.products;
        let [rows, cols] = self.source(canonical)?.shape().map(|n| n as i64);
        // Roundings of a router's outputs choose other experts.
        let is_router = layer_part(canonical).is_some_and(|(_, part)| part == "ffn_gate_inp");
        let form = match self.blocks() {
            Some(zero_points) if cols % 32 == 0 && !is_router => {
                Form::Blocks { scales: products, zero_points }
            }
            _ => Form::Columns(products),
        };
        let mut y = match form {
            Form::Blocks { .. } => {
                let name = format!("{path}/MatMul_Q4");
                let output = format!("{name}_output_0");
                let mut inputs = vec![x.clone()];
                inputs.extend(self.stored(canonical, form)?);
                let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
                // Without an accuracy level the products are computed in the type of `x`.
                let attributes =
                    [("K", cols), ("N", rows), ("bits", 4), ("block_size", 32), ("accuracy_level", 0)];
                let attributes = attributes.map(|(name, value)| int(name, value)).to_vec();
                self.b.node_giving(&name, (MICROSOFT, "MatMulNBits"), &inputs, &[&output], attributes);
                output
            }
            _ => {
                let weight = self.whole(canonical, form)?;
                self.b.node(&format!("{path}/MatMul"), "MatMul", &[x, &weight])
            }
        };
        if self.adapted.contains(canonical) {
            y = self.adapted(&module, [cols as u64, rows as u64], x, y)?;
        }
        if self.base.has_bias(canonical) {
            let values = self.base.vector(&format!("{canonical}.bias"))?;
            let order = self.order(canonical, values.len() as u64)?;
            let values: Vec<f32> =
                (0..values.len()).map(|entry| values[order.canonical_row(entry)]).collect();
            let bias = self.b.tensor(&format!("{module}.bias"), products, &[values.len() as u64], &values)?;
            y = self.b.node(&format!("{path}/Add"), "Add", &[&y, &bias]);
        }
        Ok(y)
    }

    /// `y + (x A) B` with A and B as inputs of the graph. By default they have rank 0 and add nothing. They
    /// are FLOAT whatever the type of products, so that one adapter serves models of all types.
    fn adapted(&mut self, module: &str, [cols, rows]: [u64; 2], x: &Value, y: Value) -> Result<Value> {
        let path = path(module);
        // Each module has a name of its own for the rank: onnxruntime takes dimensions of one name for equal,
        // and an adapter may leave modules out.
        let (fixed, rank) = (Dimension::Fixed, || named(&format!("{module}.lora_rank")));
        let [a, b] = lora_inputs(module);
        let float = ElementType::FLOAT;
        for (name, dims, shape) in
            [(&a, [cols, 0], [fixed(cols), rank()]), (&b, [0, rows], [rank(), fixed(rows)])]
        {
            self.b.tensor(name, float, &dims, &[])?;
            self.b.late_input(name, float, &shape);
        }
        let x = self.b.float_of(&format!("{path}/lora_A"), x.clone());
        let inner = self.b.node(&format!("{path}/lora_A/MatMul"), "MatMul", &[&x, &a]);
        let change = self.b.node(&format!("{path}/lora_B/MatMul"), "MatMul", &[&inner, &b]);
        let change = self.b.for_products(&format!("{path}/lora_B"), change);
        Ok(self.b.node(&format!("{path}/lora/Add"), "Add", &[&y, &change]))
    }

    /// A matrix that is one initializer.
    pub(super) fn whole(&mut self, canonical: &str, form: Form) -> Result<Value> {
        Ok(self.stored(canonical, form)?.swap_remove(0))
    }

    /// The initializers of a matrix.
    fn stored(&mut self, canonical: &str, form: Form) -> Result<Vec<Value>> {
        let name = format!("{}.weight", self.module(canonical)?);
        let source = self.source(canonical)?;
        Ok(self.b.matrix(&name, Matrix { name: name.clone(), source, form }))
    }

    /// Where the values of a matrix are. It may be stored in parts: other exporters keep q, k and v apart even if
    /// the architecture joins them.
    fn source(&self, canonical: &str) -> Result<Source<'a>> {
        let parts = self.base.parts(canonical);
        if self.base.place(canonical).is_none() && !parts.is_empty() {
            let parts = parts.iter().map(|(part, _)| Ok(vec![self.base.weight(part)?]));
            return Ok(Source::Parts(parts.collect::<Result<_>>()?));
        }
        let weight = self.base.weight(canonical)?;
        let order = self.order(canonical, weight.rows() as u64)?;
        Ok(Source::Stored(weight, order))
    }

    /// Hugging Face's name for a canonical name. Of a matrix that folders store in groups of rows with others, the name
    /// that exporters give it alone.
    pub(super) fn module(&self, canonical: &str) -> Result<String> {
        let known = self.base.to_hugging_face(canonical).map(|(name, _)| name);
        let alone = || {
            let (layer, part) = layer_part(canonical)?;
            let targets = self.base.architecture().tensors.targets.iter();
            let (role, _) = targets.into_iter().find(|(_, target)| *target == part)?;
            let (pattern, _) = exporters::SINGLE.iter().find(|(_, own)| own == role)?;
            Some(pattern.replacen("{}", &layer.to_string(), 1))
        };
        known.filter(|name| !name.is_empty()).or_else(alone).ok_or_else(|| self.no_place(canonical))
    }

    fn order(&self, canonical: &str, rows: u64) -> Result<RowOrder> {
        let (config, architecture) = (self.base.config(), self.base.architecture());
        let order = match (config.onnx_rotary_heads(architecture, canonical), architecture.line(canonical)) {
            (Some(heads), _) => RowOrder::rotary_halves(rows, heads),
            (None, Some(line)) => config.hugging_face_order(line, rows),
            // A part of a matrix that is stored in groups of rows.
            (None, None) => Some(RowOrder::CANONICAL),
        };
        order.ok_or_else(|| self.no_place(canonical))
    }

    fn no_place(&self, canonical: &str) -> Error {
        let problem = "the architecture has no such matrix, or its rows are not whole heads";
        Error::input(self.base.path(), canonical, problem, "download the model again")
    }
}
