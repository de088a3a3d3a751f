//! Attention in standard operators: rotary embeddings, the cache, the mask.
//!
//! Keys and values are not repeated for the query heads that share them: the queries of one key head are
//! consecutive rows of one product. Every shape is a constant, in which 0 means a length that does not
//! change.

use std::ops::Range;

use curmerge_formats::onnx::{Dimension, ElementType};

use super::builder::{Value, int, ints};
use super::modules::{BATCH, Modules, TOTAL, named};
use crate::Result;
use crate::base::{AttentionTemperature, Rope};

/// What all blocks share.
pub(super) struct Shared {
    /// Cosines and sines `[batch, 1, sequence, rotated]` of the blocks without and with a window.
    angles: [Option<[Value; 2]>; 2],
    /// What is added to scores, `[batch, 1, sequence, total]`, for the same two.
    masks: [Option<Value>; 2],
    /// The factors of queries by their positions, `[batch, 1, sequence, 1]`.
    temperature: Option<Value>,
}

impl Shared {
    /// # Errors
    /// Frequencies that are not finite.
    pub(super) fn new(modules: &mut Modules<'_>) -> Result<Self> {
        let config = modules.base.config();
        let windowed: Vec<bool> = (0..config.layers).map(|layer| config.window_of(layer).is_some()).collect();
        let (some, all) = (windowed.contains(&true), !windowed.contains(&false));
        let masks = modules.masks(config.window.filter(|_| some), !all);
        let mut angles = [const { None }; 2];
        angles[0] = config.rope.as_ref().map(|rope| modules.angles("/model/rotary_emb", rope)).transpose()?;
        angles[1] = match &config.local_rope {
            Some(rope) if some => Some(modules.angles("/model/rotary_emb_local", rope)?),
            _ => angles[0].clone(),
        };
        let temperature = config.temperature.map(|temperature| modules.temperature(temperature));
        Ok(Shared { angles, masks, temperature })
    }
}

impl Modules<'_> {
    /// Zero where a query sees a key, and a large negative number elsewhere: for blocks without a window, if
    /// `wanted`, and for those with one. Positions are places in the cache, so padding before a sequence
    /// counts.
    fn masks(&mut self, window: Option<usize>, wanted: bool) -> [Option<Value>; 2] {
        let at = |op: &str| format!("/model/mask/{op}");
        let (zero, one) = (self.b.int(0), self.b.int(1));
        let (axis_0, axis_1, axes) = (self.b.ints(&[0]), self.b.ints(&[1]), self.b.ints(&[1, 2]));
        let mut length = |input: &str, op: &str| {
            let shape = self.b.node(&at(&format!("{op}/Shape")), "Shape", &[input]);
            self.b.node(&at(&format!("{op}/Gather")), "Gather", &[&shape, &one])
        };
        let (new, total) = (length("input_ids", "sequence"), length("attention_mask", "total"));
        let past = self.b.node(&at("Sub"), "Sub", &[&total, &new]);
        let queries = self.b.node(&at("Range"), "Range", &[&past, &total, &one]);
        let keys = self.b.node(&at("Range_1"), "Range", &[&zero, &total, &one]);
        let queries = self.b.node(&at("Unsqueeze"), "Unsqueeze", &[&queries, &axis_1]);
        let keys = self.b.node(&at("Unsqueeze_1"), "Unsqueeze", &[&keys, &axis_0]);
        let causal = self.b.node(&at("LessOrEqual"), "LessOrEqual", &[&keys, &queries]);
        let real = self.b.node_with(
            &at("Cast"),
            "Cast",
            &["attention_mask"],
            vec![int("to", ElementType::BOOL.id())],
        );
        let real = self.b.node(&at("Unsqueeze_2"), "Unsqueeze", &[&real, &axes]);
        let seen = self.b.node(&at("And"), "And", &[&causal, &real]);
        let windowed = window.map(|window| {
            let window = self.b.int(window as i64);
            let before = self.b.node(&at("Sub_1"), "Sub", &[&queries, &window]);
            let near = self.b.node(&at("Greater"), "Greater", &[&keys, &before]);
            self.b.node(&at("And_1"), "And", &[&seen, &near])
        });
        let (shown, hidden) = (
            self.b.number(0.0, ElementType::FLOAT),
            // Finite: a row of padding sees nothing and still has a softmax.
            self.b.number(f64::from(f32::MIN), ElementType::FLOAT),
        );
        let mut mask = |name: &str, seen: Value| self.b.node(&at(name), "Where", &[&seen, &shown, &hidden]);
        [wanted.then(|| mask("Where", seen)), windowed.map(|seen| mask("Where_1", seen))]
    }

    /// `1 + beta ln(1 + floor(position / length))` of every position, `[batch, 1, sequence, 1]`.
    fn temperature(&mut self, temperature: AttentionTemperature) -> Value {
        let at = |op: &str| format!("/model/temperature/{op}");
        let float = ElementType::FLOAT;
        let length = i64::try_from(temperature.length).unwrap_or(i64::MAX);
        let (length, axes) = (self.b.int(length), self.b.ints(&[1, 3]));
        let (one, beta) = (self.b.number(1.0, float), self.b.number(temperature.beta, float));
        let whole = self.b.node(&at("Div"), "Div", &["position_ids", &length]);
        let whole = self.b.node_with(&at("Cast_2"), "Cast", &[&whole], vec![int("to", float.id())]);
        let sum = self.b.node(&at("Add"), "Add", &[&whole, &one]);
        let log = self.b.node(&at("Log"), "Log", &[&sum]);
        let grown = self.b.node(&at("Mul"), "Mul", &[&log, &beta]);
        let factor = self.b.node(&at("Add_1"), "Add", &[&grown, &one]);
        let factor = self.b.node(&at("Unsqueeze"), "Unsqueeze", &[&factor, &axes]);
        self.b.for_products("/model/temperature", factor)
    }

    /// Cosines and sines of every position, `[batch, 1, sequence, rotated]`: those of a pair's second entry as of its
    /// first.
    pub(super) fn angles(&mut self, path: &str, rope: &Rope) -> Result<[Value; 2]> {
        let at = |op: &str| format!("{path}/{op}");
        let frequencies = self.frequencies(path, rope)?;
        let positions = self.b.node_with(
            &at("Cast_2"),
            "Cast",
            &["position_ids"],
            vec![int("to", ElementType::FLOAT.id())],
        );
        let (head, last) = (self.b.ints(&[1]), self.b.ints(&[2]));
        let positions = self.b.node(&at("Unsqueeze"), "Unsqueeze", &[&positions, &last]);
        let angles = self.b.node(&at("Mul"), "Mul", &[&positions, &frequencies]);
        let angles = if self.base.architecture().has_rotary_neighbours() {
            let (third, flat) = (self.b.ints(&[3]), self.b.ints(&[0, 0, rope.dim as i64]));
            let angles = self.b.node(&at("Unsqueeze_2"), "Unsqueeze", &[&angles, &third]);
            let twice = vec![int("axis", -1)];
            let angles = self.b.node_with(&at("Concat"), "Concat", &[&angles, &angles], twice);
            self.b.node(&at("Reshape"), "Reshape", &[&angles, &flat])
        } else {
            self.b.node_with(&at("Concat"), "Concat", &[&angles, &angles], vec![int("axis", -1)])
        };
        let angles = self.b.node(&at("Unsqueeze_1"), "Unsqueeze", &[&angles, &head]);
        Ok(["Cos", "Sin"].map(|op| {
            let value = self.b.node(&at(op), op, &[&angles]);
            let value = self.scaled(&at(&format!("{op}/Mul")), value, rope.amplitude);
            self.b.for_products(&at(op), value)
        }))
    }

    /// The frequencies `[1, 1, rotated / 2]`; if longer contexts have their own, the greatest position
    /// selects them.
    fn frequencies(&mut self, path: &str, rope: &Rope) -> Result<Value> {
        let at = |op: &str| format!("{path}/{op}");
        let mut tensor = |name: &str, context: usize| {
            let values: Vec<f32> = rope.frequencies(context).iter().map(|&x| x as f32).collect();
            self.b.tensor(&at(name), ElementType::FLOAT, &[1, 1, values.len() as u64], &values)
        };
        let short = tensor("inv_freq", 0)?;
        let Some(long) = &rope.long else { return Ok(short) };
        let other = tensor("long_inv_freq", usize::MAX)?;
        let original = self.b.int(i64::try_from(long.original_context).unwrap_or(i64::MAX));
        let greatest = vec![int("keepdims", 0)];
        let greatest = self.b.node_with(&at("ReduceMax"), "ReduceMax", &["position_ids"], greatest);
        // The last position is one less than the length.
        let is_long = self.b.node(&at("GreaterOrEqual"), "GreaterOrEqual", &[&greatest, &original]);
        Ok(self.b.node(&at("Where"), "Where", &[&is_long, &other, &short]))
    }

    /// Attention over `x` `[batch, sequence, d_model]` in FLOAT; its output in the type of products.
    pub(super) fn attention(&mut self, layer: usize, x: Value, shared: &Shared) -> Result<Value> {
        let config = self.base.config();
        let path = format!("/model/layers.{layer}/self_attn");
        let at = |op: &str| format!("{path}/{op}");
        let (heads, kv_heads, dim) = (config.heads as i64, config.kv_heads as i64, config.head_dim as i64);
        let windowed = usize::from(config.window_of(layer).is_some());
        let x = self.b.for_products(&path, x);
        let qkv = self.linears(layer, &["q", "k", "v"], &x)?;
        let q = self.headed(layer, "q", qkv[0].clone(), heads)?;
        let k = self.headed(layer, "k", qkv[1].clone(), kv_heads)?;
        let v = self.headed(layer, "v", qkv[2].clone(), kv_heads)?;
        let (mut q, mut k) = (q, k);
        let rotates = config.rope_of(layer).is_some();
        if let Some(angles) = shared.angles[windowed].as_ref().filter(|_| rotates) {
            q = self.rotated(&at("q_rope"), q, angles);
            k = self.rotated(&at("k_rope"), k, angles);
        }
        if self.base.architecture().forward.norms_rotated {
            q = self.headed_norm(layer, "q", q)?;
            k = self.headed_norm(layer, "k", k)?;
        }
        if let Some(factor) = &shared.temperature {
            q = self.b.node(&at("Mul_2"), "Mul", &[&q, factor]);
        }
        let k = self.cached(layer, "key", &k);
        let v = self.cached(layer, "value", &v);

        let scale = self.b.number(config.attention_scale, self.b.products);
        let q = self.b.node(&at("Mul"), "Mul", &[&q, &scale]);
        // [batch, heads, sequence, dim] as [batch, kv_heads, group * sequence, dim].
        let (grouped, apart) = (self.b.ints(&[0, kv_heads, -1, dim]), self.b.ints(&[0, heads, -1, 0]));
        let together = self.b.ints(&[0, kv_heads, -1, 0]);
        let q = self.b.node(&at("Reshape"), "Reshape", &[&q, &grouped]);
        let k = self.b.node_with(&at("Transpose"), "Transpose", &[&k], vec![ints("perm", &[0, 1, 3, 2])]);
        let scores = self.b.node(&at("MatMul"), "MatMul", &[&q, &k]);
        let scores = self.b.node(&at("Reshape_1"), "Reshape", &[&scores, &apart]);
        let scores = self.b.float_of(&at("scores"), scores);
        let mut scores = self.capped(&at("scores"), scores, config.attention_cap);
        if let Some(mask) = &shared.masks[windowed] {
            scores = self.b.node(&at("Add"), "Add", &[&scores, mask]);
        }
        let weights = match self.sinks(layer, &[1, config.heads as u64, 1, 1])? {
            None => self.b.node_with(&at("Softmax"), "Softmax", &[&scores], vec![int("axis", -1)]),
            Some(sinks) => {
                let sinks = self.b.float_of(&at("sinks"), sinks);
                self.softmax_with(&at("sinks"), &scores, &sinks)
            }
        };
        let weights = self.b.for_products(&at("weights"), weights);
        let weights = self.b.node(&at("Reshape_2"), "Reshape", &[&weights, &together]);
        let y = self.b.node(&at("MatMul_1"), "MatMul", &[&weights, &v]);
        let y_heads = self.b.ints(&[0, heads, -1, dim]);
        let y = self.b.node(&at("Reshape_3"), "Reshape", &[&y, &y_heads]);
        let y = self.b.node_with(&at("Transpose_1"), "Transpose", &[&y], vec![ints("perm", &[0, 2, 1, 3])]);
        let flat = self.b.ints(&[0, 0, heads * dim]);
        let y = self.b.node(&at("Reshape_4"), "Reshape", &[&y, &flat]);
        Ok(self.linears(layer, &["o"], &y)?.swap_remove(0))
    }

    /// The attention sinks of a block in the type of products, if it has any, as a tensor of this shape.
    pub(super) fn sinks(&mut self, layer: usize, shape: &[u64]) -> Result<Option<Value>> {
        let canonical = format!("blk.{layer}.attn_sinks");
        if self.base.place(&canonical).is_none() {
            return Ok(None);
        }
        let (name, values) = (self.module(&canonical)?, self.base.vector(&canonical)?);
        let products = self.b.products;
        self.b.tensor(&name, products, shape, &values).map(Some)
    }

    /// The softmax of scores along the last axis with one more term `sinks` in each sum: all in FLOAT.
    fn softmax_with(&mut self, path: &str, scores: &Value, sinks: &Value) -> Value {
        let at = |op: &str| format!("{path}/{op}");
        let last = vec![ints("axes", &[-1])];
        let greatest = self.b.node_with(&at("ReduceMax"), "ReduceMax", &[scores], last);
        let greatest = self.b.node(&at("Max"), "Max", &[&greatest, sinks]);
        let shifted = self.b.node(&at("Sub"), "Sub", &[scores, &greatest]);
        let shares = self.b.node(&at("Exp"), "Exp", &[&shifted]);
        let axis = self.b.ints(&[-1]);
        let sum = self.b.node(&at("ReduceSum"), "ReduceSum", &[&shares, &axis]);
        let sink = self.b.node(&at("Sub_1"), "Sub", &[sinks, &greatest]);
        let sink = self.b.node(&at("Exp_1"), "Exp", &[&sink]);
        let sum = self.b.node(&at("Add"), "Add", &[&sum, &sink]);
        self.b.node(&at("Div"), "Div", &[&shares, &sum])
    }

    /// The norm of the heads of q or k, which are `[batch, heads, sequence, dim]`, if there is one.
    pub(super) fn headed_norm(&mut self, layer: usize, word: &str, x: Value) -> Result<Value> {
        let norm = format!("blk.{layer}.attn_{word}_norm");
        match self.has_norm(&norm) {
            true => self.normed(&format!("/model/layers.{layer}/self_attn/{word}"), &norm, x),
            false => Ok(x),
        }
    }

    /// `[batch, sequence, heads * dim]` as `[batch, heads, sequence, dim]`, after the norm of q or k if there
    /// is one before the rotation.
    pub(super) fn headed(&mut self, layer: usize, word: &str, x: Value, heads: i64) -> Result<Value> {
        let dim = self.base.config().head_dim as i64;
        let path = format!("/model/layers.{layer}/self_attn/{word}");
        let norm = format!("blk.{layer}.attn_{word}_norm");
        let has_norm = self.has_norm(&norm) && !self.base.architecture().forward.norms_rotated;
        let of_head = has_norm && self.base.weight(&norm)?.cols() as i64 == dim;
        let mut x = x;
        if has_norm && !of_head {
            x = self.normed(&path, &norm, x)?;
        }
        let shape = self.b.ints(&[0, 0, heads, dim]);
        x = self.b.node(&format!("{path}/Reshape"), "Reshape", &[&x, &shape]);
        if of_head {
            x = self.normed(&path, &norm, x)?;
        }
        let perm = vec![ints("perm", &[0, 2, 1, 3])];
        Ok(self.b.node_with(&format!("{path}/Transpose"), "Transpose", &[&x], perm))
    }

    /// A norm of what is in the type of products.
    pub(super) fn normed(&mut self, path: &str, norm: &str, x: Value) -> Result<Value> {
        let x = self.b.float_of(path, x);
        let x = self.norm(norm, x)?;
        Ok(self.b.for_products(path, x))
    }

    fn slice(&mut self, name: &str, x: &Value, axis: i64, range: Range<i64>) -> Value {
        let [axis, from, to] = [axis, range.start, range.end].map(|number| self.b.ints(&[number]));
        self.b.node(name, "Slice", &[x, &from, &to, &axis])
    }

    /// Rotates the leading entries of every head of `x` `[batch, heads, sequence, dim]`. The two entries of a
    /// pair are half the rotated length apart, or [neighbours](crate::arch::Architecture::has_rotary_neighbours).
    pub(super) fn rotated(&mut self, path: &str, x: Value, [cos, sin]: &[Value; 2]) -> Value {
        let at = |op: &str| format!("{path}/{op}");
        let config = self.base.config();
        let dim = config.head_dim as i64;
        let rotated = config.rope.as_ref().map_or(dim, |rope| rope.dim as i64);
        let rest = (rotated < dim).then(|| {
            [(0, rotated, "Slice_2"), (rotated, dim, "Slice_3")]
                .map(|(from, to, name)| self.slice(&at(name), &x, 3, from..to))
        });
        let along = rest.as_ref().map_or(&x, |[turning, _]| turning);
        let across = if self.base.architecture().has_rotary_neighbours() {
            let (pairs, flat) = (self.b.ints(&[0, 0, 0, rotated / 2, 2]), self.b.ints(&[0, 0, 0, rotated]));
            let pairs = self.b.node(&at("Reshape"), "Reshape", &[along, &pairs]);
            let first = self.slice(&at("Slice"), &pairs, 4, 0..1);
            let second = self.slice(&at("Slice_1"), &pairs, 4, 1..2);
            let second = self.b.node(&at("Neg"), "Neg", &[&second]);
            let across = self.b.node_with(&at("Concat"), "Concat", &[&second, &first], vec![int("axis", -1)]);
            self.b.node(&at("Reshape_1"), "Reshape", &[&across, &flat])
        } else {
            let half = rotated / 2;
            let first = self.slice(&at("Slice"), along, 3, 0..half);
            let second = self.slice(&at("Slice_1"), along, 3, half..rotated);
            let second = self.b.node(&at("Neg"), "Neg", &[&second]);
            self.b.node_with(&at("Concat"), "Concat", &[&second, &first], vec![int("axis", -1)])
        };
        let along = self.b.node(&at("Mul"), "Mul", &[along, cos]);
        let across = self.b.node(&at("Mul_1"), "Mul", &[&across, sin]);
        let turned = self.b.node(&at("Add"), "Add", &[&along, &across]);
        match rest {
            Some([_, rest]) => {
                self.b.node_with(&at("Concat_1"), "Concat", &[&turned, &rest], vec![int("axis", -1)])
            }
            None => turned,
        }
    }

    /// Keys or values of the cache followed by the new ones, both `[batch, kv_heads, .., dim]`.
    fn cached(&mut self, layer: usize, what: &str, new: &Value) -> Value {
        let [past, present] = self.cache(layer, what);
        let name = format!("/model/layers.{layer}/self_attn/{what}/Concat");
        self.b.node_giving(&name, ("", "Concat"), &[&past, new], &[&present], vec![int("axis", 2)]);
        present
    }

    /// Declares the cache of keys or values as an input and an output, and returns their names.
    pub(super) fn cache(&mut self, layer: usize, what: &str) -> [Value; 2] {
        let config = self.base.config();
        let shape = |length: &str| {
            let [heads, dim] = [config.kv_heads, config.head_dim].map(|n| Dimension::Fixed(n as u64));
            [named(BATCH), heads, named(length), dim]
        };
        let products = self.b.products;
        let present = format!("present.{layer}.{what}");
        let past = self.b.input(
            &format!("past_key_values.{layer}.{what}"),
            products,
            &shape("past_sequence_length"),
        );
        self.b.output(&present, products, &shape(TOTAL));
        [past, present]
    }
}
