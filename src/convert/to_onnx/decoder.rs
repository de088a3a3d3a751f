//! The decoder as a graph: embedding, blocks of attention and feed-forward part, logits.
//!
//! Which parts a block has is what its architecture's table lists, as in [`crate::model`]. Norms, softmax and the residual
//! stream are computed in FLOAT also where products are in FLOAT16, whose range the residual stream of some models leaves.

use std::collections::BTreeSet;

use curmerge_formats::onnx::{Dimension, ElementType};

use super::super::onnx_companions;
use super::builder::{Builder, MICROSOFT, Value, int, ints};
use super::matrix::{Form, Matrix, Source};
use super::{OnnxOptions, OnnxType, attention, grouped, lora_inputs};
use crate::arch::{Activation, NormKind, Positions};
use crate::base::Base;
use crate::{Error, Result};

/// The decoder in the making.
pub(super) struct Decoder<'a> {
    pub(super) base: &'a Base,
    pub(super) b: Builder<'a>,
    file_type: OnnxType,
    /// Canonical names of the matrices that have inputs for a LoRA, whole ones.
    adapted: BTreeSet<String>,
}

/// What the blocks' attentions have in common.
enum Shared {
    Plain(attention::Shared),
    Grouped(grouped::Shared),
}

/// A dimension with a name.
pub(super) fn named(name: &str) -> Dimension {
    Dimension::Named(name.into())
}

pub(super) const BATCH: &str = "batch_size";
pub(super) const SEQUENCE: &str = "sequence_length";
/// Tokens of the cache and of the input.
pub(super) const TOTAL: &str = "past_sequence_length + sequence_length";

/// The path of a node in the module that Hugging Face names so: `/model/layers.0/mlp/up_proj`.
pub(super) fn path(module: &str) -> String {
    format!("/{}", module.replace('.', "/")).replace("/layers/", "/layers.")
}

/// The graph of a base's decoder, and whether its output head is a matrix of its own.
///
/// # Errors
/// A mixture of experts, LayerNorm or learned positions; a tensor that cannot be decoded.
pub(super) fn decoder<'a>(base: &'a Base, options: &OnnxOptions) -> Result<(Builder<'a>, bool)> {
    let architecture = base.architecture();
    let refuse = |what: &str| {
        let problem =
            format!("a {} model has {what}, which ONNX models by curmerge have not", architecture.name);
        Err(Error::input(base.path(), "architecture", problem, "convert it into a GGUF file or a folder"))
    };
    if base.config().experts.is_some() {
        return refuse("experts");
    }
    if architecture.forward.norm != NormKind::Rms || architecture.forward.positions == Positions::Learned {
        return refuse("LayerNorm or learned positions");
    }
    let file_type = options.file_type;
    let adapted = match &options.lora_inputs {
        Some(words) => base.targets(words, None)?,
        None => Vec::new(),
    };
    let whole = |name: String| name.split('[').next().map(str::to_string);
    let adapted = adapted.into_iter().filter_map(whole).collect();
    let mut decoder = Decoder { base, b: Builder::new(file_type.products()), file_type, adapted };
    let own_head = decoder.model(options.genai)?;
    Ok((decoder.b, own_head))
}

impl<'a> Decoder<'a> {
    fn model(&mut self, genai: bool) -> Result<bool> {
        let config = self.base.config();
        let int64 = ElementType::INT64;
        let ids = self.b.input("input_ids", int64, &[named(BATCH), named(SEQUENCE)]);
        self.b.input("attention_mask", int64, &[named(BATCH), named(TOTAL)]);
        if !genai || !grouped::turns_itself(config) {
            self.b.input("position_ids", int64, &[named(BATCH), named(SEQUENCE)]);
        }

        let embedding = self.whole("token_embd", Form::Rows(self.b.products))?;
        let rows = self.b.node("/model/embed_tokens/Gather", "Gather", &[&embedding, &ids]);
        let mut x = self.b.float_of("/model/embed_tokens", rows);
        x = self.scaled("/model/embed_tokens/Mul", x, config.embedding_scale);
        let shared = match genai {
            true => Shared::Grouped(grouped::Shared::new(self)?),
            false => Shared::Plain(attention::Shared::new(self)?),
        };
        for layer in 0..config.layers {
            x = self.block(layer, x, &shared)?;
        }
        let x = self.norm("output_norm", x)?;
        self.head(x, &embedding)
    }

    fn block(&mut self, layer: usize, x: Value, shared: &Shared) -> Result<Value> {
        let name = |part: &str| format!("blk.{layer}.{part}");
        let normed = self.norm_if_any(&name("attn_norm"), x.clone())?;
        let y = match shared {
            Shared::Plain(shared) => self.attention(layer, normed, shared)?,
            Shared::Grouped(shared) => self.grouped_attention(layer, normed, shared)?,
        };
        let x = self.residual(layer, "attention", x, y, &name("post_attention_norm"))?;
        let normed = self.norm_if_any(&name("ffn_norm"), x.clone())?;
        let y = self.feed_forward(layer, normed)?;
        self.residual(layer, "feed_forward", x, y, &name("post_ffw_norm"))
    }

    /// What a part gave, `[.., d_model]` in the type of products, normed where there is such a norm, added to `x`.
    fn residual(&mut self, layer: usize, part: &str, x: Value, y: Value, norm: &str) -> Result<Value> {
        let path = format!("/model/layers.{layer}/{part}_residual");
        let y = self.b.float_of(&path, y);
        let y = self.norm_if_any(norm, y)?;
        let y = self.scaled(&format!("{path}/Mul"), y, self.base.config().residual_scale);
        Ok(self.b.node(&format!("{path}/Add"), "Add", &[&x, &y]))
    }

    fn feed_forward(&mut self, layer: usize, x: Value) -> Result<Value> {
        let path = format!("/model/layers.{layer}/mlp");
        let x = self.b.for_products(&path, x);
        let gate_up = self.linears(layer, &["gate", "up"], &x)?;
        let [gate, up] = [&gate_up[0], &gate_up[1]];
        let hidden = self.activation(&format!("{path}/act_fn"), gate.clone());
        let hidden = self.b.node(&format!("{path}/Mul"), "Mul", &[&hidden, up]);
        Ok(self.linears(layer, &["down"], &hidden)?.swap_remove(0))
    }

    fn activation(&mut self, path: &str, x: Value) -> Value {
        let at = |op: &str| format!("{path}/{op}");
        match self.base.architecture().forward.activation {
            Activation::Silu => {
                let gate = self.b.node(&at("Sigmoid"), "Sigmoid", &[&x]);
                self.b.node(&at("Mul"), "Mul", &[&x, &gate])
            }
            // x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), in FLOAT: a cube soon leaves the range of FLOAT16.
            Activation::Gelu => {
                let x = self.b.float_of(path, x);
                let mut number = |value| self.b.number(value, ElementType::FLOAT);
                let (three, cubic, one, half) = (number(3.0), number(0.044715), number(1.0), number(0.5));
                let root = number((2.0 / std::f64::consts::PI).sqrt());
                let cube = self.b.node(&at("Pow"), "Pow", &[&x, &three]);
                let cube = self.b.node(&at("Mul"), "Mul", &[&cube, &cubic]);
                let sum = self.b.node(&at("Add"), "Add", &[&x, &cube]);
                let sum = self.b.node(&at("Mul_1"), "Mul", &[&sum, &root]);
                let tanh = self.b.node(&at("Tanh"), "Tanh", &[&sum]);
                let factor = self.b.node(&at("Add_1"), "Add", &[&tanh, &one]);
                let product = self.b.node(&at("Mul_2"), "Mul", &[&x, &factor]);
                let y = self.b.node(&at("Mul_3"), "Mul", &[&product, &half]);
                self.b.for_products(path, y)
            }
        }
    }

    /// Logits of all positions, from the matrix of the embedding where the model has none for them. That matrix then
    /// stands in the file once: Gemm reads it as `[out, in]`, as Gather does. Returns whether it has one.
    fn head(&mut self, x: Value, embedding: &Value) -> Result<bool> {
        let config = self.base.config();
        let x = self.b.for_products("/lm_head", x);
        // Without a configuration the numbers tell.
        let stated = onnx_companions::configuration_of(self.base).ok().flatten().unwrap_or_default();
        let own_head = onnx_companions::has_own_head(self.base, &stated)?;
        let logits = if own_head {
            self.linear("output", &x)?
        } else {
            let flat = self.b.ints(&[-1, config.d_model as i64]);
            let rows = self.b.node("/lm_head/Reshape", "Reshape", &[&x, &flat]);
            let product =
                self.b.node_with("/lm_head/Gemm", "Gemm", &[&rows, embedding], vec![int("transB", 1)]);
            let lengths = self.b.node("/lm_head/Shape", "Shape", &[&x]);
            let (start, end) = (self.b.ints(&[0]), self.b.ints(&[2]));
            let leading = self.b.node("/lm_head/Slice", "Slice", &[&lengths, &start, &end]);
            let vocab = self.b.ints(&[config.vocab as i64]);
            let shape =
                self.b.node_with("/lm_head/Concat", "Concat", &[&leading, &vocab], vec![int("axis", 0)]);
            self.b.node("/lm_head/Reshape_1", "Reshape", &[&product, &shape])
        };
        let mut logits = logits;
        if config.logit_scale != 1.0 || config.logit_cap.is_some() {
            logits = self.b.float_of("/lm_head", logits);
            logits = self.scaled("/lm_head/Mul", logits, config.logit_scale);
            logits = self.capped("/lm_head", logits, config.logit_cap);
            logits = self.b.cast("/lm_head/Cast_2", logits, ElementType::FLOAT, self.b.products);
        }
        self.b.call(&logits, "logits");
        let vocab = Dimension::Fixed(config.vocab as u64);
        let products = self.b.products;
        self.b.output("logits", products, &[named(BATCH), named(SEQUENCE), vocab]);
        self.b.end_inputs();
        // The caches come behind the logits.
        self.b.graph.outputs.rotate_right(1);
        Ok(own_head)
    }

    /// `x` in FLOAT times a factor, where that is not 1.
    pub(super) fn scaled(&mut self, name: &str, x: Value, factor: f64) -> Value {
        if factor == 1.0 {
            return x;
        }
        let factor = self.b.number(factor, ElementType::FLOAT);
        self.b.node(name, "Mul", &[&x, &factor])
    }

    /// `cap tanh(x / cap)` of `x` in FLOAT, where there is a cap.
    pub(super) fn capped(&mut self, path: &str, x: Value, cap: Option<f64>) -> Value {
        let Some(cap) = cap else { return x };
        let cap = self.b.number(cap, ElementType::FLOAT);
        let x = self.b.node(&format!("{path}/cap/Div"), "Div", &[&x, &cap]);
        let x = self.b.node(&format!("{path}/cap/Tanh"), "Tanh", &[&x]);
        self.b.node(&format!("{path}/cap/Mul"), "Mul", &[&x, &cap])
    }

    /// [`Self::norm`] where the architecture has one of this name.
    fn norm_if_any(&mut self, canonical: &str, x: Value) -> Result<Value> {
        match self.base.architecture().line(canonical) {
            Some(_) => self.norm(canonical, x),
            None => Ok(x),
        }
    }

    /// Divides `x` in FLOAT by its root mean square over the last axis and multiplies it by the norm's vector. The
    /// operators are those that onnxruntime fuses into one. A vector that its folder stores less one stands as the factor.
    pub(super) fn norm(&mut self, canonical: &str, x: Value) -> Result<Value> {
        let module = self.module(canonical)?;
        let values = self.base.vector(canonical)?;
        let weight = self.b.tensor(
            &format!("{module}.weight"),
            ElementType::FLOAT,
            &[values.len() as u64],
            &values,
        )?;
        let path = path(&module);
        let at = |op: &str| format!("{path}/{op}");
        let two = self.b.number(2.0, ElementType::FLOAT);
        let eps = self.b.number(self.base.config().norm_eps, ElementType::FLOAT);
        let squares = self.b.node(&at("Pow"), "Pow", &[&x, &two]);
        let attributes = vec![ints("axes", &[-1]), int("keepdims", 1)];
        let mean = self.b.node_with(&at("ReduceMean"), "ReduceMean", &[&squares], attributes);
        let mean = self.b.node(&at("Add"), "Add", &[&mean, &eps]);
        let root = self.b.node(&at("Sqrt"), "Sqrt", &[&mean]);
        let normed = self.b.node(&at("Div"), "Div", &[&x, &root]);
        Ok(self.b.node(&at("Mul"), "Mul", &[&normed, &weight]))
    }

    /// What the matrices of these roles make of `x`; of a matrix that holds several, by one product that is split.
    pub(super) fn linears(&mut self, layer: usize, roles: &[&str], x: &Value) -> Result<Vec<Value>> {
        let mut names = Vec::new();
        for role in roles {
            let part = self.base.architecture().target(role).ok_or_else(|| self.no_place(role))?;
            names.push(format!("blk.{layer}.{part}"));
        }
        let Some((whole, _)) = names[0].split_once('[') else {
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

    /// What one matrix makes of `x`, with its bias if it has one.
    fn linear(&mut self, canonical: &str, x: &Value) -> Result<Value> {
        let module = self.module(canonical)?;
        let path = path(&module);
        let products = self.b.products;
        let [rows, cols] = self.source(canonical)?.shape().map(|n| n as i64);
        let form = match self.file_type.blocks() {
            Some(zero_points) if cols % 32 == 0 => Form::Blocks { scales: products, zero_points },
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

    /// `y + (x A) B` with A and B as inputs, which by default have rank 0 and add nothing. They are FLOAT whatever the
    /// type of products, so that one adapter serves models of all types.
    fn adapted(&mut self, module: &str, [cols, rows]: [u64; 2], x: &Value, y: Value) -> Result<Value> {
        let path = path(module);
        // A name of the module's own: onnxruntime takes dimensions of one name for equal, and an adapter leaves modules out.
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
    fn whole(&mut self, canonical: &str, form: Form) -> Result<Value> {
        Ok(self.stored(canonical, form)?.swap_remove(0))
    }

    /// The initializers of a matrix.
    fn stored(&mut self, canonical: &str, form: Form) -> Result<Vec<Value>> {
        let name = format!("{}.weight", self.module(canonical)?);
        let source = self.source(canonical)?;
        Ok(self.b.matrix(&name, Matrix { name: name.clone(), source, form }))
    }

    /// Where the values of a matrix are, which may be stored in parts: ONNX models have those of q, k and v apart also
    /// where the architecture has them in one.
    fn source(&self, canonical: &str) -> Result<Source<'a>> {
        let parts = self.base.parts(canonical);
        if self.base.place(canonical).is_none() && !parts.is_empty() {
            let parts = parts.iter().map(|(part, _)| self.base.weight(part));
            return Ok(Source::Parts(parts.collect::<Result<_>>()?));
        }
        let weight = self.base.weight(canonical)?;
        let order = self.order(canonical, weight.rows() as u64)?;
        Ok(Source::Stored(weight, order))
    }

    /// Hugging Face's name of what has this canonical name.
    pub(super) fn module(&self, canonical: &str) -> Result<String> {
        let known = self.base.architecture().to_hugging_face(canonical);
        known.map(|(name, _)| name).ok_or_else(|| self.no_place(canonical))
    }

    fn order(&self, canonical: &str, rows: u64) -> Result<crate::base::RowOrder> {
        let line = self.base.architecture().to_hugging_face(canonical).map(|(_, line)| line);
        let order = line.and_then(|line| self.base.config().hugging_face_order(line, rows));
        order.ok_or_else(|| self.no_place(canonical))
    }

    fn no_place(&self, canonical: &str) -> Error {
        let problem = "the architecture's table has no such matrix, or its rows are no whole heads";
        Error::input(self.base.path(), canonical, problem, "download the model again")
    }
}
