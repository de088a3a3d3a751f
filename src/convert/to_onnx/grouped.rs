//! Attention in onnxruntime's GroupQueryAttention, which onnxruntime-genai requires: the operator rotates q
//! and k, keeps the cache (also in a buffer of fixed length), masks and multiplies.
//!
//! It derives positions from the lengths of the sequences, and assumes padding at their end. It rotates
//! multiples of 16 entries and has one set of frequencies. For other heads, and if longer contexts have
//! frequencies of their own, nodes before it rotate q and k by `position_ids`.

use curmerge_formats::onnx::ElementType;

use super::builder::{MICROSOFT, Value, float, int, ints};
use super::matrix::{Angles, Form, Matrix, Source};
use super::modules::Modules;
use crate::base::{Base, Rope};
use crate::error::CallerOption;
use crate::{Error, Result};

/// The maximum number of positions, each of which has a row of cosines: eight times today's long contexts.
const MAX_POSITIONS: usize = 1 << 20;

/// The operator's input of attention sinks.
const SINKS: usize = 11;

/// What all blocks share.
pub(super) struct Shared {
    /// The place of the last token of each sequence, INT32 `[batch]`.
    last: Value,
    /// The greatest length, INT32.
    total: Value,
    /// How q and k are rotated in the blocks without and with a window.
    rotations: [Rotation; 2],
}

/// How q and k are rotated.
#[derive(Clone)]
enum Rotation {
    /// By the operator, with the cosines and sines of all positions.
    Inside([Value; 2]),
    /// By nodes before it, with the cosines and sines of the input's positions.
    Before([Value; 2]),
}

/// Whether the operator itself rotates q and k of this model. It takes them normed.
pub(super) fn rotates_itself(base: &Base) -> bool {
    let config = base.config();
    if base.architecture().forward.norms_rotated {
        return false;
    }
    let fits = |rope: &Rope| rope.long.is_none() && rope.dim.is_multiple_of(16);
    config.head_dim.is_multiple_of(16) && config.rope.iter().chain(&config.local_rope).all(fits)
}

impl Shared {
    /// # Errors
    /// A model without rotary positions; a context of more than [`MAX_POSITIONS`].
    pub(super) fn new(modules: &mut Modules<'_>) -> Result<Self> {
        let at = |op: &str| format!("/model/attn_mask_reformat/{op}");
        let b = &mut modules.b;
        let int32 = || vec![int("to", ElementType::INT32.id())];
        let (axis, one) = (b.ints(&[1]), b.int(1));
        // Since opset 13, the axes of ReduceSum are an input.
        let attributes = vec![int("keepdims", 0)];
        let lengths = b.node_with(&at("ReduceSum"), "ReduceSum", &["attention_mask", &axis], attributes);
        let last = b.node(&at("Sub"), "Sub", &[&lengths, &one]);
        let last = b.node_with(&at("Sub/Cast"), "Cast", &[&last], int32());
        let shape = b.node(&at("Shape"), "Shape", &["attention_mask"]);
        let total = b.node(&at("Gather"), "Gather", &[&shape, &one]);
        let total = b.node_with(&at("Gather/Cast"), "Cast", &[&total], int32());
        let config = modules.base.config();
        let Some(rope) = &config.rope else {
            let problem = "it has no rotary positions, which curmerge's models for onnxruntime-genai need";
            let help = "make the model for onnxruntime itself";
            let error = Error::input(modules.base.path(), "architecture", problem, help);
            return Err(error.avoidable(CallerOption::Genai));
        };
        let global = modules.rotation("rotary_emb", rope)?;
        let local = match &config.local_rope {
            Some(rope) => modules.rotation("rotary_emb_local", rope)?,
            None => global.clone(),
        };
        Ok(Shared { last, total, rotations: [global, local] })
    }
}

impl Modules<'_> {
    fn rotation(&mut self, name: &str, rope: &Rope) -> Result<Rotation> {
        if !rotates_itself(self.base) {
            return Ok(Rotation::Before(self.angles(&format!("/model/{name}"), rope)?));
        }
        let positions = self.base.config().context;
        if positions > MAX_POSITIONS {
            let problem =
                format!("{positions} positions, each of which takes a row in a model for onnxruntime-genai");
            let help = format!("lower max_position_embeddings of config.json to at most {MAX_POSITIONS}");
            return Err(Error::input(self.base.path(), "context length", problem, help));
        }
        Ok(Rotation::Inside(["cos", "sin"].map(|word| {
            let of = if word == "cos" { f64::cos } else { f64::sin };
            // A constant, not a weight.
            let name = format!("/model/{name}/{word}_cache");
            let frequencies = rope.frequencies(0);
            let source = Source::Angles(Angles { positions, frequencies, amplitude: rope.amplitude, of });
            let form = Form::Rows(self.b.products);
            self.b.matrix(&name, Matrix { name: name.clone(), source, form }).swap_remove(0)
        })))
    }

    /// Attention over `x` `[batch, sequence, d_model]` in FLOAT; its output in the type of products.
    pub(super) fn grouped_attention(&mut self, layer: usize, x: Value, shared: &Shared) -> Result<Value> {
        let config = self.base.config();
        let path = format!("/model/layers.{layer}/self_attn");
        let window = config.window_of(layer);
        let x = self.b.for_products(&path, x);
        let mut qkv = self.linears(layer, &["q", "k", "v"], &x)?;
        let rotation = &shared.rotations[usize::from(window.is_some())];
        let rotation = config.rope_of(layer).map(|_| rotation);
        for (index, (word, heads)) in [("q", config.heads), ("k", config.kv_heads)].into_iter().enumerate() {
            let normed = self.has_norm(&format!("blk.{layer}.attn_{word}_norm"));
            let before = matches!(rotation, Some(Rotation::Before(_)));
            if !normed && !before {
                continue;
            }
            let mut x = self.headed(layer, word, qkv[index].clone(), heads as i64)?;
            if let Some(Rotation::Before(angles)) = rotation {
                x = self.rotated(&format!("{path}/{word}_rope"), x, angles);
            }
            if self.base.architecture().forward.norms_rotated {
                x = self.headed_norm(layer, word, x)?;
            }
            let back = vec![ints("perm", &[0, 2, 1, 3])];
            let x = self.b.node_with(&format!("{path}/{word}/Transpose_1"), "Transpose", &[&x], back);
            let flat = self.b.ints(&[0, 0, (heads * config.head_dim) as i64]);
            qkv[index] = self.b.node(&format!("{path}/{word}/Reshape_1"), "Reshape", &[&x, &flat]);
        }
        let [past_key, key] = self.cache(layer, "key");
        let [past_value, value] = self.cache(layer, "value");
        let mut inputs: Vec<&str> = qkv.iter().map(String::as_str).collect();
        inputs.extend([&*past_key, &past_value, &shared.last, &shared.total]);
        let mut attributes = vec![
            int("num_heads", config.heads as i64),
            int("kv_num_heads", config.kv_heads as i64),
            float("scale", config.attention_scale),
            int("local_window_size", window.map_or(-1, |window| window as i64)),
            float("softcap", config.attention_cap.unwrap_or(0.0)),
        ];
        let neighbours = self.base.architecture().has_rotary_neighbours();
        if let Some(Rotation::Inside(caches)) = rotation {
            inputs.extend(caches.iter().map(String::as_str));
            attributes.extend([int("do_rotary", 1), int("rotary_interleaved", neighbours.into())]);
        }
        let sinks = self.sinks(layer, &[config.heads as u64])?;
        if let Some(sinks) = &sinks {
            inputs.resize(SINKS, "");
            inputs.push(sinks);
        }
        let name = format!("{path}/GroupQueryAttention");
        let output = format!("{name}_output_0");
        let operator = (MICROSOFT, "GroupQueryAttention");
        self.b.node_giving(&name, operator, &inputs, &[&output, &key, &value], attributes);
        Ok(self.linears(layer, &["o"], &output)?.swap_remove(0))
    }
}
