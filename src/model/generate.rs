//! One token after another, with the keys and values of those before kept.

use ndarray::{Array1, Array2, Axis, s};

use super::Transformer;
use super::attention::{self, Span};
use crate::kernels::Real;

/// A sequence in the making over a model.
#[derive(Debug)]
pub struct Generator<'m, 'a, T: Real> {
    model: &'m Transformer<'a, T>,
    /// Keys and values of each block, `[length, kv_heads * head_dim]`.
    past: Vec<(Array2<T>, Array2<T>)>,
    length: usize,
}

impl<'m, 'a, T: Real> Generator<'m, 'a, T> {
    /// An empty sequence.
    pub fn new(model: &'m Transformer<'a, T>) -> Self {
        let width = model.config.kv_heads * model.config.head_dim;
        let empty = || (Array2::zeros((0, width)), Array2::zeros((0, width)));
        Self { model, past: model.blocks.iter().map(|_| empty()).collect(), length: 0 }
    }

    /// Tokens so far.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether nothing has been read yet.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Read these tokens (at least one) behind the others; the logits `[vocab]` of what comes next.
    pub fn read(&mut self, tokens: &[u32]) -> Array1<T> {
        let model = self.model;
        let total = self.length + tokens.len();
        let positions: Vec<usize> = (self.length..total).collect();
        let angles = model.angles(&positions);
        let span = [Span { queries: 0..tokens.len(), context: 0..self.length, own: self.length..total }];
        let mut x = model.embed(tokens, &positions);
        for (block, (keys, values)) in model.blocks.iter().zip(&mut self.past) {
            let p = block.project(x.view(), &model.rotaries, &angles);
            keys.append(Axis(0), p.k.view()).expect("the same width");
            values.append(Axis(0), p.v.view()).expect("the same width");
            let (attended, _) =
                attention::forward(p.q.view(), keys.view(), values.view(), &span, block.heads(model.heads()));
            x = block.finish(x, attended.view());
        }
        self.length = total;
        let last = model.output_norm.forward(x.slice(s![-1.., ..]));
        model.head.logits(last.view()).row(0).to_owned()
    }
}
