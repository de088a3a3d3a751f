//! Autoregressive decoding with a cache: keys and values, or what linear attention or a convolution keeps.

use ndarray::{Array1, ArrayView1, s};

use super::attention::SequenceRows;
use super::mixer::MixerCache;
use super::transformer::Transformer;
use crate::kernels::Real;
use crate::{Error, Result};

/// A sequence that a model extends token by token.
#[derive(Debug)]
pub struct Generator<'m, 'a, T: Real> {
    model: &'m Transformer<'a, T>,
    /// What each block keeps of the tokens so far.
    caches: Vec<MixerCache<T>>,
    length: usize,
}

impl<'m, 'a, T: Real> Generator<'m, 'a, T> {
    /// An empty sequence.
    pub fn new(model: &'m Transformer<'a, T>) -> Self {
        Self { model, caches: model.blocks.iter().map(|block| block.cache(1, 0)).collect(), length: 0 }
    }

    /// The number of tokens so far.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether nothing has been read yet.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Appends these tokens (at least one); returns the logits `[vocab]` of the next token.
    ///
    /// # Errors
    /// [`Error::NotFinite`].
    pub fn read(&mut self, tokens: &[u32]) -> Result<Array1<T>> {
        let model = self.model;
        let total = self.length + tokens.len();
        let positions: Vec<usize> = (self.length..total).collect();
        let factors = model.token_factors(tokens, &positions);
        let new = tokens.len();
        let sequence = [SequenceRows { queries: 0..new, prefix: 0..self.length, own: self.length..total }];
        let pass = model.pass(&sequence, &factors);
        let mut x = model.embed(tokens, &positions);
        for (layer, block) in model.blocks.iter().enumerate() {
            let cache = &mut self.caches[block.reads_keys_of().unwrap_or(layer)];
            cache.grow(total);
            x = block.extend(x, cache, &[0], &pass);
        }
        self.length = total;
        let last = model.output_norm.forward(x.slice(s![-1.., ..]));
        let logits = model.head.logits(last.view()).row(0).to_owned();
        check(logits.view())?;
        Ok(logits)
    }
}

/// Refuses logits that give no probabilities.
pub(super) fn check<T: Real>(logits: ArrayView1<'_, T>) -> Result<()> {
    match logits.iter().all(|logit| logit.is_finite()) {
        true => Ok(()),
        false => Err(Error::NotFinite { quantity: "a logit" }),
    }
}
