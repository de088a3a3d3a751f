//! A decoder-only transformer and its forward pass.

use ndarray::{Array2, ArrayView2, Axis};

use super::attention::{AttentionConfig, SequenceRows};
use super::batch::Batch;
use super::block::Block;
use super::linear::Linear;
use super::lm_head::{Comparison, LmHead};
use super::norm::Norm;
use super::pass::{Pass, SharedKeysAndValues};
use super::per_layer_input::PerLayerEmbedding;
use super::rope::RotaryEmbedding;
use super::token_factors::TokenFactors;
use crate::arch::Architecture;
use crate::base::{Config, Weight};
use crate::kernels::{Cpu, Precision, Real, RowProducts};

/// A decoder over borrowed weights.
#[derive(Clone, Debug)]
pub struct Transformer<'a, T: Real> {
    pub(super) config: Config,
    pub(super) architecture: &'static Architecture,
    /// Token embeddings, `[vocab, d_model]`.
    pub(super) embedding: Weight<'a>,
    /// Learned position embeddings, `[context, d_model]`.
    pub(super) positions: Option<Weight<'a>>,
    /// What inputs of tokens for every block are made from.
    pub(super) per_layer_inputs: Option<PerLayerEmbedding<'a, T>>,
    pub(super) blocks: Vec<Block<'a, T>>,
    pub(super) output_norm: Norm<T>,
    pub(super) head: LmHead<'a>,
    /// The RoPE of all blocks, then that of blocks with a sliding window if it differs.
    pub(super) ropes: Vec<RotaryEmbedding>,
    /// The block and the name of each attached term's matrix, by slot.
    pub(super) terms: Vec<(usize, String)>,
    /// The limit on saved activations of a pass, in bytes.
    pub(super) activation_bytes: u64,
}

impl<'a, T: Real> Transformer<'a, T> {
    /// Computes the products with frozen matrices and those of attention in this precision, and saves
    /// activations in it. Norms, terms and sums stay in `T`.
    pub fn with_precision(mut self, precision: Precision) -> Self {
        self.each_linear_mut(&mut |linear| linear.set_precision(precision));
        self.head.precision = precision;
        self
    }

    /// Computes passes of a single token, as [`Sequence`](super::Sequence) makes them, by products with the stored rows,
    /// which are faster than decoding the matrices. It has an effect where products are in f32.
    #[must_use]
    pub fn with_row_products(mut self, products: RowProducts) -> Self {
        self.each_linear_mut(&mut |linear| linear.set_row_products(Some(products)));
        self.head.row_products = Some(products);
        self
    }

    fn each_linear_mut(&mut self, change: &mut dyn FnMut(&mut Linear<'a, T>)) {
        self.blocks.iter_mut().for_each(|block| block.each_linear_mut(change));
        self.per_layer_inputs.iter_mut().for_each(|inputs| change(&mut inputs.projection));
    }

    /// Keeps packed copies of frozen matrices from one pass to the next, as far as they fit into this many
    /// bytes. The other matrices, and all experts, are decoded and packed again in each pass.
    pub fn cache_packed_weights(&mut self, bytes: u64) {
        let lowest = self.lowest_adapted();
        // The gradient to the input of the lowest adapted block, which the matrices of its mixer read, is not needed.
        let inputs =
            self.blocks.get(lowest).map_or(0, |block| block.mixer().map_or(0, |mixer| mixer.inputs().len()));
        self.cache_packed(bytes, |layer, part| layer > lowest || layer == lowest && part >= inputs);
    }

    /// Divides `bytes` of memory for passes over at most `tokens` tokens, forward and backward: activations
    /// first, packed weights with what remains. Results do not depend on it. Buffers of earlier passes, which
    /// may be of other sizes, are freed.
    pub fn divide_memory(&mut self, bytes: u64, tokens: usize) {
        T::clear_pools();
        self.limit_activations(bytes);
        let activations = self.activation_bytes_per_token().saturating_mul(tokens as u64);
        self.cache_packed_weights(bytes.saturating_sub(activations));
    }

    /// [`Self::cache_packed_weights`] for a model that only computes forward.
    pub fn cache_packed_weights_forward(&mut self, bytes: u64) {
        self.cache_packed(bytes, |_, _| false);
    }

    /// Caches each matrix for the forward pass, and for the backward pass where `backward(layer, part)`.
    fn cache_packed(&mut self, mut remaining: u64, backward: impl Fn(usize, usize) -> bool) {
        for (layer, block) in self.blocks.iter_mut().enumerate() {
            for (part, linear) in block.adaptable_mut().into_iter().enumerate() {
                linear.cache_packed([true, backward(layer, part)], &mut remaining);
            }
        }
    }

    /// The lowest block that has a term: gradients go no further down. Without terms the last block.
    pub(super) fn lowest_adapted(&self) -> usize {
        let last = self.blocks.len().saturating_sub(1);
        self.terms.iter().map(|(layer, _)| *layer).min().unwrap_or(last)
    }

    /// The number of blocks below the lowest that has a term, and below those whose keys and values a block from there on
    /// reads. Their output for a sequence never changes.
    pub fn frozen_blocks(&self) -> usize {
        let mut first = self.lowest_adapted();
        // Blocks from one that is read on may themselves read others.
        loop {
            let read = self.blocks[first..].iter().filter_map(Block::reads_keys_of);
            match read.min().filter(|&block| block < first) {
                Some(block) => first = block,
                None => return first,
            }
        }
    }

    /// The model's dimensions.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What decides the numbers of a pass besides the weights and the terms: dimensions, position
    /// embeddings, precision, and the processor's instructions.
    pub fn computation(&self) -> String {
        let (name, precision, cpu) = (self.architecture.name, self.head.precision.name(), Cpu::current());
        format!("{name} {:?} {:?} {precision} {}", self.config, self.ropes, cpu.name())
    }

    /// How many numbers of matrices a token is multiplied with, on its way to its logits.
    pub fn parameters_per_token(&self) -> u64 {
        let blocks: u64 = self.blocks.iter().map(Block::parameters_per_token).sum();
        blocks + (self.config.vocab * self.config.d_model) as u64
    }

    /// The output of the [frozen blocks](Self::frozen_blocks) for a batch, `[tokens, d_model]`. A token's row
    /// depends on its own sequence alone.
    pub fn forward_frozen(&self, batch: &Batch) -> Array2<T> {
        let (sequences, factors) = self.sequence_layout(batch);
        let mut pass = self.pass(&sequences, &factors);
        let below = &self.blocks[..self.frozen_blocks()];
        let embedded = self.embed(batch.tokens(), &batch.positions());
        below.iter().fold(embedded, |x, block| block.forward(x, &mut pass, None))
    }

    /// The natural log-probability of each prediction of the batch, in order.
    pub fn log_probs(&self, batch: &Batch) -> Vec<f64> {
        self.log_probs_from(self.forward_frozen(batch), batch)
    }

    /// [`Self::log_probs`] from the result of [`Self::forward_frozen`] for the batch.
    pub fn log_probs_from(&self, x: Array2<T>, batch: &Batch) -> Vec<f64> {
        let tokens: Vec<u32> = batch.predictions().iter().map(|(_, token)| *token).collect();
        self.head.log_probs(self.hidden_at_predictions(x, batch).view(), &tokens)
    }

    /// All logits `[predictions, vocab]` of the batch.
    pub fn logits(&self, batch: &Batch) -> Array2<T> {
        self.head.logits(self.hidden_at_predictions(self.forward_frozen(batch), batch).view())
    }

    /// The normed hidden states at the batch's predictions, `[predictions, d_model]`.
    pub fn hidden_states(&self, batch: &Batch) -> Array2<T> {
        self.hidden_at_predictions(self.forward_frozen(batch), batch)
    }

    /// Compares this model's predictions of the batch with those of a reference, which has the same
    /// vocabulary.
    pub fn compare(&self, reference: &Transformer<'_, T>, batch: &Batch) -> Vec<Comparison> {
        let tokens: Vec<u32> = batch.predictions().iter().map(|(_, token)| *token).collect();
        let [hidden, hidden0] = [self.hidden_states(batch), reference.hidden_states(batch)];
        self.head.compare(hidden.view(), (&reference.head, hidden0.view()), &tokens)
    }

    /// The normed hidden states at the batch's predictions, `[predictions, d_model]`, from the output of the
    /// frozen blocks.
    fn hidden_at_predictions(&self, mut x: Array2<T>, batch: &Batch) -> Array2<T> {
        let (sequences, factors) = self.sequence_layout(batch);
        let mut pass = self.pass(&sequences, &factors);
        let rows = batch.predicting_rows();
        let last = self.blocks.len() - 1;
        for (layer, block) in self.blocks.iter().enumerate().skip(self.frozen_blocks()) {
            x = block.forward(x, &mut pass, (layer == last).then_some(&rows));
        }
        self.output_norm.forward(gather_predictions(x.view(), &rows, batch).view())
    }

    /// Token embeddings, scaled, plus learned position embeddings if the model has them: `[tokens, d_model]`.
    pub(super) fn embed(&self, tokens: &[u32], positions: &[usize]) -> Array2<T> {
        let mut row = vec![0.0; self.config.d_model];
        let mut x = T::pooled((tokens.len(), self.config.d_model));
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

    /// The rows of a batch's sequences, and what its tokens and their positions decide.
    pub(super) fn sequence_layout(&self, batch: &Batch) -> (Vec<SequenceRows>, TokenFactors<T>) {
        let sequences = batch.sequences().iter().zip(batch.shared_prefixes());
        let rows = sequences
            .map(|(own, prefix)| SequenceRows {
                queries: own.clone(),
                prefix: prefix.clone(),
                own: own.clone(),
            })
            .collect();
        (rows, self.token_factors(batch.tokens(), &batch.positions()))
    }

    /// What these tokens and their positions decide.
    pub(super) fn token_factors(&self, tokens: &[u32], positions: &[usize]) -> TokenFactors<T> {
        let inputs = |of: &PerLayerEmbedding<'_, T>| {
            let embedded = self.embed(tokens, positions);
            let inputs = of.inputs(tokens, embedded.view());
            T::recycle(embedded);
            inputs
        };
        let per_layer_inputs = self.per_layer_inputs.as_ref().map(inputs);
        TokenFactors::new(&self.ropes, self.config.temperature, positions, per_layer_inputs)
    }

    /// A pass of these sequences.
    pub(super) fn pass<'p>(
        &'p self,
        sequences: &'p [SequenceRows],
        factors: &'p TokenFactors<T>,
    ) -> Pass<'p, T> {
        let config = self.attention_config();
        Pass { sequences, factors, ropes: &self.ropes, config, shared: SharedKeysAndValues::default() }
    }

    /// The attention of all blocks, without windows.
    pub(super) fn attention_config(&self) -> AttentionConfig {
        AttentionConfig {
            query_heads: self.config.heads,
            kv_heads: self.config.kv_heads,
            head_dim: self.config.head_dim,
            scale: self.config.attention_scale,
            soft_cap: self.config.attention_cap,
            window: None,
            precision: self.head.precision,
        }
    }
}

/// The rows of `x` that the batch's predictions are made from, one for each prediction; `rows` says which of
/// the batch's rows `x` has.
pub(super) fn gather_predictions<T: Real>(x: ArrayView2<T>, rows: &[usize], batch: &Batch) -> Array2<T> {
    let indices: Vec<usize> = batch.predictions().iter().map(|(row, _)| index_of(rows, *row)).collect();
    x.select(Axis(0), &indices)
}

/// Where `row` is in the sorted `rows`.
pub(super) fn index_of(rows: &[usize], row: usize) -> usize {
    rows.binary_search(&row).expect("a row that something is predicted from")
}
