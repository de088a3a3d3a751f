//! The backward pass of the transformer, with activation checkpointing (Chen et al. 2016, arXiv 1604.06174):
//! blocks whose activations do not fit into the memory limit save their input alone, and recompute the rest
//! in the backward pass.

use ndarray::{Array2, ArrayView2};

use super::batch::Batch;
use super::block::{Block, Checkpoint};
use super::lm_head::LmHead;
use super::terms::TermSink;
use super::transformer::{Transformer, gather_predictions, index_of};
use crate::kernels::{Real, SavedActivation};

impl<T: Real> Transformer<'_, T> {
    /// Saves at most this many bytes of activations for a backward pass, but always the input of each block
    /// that the pass goes through. What is not saved is recomputed, to the same numbers.
    pub fn limit_activations(&mut self, bytes: u64) {
        self.activation_bytes = bytes;
    }

    /// The bytes of a token's activations when all are saved for the backward pass.
    pub fn activation_bytes_per_token(&self) -> u64 {
        (self.lowest_adapted()..self.blocks.len()).map(|layer| self.activation_bytes_of(layer)).sum::<u64>()
            + self.shared_bytes_per_token()
    }

    /// The bytes of a token's activations of this block when all are saved.
    pub(super) fn activation_bytes_of(&self, layer: usize) -> u64 {
        self.blocks[layer].activation_bytes(self.attention_config(), self.config.d_model)
    }

    /// The bytes of a token that a pass keeps beside the activations of blocks: inputs for every block, and keys and values
    /// that later blocks read, with their gradients.
    fn shared_bytes_per_token(&self) -> u64 {
        let inputs = self.per_layer_inputs.as_ref().map_or(0, |inputs| inputs.projection.weight().rows());
        let mut read: Vec<usize> = self.blocks.iter().filter_map(Block::reads_keys_of).collect();
        read.sort_unstable();
        read.dedup();
        let shared: usize = read.iter().map(|&block| 4 * self.blocks[block].own_key_width()).sum();
        ((inputs + shared) * size_of::<T>()) as u64
    }

    /// The first block whose activations are all saved. Those below it, which the backward pass reaches last,
    /// save their inputs alone.
    pub(super) fn first_saved(&self, tokens: usize) -> usize {
        let tokens = tokens as u64;
        let lowest = self.lowest_adapted();
        let input = (self.config.d_model * size_of::<T>()) as u64 * tokens;
        let kept = input * (self.blocks.len() - lowest) as u64 + self.shared_bytes_per_token() * tokens;
        let mut remaining = self.activation_bytes.saturating_sub(kept);
        let mut first = self.blocks.len();
        while first > lowest {
            let all = self.activation_bytes_of(first - 1) * tokens;
            let Some(rest) = remaining.checked_sub(all.saturating_sub(input)) else { break };
            (remaining, first) = (rest, first - 1);
        }
        first
    }

    /// The log-probabilities of the batch's predictions, and the gradient of `-weight * sum(log_probs)` with
    /// respect to each trained matrix, of its shape. The backward pass ends at the lowest block that has a
    /// term.
    pub fn gradients(&self, batch: &Batch, weight: f64) -> (Vec<f64>, Vec<Array2<T>>) {
        self.gradients_from(self.forward_frozen(batch), batch, weight)
    }

    /// [`Self::gradients`] from the result of [`Self::forward_frozen`] for the batch.
    pub fn gradients_from(&self, x: Array2<T>, batch: &Batch, weight: f64) -> (Vec<f64>, Vec<Array2<T>>) {
        let tokens: Vec<u32> = batch.predictions().iter().map(|(_, token)| *token).collect();
        let mut gradients = self.zero_gradients();
        let log_probs = self.backward_from(x, batch, &mut gradients, |head, hidden| {
            head.loss_backward(hidden, &tokens, weight)
        });
        (log_probs, gradients)
    }

    /// A forward and a backward pass of the batch from the result of [`Self::forward_frozen`]. `loss`
    /// gets the head and the normed hidden states at the batch's predictions, `[predictions,
    /// d_model]`, and returns what the caller wants to know and the gradient of the loss with respect
    /// to the hidden states. `sink` gets the gradients of the terms.
    pub(crate) fn backward_from<S>(
        &self,
        mut x: Array2<T>,
        batch: &Batch,
        sink: &mut dyn TermSink<T>,
        loss: impl FnOnce(&LmHead<'_>, ArrayView2<T>) -> (S, Array2<T>),
    ) -> S {
        let (sequences, factors) = self.sequence_layout(batch);
        let mut pass = self.pass(&sequences, &factors);
        let (lowest, first_saved) = (self.lowest_adapted(), self.first_saved(batch.tokens().len()));
        let mut checkpoints = Vec::with_capacity(self.blocks.len() - lowest);
        let (rows, last) = (batch.predicting_rows(), self.blocks.len() - 1);
        // Of the last block's output, only the rows that something is predicted from are computed.
        let output_rows = |layer: usize| (layer == last).then_some(&rows[..]);
        for (layer, block) in self.blocks.iter().enumerate().skip(self.frozen_blocks()) {
            if layer < first_saved {
                if layer >= lowest {
                    checkpoints.push(Checkpoint::Input(x.clone()));
                }
                x = block.forward(x, &mut pass, output_rows(layer));
            } else {
                let (y, saved) = block.forward_saving(x, &mut pass, output_rows(layer));
                x = y;
                checkpoints.push(Checkpoint::Activations(Box::new(saved)));
            }
        }
        let predicting = gather_predictions(x.view(), &rows, batch);
        let normed = self.output_norm.forward(predicting.view());
        let (result, dnormed) = loss(&self.head, normed.view());
        let mut dpredicting = Array2::zeros(predicting.dim());
        self.output_norm.backward(&SavedActivation::Full(predicting), dnormed.view(), &mut dpredicting);
        let mut dx = Array2::zeros(x.dim());
        for ((row, _), d) in batch.predictions().iter().zip(dpredicting.rows()) {
            let mut row = dx.row_mut(index_of(&rows, *row));
            row += &d;
        }
        for (layer, block) in self.blocks.iter().enumerate().skip(lowest).rev() {
            let checkpoint = checkpoints.pop().expect("one for each block from the lowest adapted one");
            let saved = block.restore(checkpoint, &mut pass, output_rows(layer));
            match block.backward(dx, saved, &mut pass, sink, layer > lowest) {
                Some(below) => dx = below,
                None => break,
            }
        }
        result
    }

    fn zero_gradients(&self) -> Vec<Array2<T>> {
        let mut shapes: Vec<_> = self
            .blocks
            .iter()
            .flat_map(Block::terms)
            .flat_map(|term| (term.first_slot()..).zip(term.trained()))
            .map(|(slot, matrix)| (slot, matrix.dim()))
            .collect();
        shapes.sort_unstable();
        shapes.into_iter().map(|(_, shape)| Array2::zeros(shape)).collect()
    }
}
