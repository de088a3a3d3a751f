//! Accuracy by likelihood: the model chooses the ending with the highest log-probability.
//!
//! The log-probability of an ending is the sum over its tokens; it is not divided by their number.

use serde::Serialize;

use crate::kernels::Real;
use crate::model::{Batch, Transformer};
use crate::train::data::ChoiceExample;

/// Tokens that go through the model at a time; a longer example goes alone.
const MAX_TOKENS: usize = 1024;

/// The score of a model on examples with choices.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Accuracy {
    /// Share of the examples whose right ending has the highest log-probability. Of equal ones the first
    /// counts. NaN without examples.
    pub accuracy: f64,
    /// Mean negative log-probability of the right endings, nats a token.
    pub loss: f64,
    /// Number of examples.
    pub examples: usize,
}

/// Scores every example, such as those of [`read_choices`](crate::train::data::read_choices). `progress` gets
/// the number of finished examples, and of all.
///
/// For a model with LongRoPE or learned positions, call [`Transformer::for_context`] with the length of the
/// longest sequence first; it says what happens otherwise. Other models need no call.
pub fn accuracy<T: Real>(
    model: &Transformer<'_, T>,
    examples: &[ChoiceExample],
    mut progress: impl FnMut(usize, usize),
) -> Accuracy {
    let (mut right, mut loss, mut tokens, mut done) = (0, 0.0, 0, 0);
    for group in groups(examples) {
        let batch = batch_of(group);
        let log_probs = model.log_probs(&batch);
        let mut rest = &log_probs[..];
        for example in group {
            let scores: Vec<f64> = example
                .choices
                .iter()
                .map(|choice| {
                    let (own, after) = rest.split_at(choice.len());
                    rest = after;
                    own.iter().sum()
                })
                .collect();
            right += usize::from(best(&scores) == example.answer);
            loss -= scores[example.answer];
            tokens += example.choices[example.answer].len();
        }
        done += group.len();
        progress(done, examples.len());
    }
    Accuracy {
        accuracy: right as f64 / examples.len() as f64,
        loss: loss / tokens as f64,
        examples: examples.len(),
    }
}

/// The first of the highest scores.
fn best(scores: &[f64]) -> usize {
    (0..scores.len()).fold(0, |best, i| if scores[i] > scores[best] { i } else { best })
}

/// Consecutive examples that go through the model together.
fn groups(examples: &[ChoiceExample]) -> Vec<&[ChoiceExample]> {
    let mut groups = Vec::new();
    let (mut start, mut size) = (0, 0);
    for (i, example) in examples.iter().enumerate() {
        let own: usize = contexts(example).iter().map(Vec::len).sum();
        if i > start && size + own > MAX_TOKENS {
            groups.push(&examples[start..i]);
            (start, size) = (i, 0);
        }
        size += own;
    }
    if start < examples.len() {
        groups.push(&examples[start..]);
    }
    groups
}

/// All endings of these examples, with predictions in the order of examples, endings and tokens.
fn batch_of(examples: &[ChoiceExample]) -> Batch {
    let mut batch = Batch::default();
    for example in examples {
        let contexts = contexts(example);
        let rows: Vec<usize> = contexts.iter().map(|c| batch.push_sequence(c)).collect();
        for choice in &example.choices {
            let own = context(example, choice);
            let place = contexts.iter().position(|c| c.starts_with(&own)).expect("every context is covered");
            let first = rows[place] + example.prompt.len() - 1;
            choice.iter().enumerate().for_each(|(i, &token)| batch.predict(first + i, token));
        }
    }
    batch
}

/// What the model reads to score an ending: all but its last token.
fn context(example: &ChoiceExample, choice: &[u32]) -> Vec<u32> {
    [&example.prompt, &choice[..choice.len() - 1]].concat()
}

/// The contexts of an example, except those that another begins with. Endings of one token share the prompt.
fn contexts(example: &ChoiceExample) -> Vec<Vec<u32>> {
    let mut all: Vec<Vec<u32>> = example.choices.iter().map(|c| context(example, c)).collect();
    all.sort_by_key(|c| std::cmp::Reverse(c.len()));
    let mut kept: Vec<Vec<u32>> = Vec::new();
    for context in all.into_iter() {
        if !kept.iter().any(|k| k.starts_with(&context)) {
            kept.push(context);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_share_the_contexts_that_others_begin_with() {
        let example = ChoiceExample {
            prompt: vec![1, 2, 3],
            choices: vec![vec![4], vec![5, 6], vec![5, 7], vec![8, 9, 10]],
            answer: 0,
        };
        // Contexts: 1 2 3 | 1 2 3 5 | 1 2 3 8 9. Both others begin with the first.
        assert_eq!(contexts(&example), [vec![1, 2, 3, 8, 9], vec![1, 2, 3, 5]]);
        let batch = batch_of(std::slice::from_ref(&example));
        assert_eq!(batch.tokens(), [1, 2, 3, 8, 9, 1, 2, 3, 5]);
        let predictions = [(2, 4), (7, 5), (8, 6), (7, 5), (8, 7), (2, 8), (3, 9), (4, 10)];
        assert_eq!(batch.predictions(), predictions);
        assert_eq!(best(&[-2.0, -1.0, -1.0]), 1);
    }
}
