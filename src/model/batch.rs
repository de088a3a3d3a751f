//! What goes through the model together.

use std::ops::Range;

/// Sequences that go through the model together, and what is asked of them.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    tokens: Vec<u32>,
    sequences: Vec<Range<usize>>,
    /// The rows that each sequence stands behind: none, or another sequence.
    contexts: Vec<Range<usize>>,
    predictions: Vec<(usize, u32)>,
}

impl Batch {
    /// Add a sequence; `predicted[i]` asks for the probability of `tokens[i]` after those before it. Tokens behind the
    /// last row that predicts something are left out of the pass.
    pub fn push(&mut self, tokens: &[u32], predicted: &[bool]) {
        self.push_sharing(&[(tokens, predicted)]);
    }

    /// [`Self::push`] for each of these, which begin alike: the tokens that all of them begin with go through the model
    /// once, as a sequence of their own.
    pub fn push_sharing(&mut self, sequences: &[(&[u32], &[bool])]) {
        let read: Vec<&[u32]> =
            sequences.iter().map(|(tokens, predicted)| &tokens[..rows_read(tokens, predicted)]).collect();
        let used: Vec<&[u32]> = read.iter().copied().filter(|tokens| !tokens.is_empty()).collect();
        let shared = if used.len() > 1 { shared_beginning(&used) } else { 0 };
        let context = if shared > 0 {
            let first = self.push_sequence(&used[0][..shared]);
            first..first + shared
        } else {
            0..0
        };
        for (read, (tokens, predicted)) in read.into_iter().zip(sequences) {
            let own =
                if read.len() > shared { self.push_behind(context.clone(), &read[shared..]) } else { 0 };
            for i in (0..read.len()).filter(|&i| predicted[i + 1]) {
                let row = if i < shared { context.start + i } else { own + i - shared };
                self.predict(row, tokens[i + 1]);
            }
        }
    }

    /// Add a sequence (at least one token) that nothing is predicted from yet; the row of its first token.
    pub fn push_sequence(&mut self, tokens: &[u32]) -> usize {
        self.push_behind(0..0, tokens)
    }

    fn push_behind(&mut self, context: Range<usize>, tokens: &[u32]) -> usize {
        let first = self.tokens.len();
        self.tokens.extend(tokens);
        self.sequences.push(first..self.tokens.len());
        self.contexts.push(context);
        first
    }

    /// Ask for the probability of `token` after the token in this row.
    pub fn predict(&mut self, row: usize, token: u32) {
        self.predictions.push((row, token));
    }

    /// Tokens that go through the model.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The rows of each sequence.
    pub fn sequences(&self) -> &[Range<usize>] {
        &self.sequences
    }

    /// The rows that each sequence stands behind, as if they were its beginning: none, or those of a sequence before it.
    pub fn contexts(&self) -> &[Range<usize>] {
        &self.contexts
    }

    /// Where each token stands in its sequence, context included, from 0.
    pub fn positions(&self) -> Vec<usize> {
        let sequences = self.sequences.iter().zip(&self.contexts);
        sequences.flat_map(|(own, context)| context.len()..context.len() + own.len()).collect()
    }

    /// Pairs of a row of the pass and the token to be predicted there.
    pub fn predictions(&self) -> &[(usize, u32)] {
        &self.predictions
    }

    /// The rows that something is predicted from, in order, each once.
    pub fn predicting_rows(&self) -> Vec<usize> {
        let mut rows: Vec<usize> = self.predictions.iter().map(|(row, _)| *row).collect();
        rows.sort_unstable();
        rows.dedup();
        rows
    }
}

/// Tokens that must be read to make these predictions.
pub fn rows_read(tokens: &[u32], predicted: &[bool]) -> usize {
    (1..tokens.len()).rev().find(|&i| predicted[i]).unwrap_or(0)
}

/// How many tokens all of these begin with.
fn shared_beginning(sequences: &[&[u32]]) -> usize {
    let with = |other: &&[u32]| sequences[0].iter().zip(*other).take_while(|(a, b)| a == b).count();
    sequences.iter().map(with).min().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sequences_begin_with_is_read_once() {
        let mut batch = Batch::default();
        batch.push(&[9, 8], &[false, true]);
        let all = [true; 5];
        let last = [false, false, false, true, false];
        batch.push_sharing(&[
            (&[1, 2, 3, 4, 5], &last),
            (&[1, 2, 6, 7, 8], &all),
            (&[1, 2, 3, 4, 5], &[false; 5]),
        ]);
        assert_eq!(batch.tokens(), [9, 1, 2, 3, 6, 7]);
        assert_eq!(batch.sequences(), [0..1, 1..3, 3..4, 4..6]);
        assert_eq!(batch.contexts(), [0..0, 0..0, 1..3, 1..3]);
        assert_eq!(batch.predictions(), [(0, 8), (3, 4), (1, 2), (2, 6), (4, 7), (5, 8)]);
        assert_eq!(batch.predicting_rows(), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_sequence_may_be_the_beginning_of_the_others() {
        let mut batch = Batch::default();
        batch.push_sharing(&[(&[1, 2, 3], &[true; 3]), (&[1, 2, 4, 5], &[true; 4])]);
        assert_eq!(batch.tokens(), [1, 2, 4]);
        assert_eq!(batch.sequences(), [0..2, 2..3]);
        assert_eq!(batch.predictions(), [(0, 2), (1, 3), (0, 2), (1, 4), (2, 5)]);
    }
}
