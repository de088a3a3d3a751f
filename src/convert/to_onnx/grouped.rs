//! Attention in onnxruntime's GroupQueryAttention, as onnxruntime-genai wants it: the operator turns q and k, keeps the
//! cache (also in a buffer of fixed length), masks and multiplies.
//!
//! It counts positions from the lengths of the sequences, which it takes to be padded behind. Where longer contexts have
//! other frequencies, or heads are not of whole 16 entries as it turns them, q and k are turned before it, by
//! `position_ids`.

use curmerge_formats::onnx::ElementType;

use super::builder::{MICROSOFT, Value, float, int, ints};
use super::decoder::Decoder;
use super::matrix::{Angles, Form, Matrix, Source};
use crate::base::{Config, Rope};
use crate::{Error, Result};

/// Rows of cosines, one for each position, that a model may have: eight times those of today's long contexts.
const MAX_POSITIONS: usize = 1 << 20;

/// What the blocks have in common.
pub(super) struct Shared {
    /// The place of the last token of each sequence, INT32 `[batch]`.
    last: Value,
    /// The greatest length, INT32.
    total: Value,
    /// How the blocks without and with a window turn q and k.
    turns: [Turn; 2],
}

#[derive(Clone)]
enum Turn {
    /// By the operator, with the cosines and sines of all positions.
    Inside([Value; 2]),
    /// Before it, with those of the positions at hand.
    Before([Value; 2]),
}

/// Whether the operator turns q and k of this model itself.
pub(super) fn turns_itself(config: &Config) -> bool {
    let fits = |rope: &Rope| rope.long.is_none() && rope.dim.is_multiple_of(16);
    config.head_dim.is_multiple_of(16) && config.rope.iter().chain(&config.local_rope).all(fits)
}

impl Shared {
    /// # Errors
    /// A model without rotary positions; a context longer than the operator's cosines should be.
    pub(super) fn new(decoder: &mut Decoder<'_>) -> Result<Self> {
        let at = |op: &str| format!("/model/attn_mask_reformat/{op}");
        let b = &mut decoder.b;
        let int32 = || vec![int("to", ElementType::INT32.id())];
        let (axis, one) = (b.ints(&[1]), b.int(1));
        // Since opset 13 the axes of this one are an input.
        let attributes = vec![int("keepdims", 0)];
        let lengths = b.node_with(&at("ReduceSum"), "ReduceSum", &["attention_mask", &axis], attributes);
        let last = b.node(&at("Sub"), "Sub", &[&lengths, &one]);
        let last = b.node_with(&at("Sub/Cast"), "Cast", &[&last], int32());
        let shape = b.node(&at("Shape"), "Shape", &["attention_mask"]);
        let total = b.node(&at("Gather"), "Gather", &[&shape, &one]);
        let total = b.node_with(&at("Gather/Cast"), "Cast", &[&total], int32());
        let config = decoder.base.config();
        let Some(rope) = &config.rope else {
            let problem = "it has no rotary positions, which models for onnxruntime-genai by curmerge have";
            let help = "leave out --genai, for onnxruntime itself";
            return Err(Error::input(decoder.base.path(), "architecture", problem, help));
        };
        let global = decoder.turn("rotary_emb", rope)?;
        let local = match &config.local_rope {
            Some(rope) => decoder.turn("rotary_emb_local", rope)?,
            None => global.clone(),
        };
        Ok(Shared { last, total, turns: [global, local] })
    }
}

impl Decoder<'_> {
    fn turn(&mut self, name: &str, rope: &Rope) -> Result<Turn> {
        if !turns_itself(self.base.config()) {
            return Ok(Turn::Before(self.angles(&format!("/model/{name}"), rope)?));
        }
        let positions = self.base.config().context;
        if positions > MAX_POSITIONS {
            let problem =
                format!("{positions} positions, of which a model for onnxruntime-genai has a row each");
            let help = format!("lower max_position_embeddings of config.json to at most {MAX_POSITIONS}");
            return Err(Error::input(self.base.path(), "context length", problem, help));
        }
        Ok(Turn::Inside(["cos", "sin"].map(|word| {
            let of = if word == "cos" { f64::cos } else { f64::sin };
            // A constant, not a weight.
            let name = format!("/model/{name}/{word}_cache");
            let frequencies = rope.frequencies(0);
            let source = Source::Angles(Angles { positions, frequencies, amplitude: rope.amplitude, of });
            let form = Form::Rows(self.b.products);
            self.b.matrix(&name, Matrix { name: name.clone(), source, form }).swap_remove(0)
        })))
    }

    /// What attention makes of `x` `[batch, sequence, d_model]` in FLOAT, in the type of products.
    pub(super) fn grouped_attention(&mut self, layer: usize, x: Value, shared: &Shared) -> Result<Value> {
        let config = self.base.config();
        let path = format!("/model/layers.{layer}/self_attn");
        let window = config.window_of(layer);
        let x = self.b.for_products(&path, x);
        let mut qkv = self.linears(layer, &["q", "k", "v"], &x)?;
        let turn = &shared.turns[usize::from(window.is_some())];
        for (index, (word, heads)) in [("q", config.heads), ("k", config.kv_heads)].into_iter().enumerate() {
            let normed = self.base.architecture().line(&format!("blk.{layer}.attn_{word}_norm")).is_some();
            let before = matches!(turn, Turn::Before(_));
            if !normed && !before {
                continue;
            }
            let mut x = self.headed(layer, word, qkv[index].clone(), heads as i64)?;
            if let Turn::Before(angles) = turn {
                x = self.turned(&format!("{path}/{word}_rope"), x, angles);
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
        if let Turn::Inside(caches) = turn {
            inputs.extend(caches.iter().map(String::as_str));
            attributes.extend([int("do_rotary", 1), int("rotary_interleaved", 0)]);
        }
        let name = format!("{path}/GroupQueryAttention");
        let output = format!("{name}_output_0");
        let operator = (MICROSOFT, "GroupQueryAttention");
        self.b.node_giving(&name, operator, &inputs, &[&output, &key, &value], attributes);
        Ok(self.linears(layer, &["o"], &output)?.swap_remove(0))
    }
}
