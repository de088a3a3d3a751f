//! Recurrences over tokens with a state for each head: the rules of Gated DeltaNet and of Mamba-2, over all sequences of a
//! batch, forward and backward, and token by token.

mod chunk;
mod decay_rule;
mod delta_rule;
#[cfg(test)]
mod tests;

use std::ops::Range;

use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2, s};
use rayon::prelude::*;

use super::attention::{SequenceRows, tile};
use crate::kernels::Real;
use chunk::{HeadGradients, HeadInputs};

/// How a token changes the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// It corrects what the state gives for its key (Gated DeltaNet).
    Delta,
    /// It adds its value for its key (Mamba-2).
    Decay,
}

/// The heads of a recurrence.
#[derive(Clone, Debug)]
pub struct Heads {
    pub rule: Rule,
    /// Where the query, the key and the value of each head are among the channels.
    pub columns: Vec<[Range<usize>; 3]>,
    pub key_dim: usize,
    pub value_dim: usize,
}

/// The states after the tokens that some sequences have read: of each sequence, each head's `[key_dim, value_dim]`.
#[derive(Debug)]
pub struct States<T>(Vec<Vec<Array2<T>>>);

impl Heads {
    fn no_state<T: Real>(&self) -> Array2<T> {
        Array2::zeros((self.key_dim, self.value_dim))
    }

    /// The states of this many sequences that have read nothing.
    pub fn states<T: Real>(&self, sequences: usize) -> States<T> {
        States((0..sequences).map(|_| vec![self.no_state(); self.columns.len()]).collect())
    }

    /// The numbers of a sequence's states.
    pub fn state_values(&self) -> usize {
        self.columns.len() * self.key_dim * self.value_dim
    }

    /// The outputs `[tokens, heads * value_dim]` of tokens that follow those that the states have read, and which they read,
    /// too. `slots` are the sequences of the states, one for each of `sequences`.
    pub fn extend<T: Real>(
        &self,
        inputs: &RuleInputs<T>,
        states: &mut States<T>,
        slots: &[usize],
        sequences: &[SequenceRows],
    ) -> Array2<T> {
        let (heads, width) = (self.columns.len(), self.value_dim);
        let mut out = T::pooled((inputs.mixed.nrows(), heads * width));
        let mut own: Vec<Vec<Array2<T>>> =
            slots.iter().map(|&slot| std::mem::take(&mut states.0[slot])).collect();
        let tasks: Vec<_> = sequence_heads(0..slots.len(), heads)
            .zip(tile(&mut out, sequences, width, heads))
            .zip(own.iter_mut().flatten())
            .collect();
        tasks.into_par_iter().for_each(|(((sequence, head), out), state)| {
            self.forward(&inputs.of(self, head, &sequences[sequence].queries), state, Some(out));
        });
        slots.iter().zip(own).for_each(|(&slot, own)| states.0[slot] = own);
        out
    }

    fn forward<T: Real>(
        &self,
        inputs: &HeadInputs<T>,
        state: &mut Array2<T>,
        out: Option<ArrayViewMut2<'_, T>>,
    ) {
        match self.rule {
            Rule::Delta => delta_rule::forward(inputs, state, out),
            Rule::Decay => decay_rule::forward(inputs, state, out),
        }
    }

    fn head_backward<T: Real>(
        &self,
        inputs: &HeadInputs<T>,
        state: Array2<T>,
        dout: ArrayView2<T>,
        dstate: Option<Array2<T>>,
    ) -> HeadGradients<T> {
        match self.rule {
            Rule::Delta => delta_rule::backward(inputs, state, dout, dstate),
            Rule::Decay => decay_rule::backward(inputs, state, dout, dstate),
        }
    }

    /// The heads' outputs by the rule, `[tokens, heads * value_dim]`.
    pub fn outputs<T: Real>(&self, inputs: &RuleInputs<T>, sequences: &[SequenceRows]) -> Array2<T> {
        let (heads, width) = (self.columns.len(), self.value_dim);
        let before = predecessors(sequences);
        let mut out = T::pooled((inputs.mixed.nrows(), heads * width));
        let mut tiles: Vec<_> = tile(&mut out, sequences, width, heads).map(Some).collect();
        let mut after: Vec<Vec<Array2<T>>> = sequences.iter().map(|_| Vec::new()).collect();
        for wave in waves(&before) {
            let tasks: Vec<_> = sequence_heads(wave.iter().copied(), heads)
                .map(|(sequence, head)| (sequence, head, tiles[sequence * heads + head].take()))
                .collect();
            let states: Vec<(usize, Array2<T>)> = tasks
                .into_par_iter()
                .filter_map(|(sequence, head, out)| {
                    let start = before[sequence].map(|before| after[before][head].clone());
                    let mut state = start.unwrap_or_else(|| self.no_state());
                    self.forward(&inputs.of(self, head, &sequences[sequence].own), &mut state, out);
                    before.contains(&Some(sequence)).then_some((sequence, state))
                })
                .collect();
            states.into_iter().for_each(|(sequence, state)| after[sequence].push(state));
        }
        drop(tiles);
        out
    }

    /// The gradients of [`RuleInputs`]: those of `mixed`, of `g` and of `beta`, from that of [`Self::outputs`]. Value heads
    /// that share a key head add to its gradient in a fixed order, and so do sequences that share a beginning.
    pub fn backward<T: Real>(
        &self,
        inputs: &RuleInputs<T>,
        dout: &Array2<T>,
        sequences: &[SequenceRows],
    ) -> [Array2<T>; 3] {
        let (heads, width) = (self.columns.len(), self.value_dim);
        let before = predecessors(sequences);
        let shared: Vec<usize> = (0..sequences.len()).filter(|&i| before.contains(&Some(i))).collect();
        let tasks: Vec<(usize, usize)> = sequence_heads(shared.iter().copied(), heads).collect();
        let states: Vec<Array2<T>> = tasks
            .into_par_iter()
            .map(|(sequence, head)| {
                let mut state = self.no_state();
                self.forward(&inputs.of(self, head, &sequences[sequence].own), &mut state, None);
                state
            })
            .collect();
        let index = |sequence: usize, head: usize| {
            shared.iter().position(|&i| i == sequence).map(|place| place * heads + head)
        };
        let mut dafter: Vec<Option<Array2<T>>> = vec![None; shared.len() * heads];
        let mut dmixed = Array2::zeros(inputs.mixed.dim());
        let [mut dg, mut dbeta] = [&inputs.g, &inputs.beta].map(|x| Array2::zeros(x.dim()));
        for wave in waves(&before).iter().rev() {
            let tasks: Vec<_> = sequence_heads(wave.iter().copied(), heads)
                .map(|(sequence, head)| {
                    (sequence, head, index(sequence, head).and_then(|i| dafter[i].take()))
                })
                .collect();
            let parts: Vec<(usize, usize, HeadGradients<T>)> = tasks
                .into_par_iter()
                .map(|(sequence, head, dstate)| {
                    let start = before[sequence].and_then(|before| index(before, head));
                    let state = start.map_or_else(|| self.no_state(), |i| states[i].clone());
                    let own = &sequences[sequence].own;
                    let dout = dout.slice(s![own.clone(), head * width..(head + 1) * width]);
                    (sequence, head, self.head_backward(&inputs.of(self, head, own), state, dout, dstate))
                })
                .collect();
            for (sequence, head, part) in parts {
                let own = sequences[sequence].own.clone();
                for (columns, part) in self.columns[head].clone().into_iter().zip([part.q, part.k, part.v]) {
                    let mut sum = dmixed.slice_mut(s![own.clone(), columns]);
                    sum += &part;
                }
                for (sum, part) in [(&mut dg, part.g), (&mut dbeta, part.beta)] {
                    sum.slice_mut(s![head, own.clone()]).assign(&Array1::from(part));
                }
                if let Some(i) = before[sequence].and_then(|before| index(before, head)) {
                    match &mut dafter[i] {
                        Some(sum) => *sum += &part.state,
                        none => *none = Some(part.state),
                    }
                }
            }
        }
        [dmixed, dg, dbeta]
    }
}

/// What the rule reads of all tokens.
pub struct RuleInputs<T> {
    /// Queries, keys and values, `[tokens, channels]`.
    pub mixed: Array2<T>,
    /// The logarithm of each token's decay: `[heads, tokens]`.
    pub g: Array2<T>,
    /// `[heads, tokens]`.
    pub beta: Array2<T>,
}

impl<T: Real> RuleInputs<T> {
    /// The inputs of one head, of the tokens in these rows.
    fn of(&self, heads: &Heads, head: usize, rows: &Range<usize>) -> HeadInputs<T> {
        let columns = heads.columns[head].clone();
        let [q, k, v] = columns.map(|columns| self.mixed.slice(s![rows.clone(), columns]).to_owned());
        let [g, beta] = [&self.g, &self.beta].map(|x| x.slice(s![head, rows.clone()]).to_vec());
        HeadInputs { q, k, v, g, beta }
    }

    /// Gives its largest array back.
    pub fn recycle(self) {
        T::recycle(self.mixed);
    }
}

/// For each sequence, the one whose tokens are its prefix.
fn predecessors(sequences: &[SequenceRows]) -> Vec<Option<usize>> {
    let of = |prefix: &Range<usize>| {
        let found = sequences.iter().position(|other| other.own == *prefix);
        found.expect("a prefix is another sequence of the batch")
    };
    sequences.iter().map(|rows| (!rows.prefix.is_empty()).then(|| of(&rows.prefix))).collect()
}

/// The sequences without a predecessor, and those with one: each wave needs the states of the one before.
fn waves(before: &[Option<usize>]) -> [Vec<usize>; 2] {
    [false, true].map(|follows| (0..before.len()).filter(|&i| before[i].is_some() == follows).collect())
}

/// Each of the sequences with each of this many heads.
fn sequence_heads(
    sequences: impl Iterator<Item = usize>,
    heads: usize,
) -> impl Iterator<Item = (usize, usize)> {
    sequences.flat_map(move |sequence| (0..heads).map(move |head| (sequence, head)))
}
