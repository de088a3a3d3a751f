//! A pass of tokens through the blocks: what all blocks need to know, and what one tells later ones.

use std::collections::BTreeMap;

use ndarray::Array2;

use super::attention::{AttentionConfig, SequenceRows};
use super::residual::add;
use super::rope::RotaryEmbedding;
use super::token_factors::TokenFactors;
use crate::kernels::{Precision, Real, SavedActivation};

/// A pass of the tokens of some sequences.
pub struct Pass<'a, T: Real> {
    pub sequences: &'a [SequenceRows],
    pub factors: &'a TokenFactors<T>,
    pub ropes: &'a [RotaryEmbedding],
    /// The attention of all blocks, without windows.
    pub config: AttentionConfig,
    pub shared: SharedKeysAndValues<T>,
}

impl<T: Real> Pass<'_, T> {
    /// The tokens of the pass.
    pub fn tokens(&self) -> usize {
        self.sequences.last().map_or(0, |rows| rows.queries.end)
    }
}

/// Keys and values that later blocks read, too, by the block that made them (cross-layer attention, arXiv 2405.12981).
#[derive(Debug, Default)]
pub struct SharedKeysAndValues<T: Real> {
    blocks: BTreeMap<usize, Shared<T>>,
}

/// The keys and values of one block, `[tokens, kv_heads * head_dim]` each, and the gradients of later blocks.
#[derive(Debug)]
struct Shared<T: Real> {
    saved: [SavedActivation<T>; 2],
    gradients: Option<[Array2<T>; 2]>,
}

impl<T: Real> SharedKeysAndValues<T> {
    /// Keeps those of a block, for products of this precision.
    pub fn keep(&mut self, block: usize, both: [&Array2<T>; 2], precision: Precision) {
        // A pass that recomputes the block makes the same again.
        self.blocks.entry(block).or_insert_with(|| Shared {
            saved: both.map(|x| SavedActivation::save_copy(x.view(), precision)),
            gradients: None,
        });
    }

    /// The keys and the values of a block below.
    pub fn of(&self, block: usize) -> &[SavedActivation<T>; 2] {
        &self.blocks.get(&block).expect("the pass went through the block").saved
    }

    /// Adds the gradients that a later block has for those of this block.
    pub fn add_gradients(&mut self, block: usize, gradients: [Array2<T>; 2]) {
        let shared = self.blocks.get_mut(&block).expect("the pass went through the block");
        match &mut shared.gradients {
            None => shared.gradients = Some(gradients),
            Some(sums) => {
                for (sum, x) in sums.iter_mut().zip(gradients) {
                    add(sum, x.view());
                    T::recycle(x);
                }
            }
        }
    }

    /// The gradients that later blocks have for those of this block.
    pub fn take_gradients(&mut self, block: usize) -> Option<[Array2<T>; 2]> {
        self.blocks.get_mut(&block)?.gradients.take()
    }
}
