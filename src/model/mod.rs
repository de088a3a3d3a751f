//! The frozen transformer with CURLoRA terms: each layer's forward and backward pass stand side by side in one file.
//!
//! Activations are `[tokens, channels]`; the sequences of a batch lie one behind another without padding. Everything is
//! generic over [`Real`], so that gradients can be checked by finite differences in f64.

mod attention;
mod batch;
mod block;
mod build;
mod dense;
mod experts;
mod feed_forward;
mod generate;
mod head;
mod linear;
mod norm;
mod panels;
mod residual;
mod rotary;
mod sampler;
#[cfg(test)]
mod tests;

use curmerge_formats::adapter::AdapterTarget;
use ndarray::{Array2, ArrayView2, Axis};

use crate::arch::Architecture;
use crate::base::{Config, Weight, layer_part};
use crate::kernels::{Precision, Real, Stored};
use crate::{Error, Result};
use attention::{Heads, Span};
pub use batch::{Batch, rows_read};
use block::{Block, Kept, Places};
pub use generate::Generator;
use head::Head;
pub use linear::{CurTerm, Linear};
use norm::Norm;
use rotary::{Angles, Rotary};
pub use sampler::Sampler;

/// A decoder over borrowed weights.
#[derive(Clone, Debug)]
pub struct Transformer<'a, T: Real> {
    config: Config,
    architecture: &'static Architecture,
    embedding: Weight<'a>,
    /// Learned vectors of positions, `[context, d_model]`.
    positions: Option<Weight<'a>>,
    blocks: Vec<Block<'a, T>>,
    output_norm: Norm<T>,
    head: Head<'a>,
    /// That of all blocks, and another of those with a window where the model has such.
    rotaries: Vec<Rotary>,
    terms: Vec<(usize, String)>,
    activation_bytes: u64,
}

impl<'a, T: Real> Transformer<'a, T> {
    /// Compute the products with frozen matrices and those of attention in this precision, and keep activations in it.
    /// Norms, terms and sums stay as they are.
    pub fn with_precision(mut self, precision: Precision) -> Self {
        self.blocks.iter_mut().for_each(|block| block.set_precision(precision));
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
    /// others, and experts always, are decoded anew for each pass.
    pub fn keep_weights(&mut self, bytes: u64) {
        let (mut left, lowest) = (bytes, self.lowest());
        for (layer, block) in self.blocks.iter_mut().enumerate() {
            for (part, linear) in block.adaptable_mut().into_iter().enumerate() {
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
        below
            .iter()
            .fold(self.embed(batch.tokens(), &batch.positions()), |x, block| block.forward(x, &places, None))
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
                let help = "the adapter belongs to another model; use the base that it was trained on";
                Error::request(format!("target '{}' {problem}", target.name.escape_debug()), help)
            };
            let roles = self.architecture.targets;
            let (layer, linear) = layer_part(&target.name)
                .and_then(|(layer, part)| {
                    let (role, _) = roles.iter().find(|(_, name)| *name == part)?;
                    Some((layer, self.blocks.get_mut(layer)?.linear_mut(role)?))
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
            .flat_map(Block::adaptable_mut)
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
        let mut shapes: Vec<_> = self.blocks.iter().flat_map(Block::terms).collect();
        shapes.sort_unstable();
        shapes.into_iter().map(|(_, shape)| Array2::zeros(shape)).collect()
    }

    /// Rows of the embedding, scaled, and where positions have learned vectors those too: `[tokens, d_model]`.
    fn embed(&self, tokens: &[u32], positions: &[usize]) -> Array2<T> {
        let mut row = vec![0.0; self.config.d_model];
        let mut x = T::space((tokens.len(), self.config.d_model));
        let scale = T::from_f64(self.config.embedding_scale);
        for ((mut x, &token), &position) in x.rows_mut().into_iter().zip(tokens).zip(positions) {
            self.embedding.decode_row(token as usize, &mut row);
            x.iter_mut().zip(&row).for_each(|(x, &v)| *x = scale * T::from_f32(v));
            if let Some(learned) = &self.positions {
                learned.decode_row(position, &mut row);
                x.iter_mut().zip(&row).for_each(|(x, &v)| *x += T::from_f32(v));
            }
        }
        x
    }

    /// The sequences of a batch, and where their tokens stand.
    fn layout(&self, batch: &Batch) -> (Vec<Span>, Vec<Angles<T>>) {
        let sequences = batch.sequences().iter().zip(batch.contexts());
        let spans = sequences
            .map(|(own, context)| Span { queries: own.clone(), context: context.clone(), own: own.clone() })
            .collect();
        (spans, self.angles(&batch.positions()))
    }

    fn angles(&self, positions: &[usize]) -> Vec<Angles<T>> {
        self.rotaries.iter().map(|rotary| rotary.angles(positions)).collect()
    }

    fn places<'p>(&'p self, spans: &'p [Span], angles: &'p [Angles<T>]) -> Places<'p, T> {
        Places { spans, angles, rotaries: &self.rotaries, heads: self.heads() }
    }

    /// How all blocks attend, but for windows.
    fn heads(&self) -> Heads {
        Heads {
            query: self.config.heads,
            key_value: self.config.kv_heads,
            dim: self.config.head_dim,
            scale: self.config.attention_scale,
            cap: self.config.attention_cap,
            window: None,
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
