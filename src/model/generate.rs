//! Autoregressive decoding with a cache: keys and values, or what linear attention or a convolution keeps.

use ndarray::{Array1, ArrayView1, s};

use super::attention::SequenceRows;
use super::mixer::MixerCache;
use super::transformer::Transformer;
use crate::kernels::Real;
use crate::{Error, Result};

/// What a model has computed of a text, for the tokens that follow. It belongs to one model with one set of terms.
#[derive(Debug)]
pub struct Sequence<T: Real> {
    /// What each block keeps of the tokens so far.
    caches: Vec<MixerCache<T>>,
    tokens: Vec<u32>,
}

impl<T: Real> Sequence<T> {
    /// An empty sequence.
    pub fn new(model: &Transformer<'_, T>) -> Self {
        Self { caches: model.blocks.iter().map(|block| block.cache(1, 0)).collect(), tokens: Vec::new() }
    }

    /// The tokens so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Goes back to what it has in common with `tokens`, so that at least the last of them must still be read; returns the
    /// length. What is no attention cannot go back: with such a block, an end that differs means starting anew.
    pub fn rewind(&mut self, model: &Transformer<'_, T>, tokens: &[u32]) -> usize {
        let most = tokens.len().saturating_sub(1);
        let common = self.tokens.iter().zip(&tokens[..most]).take_while(|(own, new)| own == new).count();
        if common < self.tokens.len() {
            match self.caches.iter().all(MixerCache::can_be_cut) {
                // The rows after the length are written anew.
                true => self.tokens.truncate(common),
                false => *self = Self::new(model),
            }
        }
        self.tokens.len()
    }

    /// Appends these tokens (at least one); returns the logits `[vocab]` of the next token.
    ///
    /// # Errors
    /// [`Error::NotFinite`].
    pub fn read(&mut self, model: &Transformer<'_, T>, tokens: &[u32]) -> Result<Array1<T>> {
        let (length, new) = (self.tokens.len(), tokens.len());
        let total = length + new;
        let positions: Vec<usize> = (length..total).collect();
        let factors = model.token_factors(tokens, &positions);
        let sequence = [SequenceRows { queries: 0..new, prefix: 0..length, own: length..total }];
        let pass = model.pass(&sequence, &factors);
        let mut x = model.embed(tokens, &positions);
        for (layer, block) in model.blocks.iter().enumerate() {
            let cache = &mut self.caches[block.reads_keys_of().unwrap_or(layer)];
            cache.grow(total);
            x = block.extend(x, cache, &[0], &pass);
        }
        self.tokens.extend(tokens);
        let last = model.output_norm.forward(x.slice(s![-1.., ..]));
        let logits = model.head.logits(last.view()).row(0).to_owned();
        check(logits.view())?;
        Ok(logits)
    }
}

/// A sequence that a model extends token by token.
#[derive(Debug)]
pub struct Generator<'m, 'a, T: Real> {
    model: &'m Transformer<'a, T>,
    sequence: Sequence<T>,
}

impl<'m, 'a, T: Real> Generator<'m, 'a, T> {
    /// An empty sequence.
    pub fn new(model: &'m Transformer<'a, T>) -> Self {
        Self { model, sequence: Sequence::new(model) }
    }

    /// The number of tokens so far.
    pub fn len(&self) -> usize {
        self.sequence.tokens.len()
    }

    /// Whether nothing has been read yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends these tokens (at least one); returns the logits `[vocab]` of the next token.
    ///
    /// # Errors
    /// [`Error::NotFinite`].
    pub fn read(&mut self, tokens: &[u32]) -> Result<Array1<T>> {
        self.sequence.read(self.model, tokens)
    }
}

/// Refuses logits that give no probabilities.
pub(super) fn check<T: Real>(logits: ArrayView1<'_, T>) -> Result<()> {
    match logits.iter().all(|logit| logit.is_finite()) {
        true => Ok(()),
        false => Err(Error::NotFinite { quantity: "a logit" }),
    }
}
