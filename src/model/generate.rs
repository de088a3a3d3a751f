//! Autoregressive decoding with a KV cache.

use ndarray::{Array1, Array2, ArrayView1, Axis, s};

use super::attention::{self, SequenceRows};
use super::transformer::Transformer;
use crate::kernels::Real;
use crate::{Error, Result};

/// A sequence that a model extends token by token.
#[derive(Debug)]
pub struct Generator<'m, 'a, T: Real> {
    model: &'m Transformer<'a, T>,
    /// The keys and values of each block, `[length, kv_heads * head_dim]`.
    kv_cache: Vec<(Array2<T>, Array2<T>)>,
    length: usize,
}

impl<'m, 'a, T: Real> Generator<'m, 'a, T> {
    /// An empty sequence.
    pub fn new(model: &'m Transformer<'a, T>) -> Self {
        let width = model.config.kv_heads * model.config.head_dim;
        let empty = || (Array2::zeros((0, width)), Array2::zeros((0, width)));
        Self { model, kv_cache: model.blocks.iter().map(|_| empty()).collect(), length: 0 }
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
        let factors = model.position_factors(&positions);
        let new = tokens.len();
        let sequence = [SequenceRows { queries: 0..new, prefix: 0..self.length, own: self.length..total }];
        let mut x = model.embed(tokens, &positions);
        for (block, (keys, values)) in model.blocks.iter().zip(&mut self.kv_cache) {
            let p = block.project(x.view(), &model.ropes, &factors);
            keys.append(Axis(0), p.k.view()).expect("the same width");
            values.append(Axis(0), p.v.view()).expect("the same width");
            let (q, k, v) = (p.q.view(), keys.view(), values.view());
            let config = block.attention_config(model.attention_config());
            let attended = match new {
                1 => attention::decode(q, k, v, std::slice::from_ref(&(0..total)), config),
                _ => attention::forward(q, k, v, &sequence, config).0,
            };
            x = block.finish(x, attended.view());
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
