//! The frozen transformer with CURLoRA terms: each layer's forward and backward pass stand side by side in one file.
//!
//! Activations are `[tokens, channels]`; the sequences of a batch lie one behind another without padding. Everything is
//! generic over [`Real`], so that gradients can be checked by finite differences in f64.

mod attention;
mod batch;
mod block;
mod feed_forward;
mod generate;
mod head;
mod linear;
mod norm;
mod rotary;
mod sampler;
#[cfg(test)]
mod tests;

use curmerge_formats::adapter::AdapterTarget;
use ndarray::{Array2, ArrayView2, Axis};

use crate::base::{Base, Config, Weight};
use crate::kernels::{Precision, Real, Stored};
use crate::{Error, Result};
use attention::{Heads, Span};
pub use batch::{Batch, rows_read};
use block::{Block, Kept, Places};
pub use generate::Generator;
use head::Head;
pub use linear::{CurTerm, Linear};
use norm::RmsNorm;
use rotary::Rotary;
pub use sampler::Sampler;

/// A llama-architecture model over borrowed weights.
#[derive(Clone, Debug)]
pub struct Transformer<'a, T: Real> {
    config: Config,
    embedding: Weight<'a>,
    blocks: Vec<Block<'a, T>>,
    output_norm: RmsNorm<T>,
    head: Head<'a>,
    rotary: Rotary,
    terms: Vec<(usize, String)>,
    activation_bytes: u64,
}

impl<'a, T: Real> Transformer<'a, T> {
    /// The frozen model of an open base.
    pub fn new(base: &'a Base) -> Result<Self> {
        let config = base.config().clone();
        let norm = |name: &str| -> Result<RmsNorm<T>> {
            let weight = base.weight(name)?.vector().into_iter().map(T::from_f32).collect();
            Ok(RmsNorm { weight, eps: config.norm_eps })
        };
        let blocks = (0..config.layers)
            .map(|layer| {
                let name = |part: &str| format!("blk.{layer}.{part}");
                let linear = |part: &str| base.weight(&name(part)).map(Linear::new);
                Ok(Block {
                    attn_norm: norm(&name("attn_norm"))?,
                    q: linear("attn_q")?,
                    k: linear("attn_k")?,
                    v: linear("attn_v")?,
                    o: linear("attn_output")?,
                    ffn_norm: norm(&name("ffn_norm"))?,
                    gate: linear("ffn_gate")?,
                    up: linear("ffn_up")?,
                    down: linear("ffn_down")?,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            embedding: base.weight("token_embd")?,
            blocks,
            output_norm: norm("output_norm")?,
            head: Head::new(base.output_head()?),
            rotary: Rotary::new(&config),
            config,
            terms: Vec::new(),
            activation_bytes: u64::MAX,
        })
    }

    /// Compute the products with frozen matrices and those of attention in this precision, and keep activations in it.
    /// Norms, terms and sums stay as they are.
    pub fn with_precision(mut self, precision: Precision) -> Self {
        for block in &mut self.blocks {
            block.linears_mut().into_iter().for_each(|linear| linear.set_precision(precision));
        }
        self.head.precision = precision;
        self
    }

    /// Keep at most so many bytes of activations for a backward pass, but always the input of each block that it goes
    /// through; what is not kept is computed again, to the same numbers.
    pub fn limit_activations(&mut self, bytes: u64) {
        self.activation_bytes = bytes;
    }

    /// Bytes that a token's activations take when all are kept for the backward pass.
    pub fn activation_bytes_a_token(&self) -> u64 {
        self.blocks[self.lowest()..].iter().map(|block| block.kept_bytes(self.heads())).sum()
    }

    /// Keep frozen matrices ready for products from one pass to the next, as far as they fit into so many bytes; the
    /// others are decoded anew for each pass.
    pub fn keep_weights(&mut self, bytes: u64) {
        let (mut left, lowest) = (bytes, self.lowest());
        for (layer, block) in self.blocks.iter_mut().enumerate() {
            for (part, linear) in block.linears_mut().into_iter().enumerate() {
                // The gradient to the input of the lowest block, which q, k and v read, is not needed.
                let back = layer > lowest || layer == lowest && part > 2;
                linear.keep_panels([true, back], &mut left);
            }
        }
    }

    /// The lowest block that has a term: gradients go no further down. Without terms the last one.
    fn lowest(&self) -> usize {
        let last = self.blocks.len().saturating_sub(1);
        self.terms.iter().map(|(layer, _)| *layer).min().unwrap_or(last)
    }

    /// Blocks below the lowest that has a term: what they give for a sequence never changes.
    pub fn frozen_blocks(&self) -> usize {
        self.lowest()
    }

    /// What the [frozen blocks](Self::frozen_blocks) make of a batch, `[tokens, d_model]`: each token's row depends on
    /// its sequence alone.
    pub fn frozen_part(&self, batch: &Batch) -> Array2<T> {
        let (spans, angles) = self.layout(batch);
        let places = self.places(&spans, &angles);
        let below = &self.blocks[..self.lowest()];
        below.iter().fold(self.embed(batch.tokens()), |x, block| block.forward(x, &places, None))
    }

    /// The first block whose activations are all kept; of those below it, which come last in the backward pass, only
    /// the inputs.
    fn first_kept(&self, tokens: usize) -> usize {
        let tokens = tokens as u64;
        let lowest = self.lowest();
        let input = (self.config.d_model * size_of::<T>()) as u64 * tokens;
        let mut left = self.activation_bytes.saturating_sub(input * (self.blocks.len() - lowest) as u64);
        let mut first = self.blocks.len();
        while first > lowest {
            let all = self.blocks[first - 1].kept_bytes(self.heads()) * tokens;
            let Some(rest) = left.checked_sub(all.saturating_sub(input)) else { break };
            (left, first) = (rest, first - 1);
        }
        first
    }

    /// Put a CURLoRA term beside each target's matrix: C is gathered from the base, U is the target's. Gradients come in
    /// the order of `targets`. Fails for a name that is no matrix of the blocks, or indices outside it.
    pub fn attach(&mut self, targets: &[AdapterTarget], scale: f32) -> Result<()> {
        for target in targets {
            let slot = self.terms.len();
            let refuse = |problem: &str| {
                let mend = "the adapter belongs to another model; use the base that it was trained on";
                Error::request(format!("target '{}' {problem}", target.name.escape_debug()), mend)
            };
            let (layer, linear) = target
                .name
                .strip_prefix("blk.")
                .and_then(|rest| rest.split_once('.'))
                .and_then(|(layer, part)| {
                    let layer: usize = layer.parse().ok()?;
                    Some((layer, self.blocks.get_mut(layer)?.linear_mut(part)?))
                })
                .ok_or_else(|| refuse("is not a matrix of this model"))?;
            let weight = linear.weight();
            let within = |index: &[u32], size: usize| index.iter().all(|&i| (i as usize) < size);
            if !within(&target.cols, weight.cols()) || !within(&target.rows, weight.rows()) {
                return Err(refuse("has indices outside the matrix of this model"));
            }
            let (m, c, r) = (weight.rows(), target.cols.len(), target.rows.len());
            let matrix = |rows, cols, values: Vec<f32>| {
                let values = values.into_iter().map(T::from_f32).collect();
                Array2::from_shape_vec((rows, cols), values).map_err(|_| refuse("has a U of another shape"))
            };
            linear.term = Some(CurTerm {
                slot,
                rows: target.rows.clone(),
                c: matrix(m, c, weight.gather_columns(&target.cols))?,
                u: matrix(c, r, target.u.clone())?,
                scale: T::from_f32(scale),
            });
            self.terms.push((layer, target.name.clone()));
        }
        Ok(())
    }

    /// The model's dimensions.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The U `[c, r]` of each attached term, in the order of [`Self::attach`].
    pub fn trained(&mut self) -> Vec<&mut Array2<T>> {
        let mut found: Vec<(usize, &mut Array2<T>)> = self
            .blocks
            .iter_mut()
            .flat_map(Block::linears_mut)
            .filter_map(|l| l.term.as_mut())
            .map(|t| (t.slot, &mut t.u))
            .collect();
        found.sort_by_key(|(slot, _)| *slot);
        found.into_iter().map(|(_, u)| u).collect()
    }

    /// The natural log-probability of each prediction of the batch, in order.
    pub fn log_probs(&self, batch: &Batch) -> Vec<f64> {
        self.log_probs_from(self.frozen_part(batch), batch)
    }

    /// [`Self::log_probs`] from what [`Self::frozen_part`] gave for the batch.
    pub fn log_probs_from(&self, x: Array2<T>, batch: &Batch) -> Vec<f64> {
        let tokens: Vec<u32> = batch.predictions().iter().map(|(_, token)| *token).collect();
        self.head.log_probs(self.predicting(x, batch).view(), &tokens)
    }

    /// All logits `[predictions, vocab]` of the batch.
    pub fn logits(&self, batch: &Batch) -> Array2<T> {
        self.head.logits(self.predicting(self.frozen_part(batch), batch).view())
    }

    /// The normed hidden states at the batch's predictions, `[predictions, d_model]`, from its frozen part.
    fn predicting(&self, mut x: Array2<T>, batch: &Batch) -> Array2<T> {
        let (spans, angles) = self.layout(batch);
        let places = self.places(&spans, &angles);
        let rows = batch.predicting_rows();
        let last = self.blocks.len() - 1;
        for (layer, block) in self.blocks.iter().enumerate().skip(self.lowest()) {
            x = block.forward(x, &places, (layer == last).then_some(&rows));
        }
        self.output_norm.forward(at_predictions(x.view(), &rows, batch).view())
    }

    /// The log-probabilities of the batch's predictions, and the gradient of `-weight * sum(log_probs)` to each attached
    /// U, `[c, r]` each. The backward pass ends at the lowest block that has a term.
    pub fn gradients(&self, batch: &Batch, weight: f64) -> (Vec<f64>, Vec<Array2<T>>) {
        self.gradients_from(self.frozen_part(batch), batch, weight)
    }

    /// [`Self::gradients`] from what [`Self::frozen_part`] gave for the batch.
    pub fn gradients_from(&self, mut x: Array2<T>, batch: &Batch, weight: f64) -> (Vec<f64>, Vec<Array2<T>>) {
        let (spans, angles) = self.layout(batch);
        let places = self.places(&spans, &angles);
        let (lowest, first_kept) = (self.lowest(), self.first_kept(batch.tokens().len()));
        let mut kept = Vec::with_capacity(self.blocks.len() - lowest);
        let (rows, last) = (batch.predicting_rows(), self.blocks.len() - 1);
        // Of the last block's output, only these rows are looked at.
        let wanted = |layer: usize| (layer == last).then_some(&rows[..]);
        for (layer, block) in self.blocks.iter().enumerate().skip(lowest) {
            if layer < first_kept {
                kept.push(Kept::Input(x.clone()));
                x = block.forward(x, &places, wanted(layer));
            } else {
                let (y, saved) = block.forward_saving(x, &places, wanted(layer));
                x = y;
                kept.push(Kept::Whole(Box::new(saved)));
            }
        }
        let predicting = at_predictions(x.view(), &rows, batch);
        let normed = self.output_norm.forward(predicting.view());
        let tokens: Vec<u32> = batch.predictions().iter().map(|(_, token)| *token).collect();
        let (log_probs, dnormed) = self.head.loss_backward(normed.view(), &tokens, weight);
        let mut dpredicting = Array2::zeros(predicting.dim());
        self.output_norm.backward(&Stored::Whole(predicting), dnormed.view(), &mut dpredicting);
        let mut dx = Array2::zeros(x.dim());
        for ((row, _), d) in batch.predictions().iter().zip(dpredicting.rows()) {
            let mut row = dx.row_mut(place_of(&rows, *row));
            row += &d;
        }
        let mut gradients = self.zero_gradients();
        for (layer, block) in self.blocks.iter().enumerate().skip(lowest).rev() {
            let kept = kept.pop().expect("one a block from the lowest");
            let saved = block.whole(kept, &places, wanted(layer));
            match block.backward(dx, saved, &places, &mut gradients, layer > lowest) {
                Some(below) => dx = below,
                None => break,
            }
        }
        (log_probs, gradients)
    }

    fn zero_gradients(&self) -> Vec<Array2<T>> {
        let mut shapes: Vec<_> = self
            .blocks
            .iter()
            .flat_map(|b| [&b.q, &b.k, &b.v, &b.o, &b.gate, &b.up, &b.down])
            .filter_map(|l| l.term.as_ref())
            .map(|t| (t.slot, t.u.dim()))
            .collect();
        shapes.sort_unstable();
        shapes.into_iter().map(|(_, shape)| Array2::zeros(shape)).collect()
    }

    /// Rows of the embedding: `[tokens, d_model]`.
    fn embed(&self, tokens: &[u32]) -> Array2<T> {
        let mut row = vec![0.0; self.config.d_model];
        let mut x = Array2::zeros((tokens.len(), self.config.d_model));
        for (mut x, &token) in x.rows_mut().into_iter().zip(tokens) {
            self.embedding.decode_row(token as usize, &mut row);
            x.iter_mut().zip(&row).for_each(|(x, &v)| *x = T::from_f32(v));
        }
        x
    }

    fn layout(&self, batch: &Batch) -> (Vec<Span>, rotary::Angles<T>) {
        let sequences = batch.sequences().iter().zip(batch.contexts());
        let spans = sequences
            .clone()
            .map(|(own, context)| Span { queries: own.clone(), context: context.clone(), own: own.clone() })
            .collect();
        let positions: Vec<usize> =
            sequences.flat_map(|(own, context)| context.len()..context.len() + own.len()).collect();
        (spans, self.rotary.angles(&positions))
    }

    fn places<'p>(&'p self, spans: &'p [Span], angles: &'p rotary::Angles<T>) -> Places<'p, T> {
        Places { spans, angles, rotary: &self.rotary, heads: self.heads() }
    }

    fn heads(&self) -> Heads {
        Heads {
            query: self.config.heads,
            key_value: self.config.kv_heads,
            dim: self.config.head_dim,
            precision: self.head.precision,
        }
    }
}

/// The rows of `x`, which has those that `rows` lists, that each prediction of the batch is made from.
fn at_predictions<T: Real>(x: ArrayView2<T>, rows: &[usize], batch: &Batch) -> Array2<T> {
    let places: Vec<usize> = batch.predictions().iter().map(|(row, _)| place_of(rows, *row)).collect();
    x.select(Axis(0), &places)
}

fn place_of(rows: &[usize], row: usize) -> usize {
    rows.binary_search(&row).expect("a row that something is predicted from")
}
