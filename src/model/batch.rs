//! A batch of sequences.

use std::ops::Range;

/// Sequences that pass through the model together, and the predictions wanted of them.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    tokens: Vec<u32>,
    /// The rows of each sequence.
    sequences: Vec<Range<usize>>,
    /// The rows that precede each sequence: none, or those of another sequence.
    shared_prefixes: Vec<Range<usize>>,
    predictions: Vec<(usize, u32)>,
}

impl Batch {
    /// Adds a sequence. `loss_mask[i]` asks for the probability of `tokens[i]` given the tokens before it.
    /// Tokens after the last row that predicts something are left out.
    pub fn push(&mut self, tokens: &[u32], loss_mask: &[bool]) {
        self.push_with_shared_prefix(&[(tokens, loss_mask)]);
    }

    /// [`Self::push`] for each of these sequences. The longest prefix that all of them share passes through
    /// the model once, as a sequence of its own.
    pub fn push_with_shared_prefix(&mut self, sequences: &[(&[u32], &[bool])]) {
        let read: Vec<&[u32]> =
            sequences.iter().map(|(tokens, loss_mask)| &tokens[..input_tokens(tokens, loss_mask)]).collect();
        let used: Vec<&[u32]> = read.iter().copied().filter(|tokens| !tokens.is_empty()).collect();
        let shared = if used.len() > 1 { common_prefix_len(&used) } else { 0 };
        let prefix = if shared > 0 {
            let first = self.push_sequence(&used[0][..shared]);
            first..first + shared
        } else {
            0..0
        };
        for (read, (tokens, loss_mask)) in read.into_iter().zip(sequences) {
            let own = if read.len() > shared { self.push_after(prefix.clone(), &read[shared..]) } else { 0 };
            for i in (0..read.len()).filter(|&i| loss_mask[i + 1]) {
                let row = if i < shared { prefix.start + i } else { own + i - shared };
                self.predict(row, tokens[i + 1]);
            }
        }
    }

    /// Adds a sequence (at least one token) without predictions. Returns the row of its first token.
    pub fn push_sequence(&mut self, tokens: &[u32]) -> usize {
        self.push_after(0..0, tokens)
    }

    fn push_after(&mut self, prefix: Range<usize>, tokens: &[u32]) -> usize {
        let first = self.tokens.len();
        self.tokens.extend(tokens);
        self.sequences.push(first..self.tokens.len());
        self.shared_prefixes.push(prefix);
        first
    }

    /// Asks for the probability of `token` after the token in this row.
    pub fn predict(&mut self, row: usize, token: u32) {
        self.predictions.push((row, token));
    }

    /// The tokens that pass through the model.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The rows of each sequence.
    pub fn sequences(&self) -> &[Range<usize>] {
        &self.sequences
    }

    /// The prefix of each sequence: no rows, or those of an earlier sequence, which it shares with others.
    pub fn shared_prefixes(&self) -> &[Range<usize>] {
        &self.shared_prefixes
    }

    /// The position of each token in its sequence, prefix included, from 0.
    pub fn positions(&self) -> Vec<usize> {
        let sequences = self.sequences.iter().zip(&self.shared_prefixes);
        sequences.flat_map(|(own, prefix)| prefix.len()..prefix.len() + own.len()).collect()
    }

    /// Pairs of a row and the token whose probability is wanted there.
    pub fn predictions(&self) -> &[(usize, u32)] {
        &self.predictions
    }

    /// The rows that something is predicted from, in order and without repetition.
    pub fn predicting_rows(&self) -> Vec<usize> {
        let mut rows: Vec<usize> = self.predictions.iter().map(|(row, _)| *row).collect();
        rows.sort_unstable();
        rows.dedup();
        rows
    }

    /// The rows of each sequence in a matrix that has `count` rows: one for each token of the batch, or one
    /// for each of [`Self::predicting_rows`].
    pub fn sequences_within(&self, count: usize) -> Vec<Range<usize>> {
        if count == self.tokens.len() {
            return self.sequences.clone();
        }
        let rows = self.predicting_rows();
        debug_assert_eq!(count, rows.len());
        let place = |row: usize| rows.partition_point(|&predicting| predicting < row);
        self.sequences.iter().map(|own| place(own.start)..place(own.end)).collect()
    }
}

/// How many of a sequence's tokens the model must read to make its predictions (see [`Batch::push`]).
pub fn input_tokens(tokens: &[u32], loss_mask: &[bool]) -> usize {
    (1..tokens.len()).rev().find(|&i| loss_mask[i]).unwrap_or(0)
}

/// The length of the longest prefix that all of these share.
fn common_prefix_len(sequences: &[&[u32]]) -> usize {
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
        batch.push_with_shared_prefix(&[
            (&[1, 2, 3, 4, 5], &last),
            (&[1, 2, 6, 7, 8], &all),
            (&[1, 2, 3, 4, 5], &[false; 5]),
        ]);
        assert_eq!(batch.tokens(), [9, 1, 2, 3, 6, 7]);
        assert_eq!(batch.sequences(), [0..1, 1..3, 3..4, 4..6]);
        assert_eq!(batch.shared_prefixes(), [0..0, 0..0, 1..3, 1..3]);
        assert_eq!(batch.predictions(), [(0, 8), (3, 4), (1, 2), (2, 6), (4, 7), (5, 8)]);
        assert_eq!(batch.predicting_rows(), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn rows_that_predict_nothing_can_be_left_out() {
        let mut batch = Batch::default();
        batch.push(&[1, 2, 3, 4], &[false, false, true, true]);
        batch.push(&[5, 6, 7], &[false, true, false]);
        batch.push(&[8, 9, 8, 9], &[false, true, false, true]);
        assert_eq!(batch.sequences_within(7), [0..3, 3..4, 4..7]);
        assert_eq!(batch.predicting_rows(), [1, 2, 3, 4, 6]);
        assert_eq!(batch.sequences_within(5), [0..2, 2..3, 3..5]);
    }

    #[test]
    fn a_sequence_may_be_the_beginning_of_the_others() {
        let mut batch = Batch::default();
        batch.push_with_shared_prefix(&[(&[1, 2, 3], &[true; 3]), (&[1, 2, 4, 5], &[true; 4])]);
        assert_eq!(batch.tokens(), [1, 2, 4]);
        assert_eq!(batch.sequences(), [0..2, 2..3]);
        assert_eq!(batch.predictions(), [(0, 2), (1, 3), (0, 2), (1, 4), (2, 5)]);
    }
}
