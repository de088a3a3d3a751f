//! The decoder as a graph: embedding, blocks of attention and feed-forward part, logits.
//!
//! The architecture's tensors decide which parts a block has, as in [`crate::model`]. Norms, softmax and the
//! residual stream are computed in FLOAT even if products are in FLOAT16: the residual stream of some models
//! exceeds its range.

use curmerge_formats::onnx::{Dimension, ElementType};

use super::builder::{Builder, Value, int};
use super::matrix::Form;
use super::modules::{BATCH, Modules, SEQUENCE, TOTAL, named};
use super::options::OnnxOptions;
use super::{attention, genai, grouped};
use crate::arch::{MixerKind, Positions, Unrotated};
use crate::base::Base;
use crate::convert::onnx_companions;
use crate::{Error, Result};

/// What the attention of all blocks shares.
enum Shared {
    Plain(attention::Shared),
    Grouped(grouped::Shared),
}

/// The graph of a base's decoder, and whether its output head is a matrix of its own.
///
/// # Errors
/// What has no form in ONNX ([`crate::arch::Architecture::without_onnx_form`]); a tensor that cannot be decoded.
pub(super) fn decoder<'a>(base: &'a Base, options: &OnnxOptions) -> Result<(Builder<'a>, bool)> {
    let architecture = base.architecture();
    if let Some(what) = architecture.without_onnx_form() {
        let problem = format!("{} has {what}, which curmerge does not write as ONNX", architecture.name);
        let help = "convert it into a GGUF file or a folder";
        return Err(Error::input(base.path(), "architecture", problem, help));
    }
    // The folder's config.json must say which, and has no word for it.
    let unsaid = architecture.forward.unrotated == Unrotated::Switched;
    if !base.config().unrotated.is_empty() && unsaid {
        let problem = "some blocks have no rotary embedding, which curmerge does not write as ONNX";
        let help = "convert it into a GGUF file or a folder";
        return Err(Error::input(base.path(), "rope.scaling.finetuned", problem, help));
    }
    if options.genai {
        genai::model_type(base)?;
    }
    let mut lines = architecture.names();
    let in_groups = !architecture.tensors.joined_rows.is_empty() || lines.any(|line| line.groups.is_some());
    if options.lora_inputs.is_some() && in_groups {
        let problem =
            "LoRA inputs need the matrices of its folder, of which some hold the rows of several in groups";
        let help = "merge the adapter first, then convert without LoRA inputs";
        return Err(Error::input(base.path(), "architecture", problem, help));
    }
    let adapted = match &options.lora_inputs {
        Some(words) => base.targets(words, None)?,
        None => Vec::new(),
    };
    let mut modules = Modules::new(base, options.file_type, adapted);
    let own_head = modules.model(options.genai)?;
    Ok((modules.b, own_head))
}

impl Modules<'_> {
    fn model(&mut self, genai: bool) -> Result<bool> {
        let config = self.base.config();
        let int64 = ElementType::INT64;
        let ids = self.b.input("input_ids", int64, &[named(BATCH), named(SEQUENCE)]);
        self.b.input("attention_mask", int64, &[named(BATCH), named(TOTAL)]);
        if !genai || !grouped::rotates_itself(self.base) {
            self.b.input("position_ids", int64, &[named(BATCH), named(SEQUENCE)]);
        }

        let embedding = self.whole("token_embd", Form::Rows(self.b.products))?;
        let rows = self.b.node("/model/embed_tokens/Gather", "Gather", &[&embedding, &ids]);
        let mut x = self.b.float_of("/model/embed_tokens", rows);
        x = self.scaled("/model/embed_tokens/Mul", x, config.embedding_scale);
        if self.base.architecture().forward.positions == Positions::Learned {
            x = self.with_positions(x)?;
        }
        let shared = match genai {
            true => Shared::Grouped(grouped::Shared::new(self)?),
            false => Shared::Plain(attention::Shared::new(self)?),
        };
        // onnxruntime-genai pads at the end.
        let convolves = !genai && (0..config.layers).any(|layer| self.convolves(layer));
        let real = convolves.then(|| self.real_tokens());
        for layer in 0..config.layers {
            x = self.block(layer, x, &shared, real.as_ref())?;
        }
        let x = self.norm(self.base.architecture().tensors.last_norm, x)?;
        self.head(x, &embedding)
    }

    /// Whether a block has a short convolution in place of attention.
    fn convolves(&self, layer: usize) -> bool {
        self.base.config().block_kind(layer).mixer == Some(MixerKind::Convolution)
    }

    /// One block; `real` tells the tokens that are not padding.
    fn block(&mut self, layer: usize, x: Value, shared: &Shared, real: Option<&Value>) -> Result<Value> {
        let name = |part: &str| format!("blk.{layer}.{part}");
        let norms = self.base.architecture().tensors.norms;
        let before = match norms.before_both {
            Some(both) if !self.has_norm(&name(norms.before_attention)) => both,
            _ => norms.before_attention,
        };
        let normed = self.norm_if_any(&name(before), x.clone())?;
        // Parallel parts that share a norm share what it made.
        let shared_norm = (before == norms.before_feed_forward).then(|| normed.clone());
        let y = match shared {
            _ if self.convolves(layer) => self.short_convolution(layer, normed, real)?,
            Shared::Plain(shared) => self.attention(layer, normed, shared)?,
            Shared::Grouped(shared) => self.grouped_attention(layer, normed, shared)?,
        };
        let input = x.clone();
        let x = self.residual(layer, "attention", x, y, &name(norms.after_attention))?;
        let normed = match (self.base.architecture().forward.parallel, shared_norm) {
            (true, Some(normed)) => normed,
            (true, None) => self.norm_if_any(&name(norms.before_feed_forward), input)?,
            (false, _) => self.norm_if_any(&name(norms.before_feed_forward), x.clone())?,
        };
        let y = self.feed_forward(layer, normed)?;
        self.residual(layer, "feed_forward", x, y, &name(norms.after_feed_forward))
    }

    /// `x` plus the learned vectors of its positions.
    fn with_positions(&mut self, x: Value) -> Result<Value> {
        let table = self.whole("position_embd", Form::Rows(self.b.products))?;
        let rows = self.b.node("/model/embed_positions/Gather", "Gather", &[&table, "position_ids"]);
        let rows = self.b.float_of("/model/embed_positions", rows);
        Ok(self.b.node("/model/embed_positions/Add", "Add", &[&x, &rows]))
    }

    /// `x` plus the output `y` of a part, `[.., d_model]` in the type of products, after the norm of this
    /// name if the architecture has it.
    fn residual(&mut self, layer: usize, part: &str, x: Value, y: Value, norm: &str) -> Result<Value> {
        let path = format!("/model/layers.{layer}/{part}_residual");
        let y = self.b.float_of(&path, y);
        let y = self.norm_if_any(norm, y)?;
        let y = self.scaled(&format!("{path}/Mul"), y, self.base.config().residual_scale);
        Ok(self.b.node(&format!("{path}/Add"), "Add", &[&x, &y]))
    }

    /// Logits of all positions, and whether the model has an output head of its own. Without one, the
    /// embedding is the head, and the file holds it once: Gemm reads it as `[out, in]`, like Gather.
    fn head(&mut self, x: Value, embedding: &Value) -> Result<bool> {
        let config = self.base.config();
        let x = self.b.for_products("/lm_head", x);
        // Without a configuration, the values decide.
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
        // The caches come after the logits.
        self.b.graph.outputs.rotate_right(1);
        Ok(own_head)
    }
}
