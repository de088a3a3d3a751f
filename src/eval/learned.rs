//! What a model has learned from examples, beside its base.

use serde::Serialize;

use crate::kernels::Real;
use crate::model::{Batch, Comparison, Prediction, Transformer};
use crate::train::data::Dataset;

/// Tokens that go through the models at a time; a longer example goes alone.
const MAX_TOKENS: usize = 1024;

/// What a model predicts of examples, given what comes before each target token.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Score {
    /// Mean negative log-probability of the target tokens, nats a token.
    pub loss: f64,
    /// Share of the target tokens that the model finds the most probable.
    pub token_accuracy: f64,
    /// Share of the examples all of whose target tokens it finds the most probable. Greedy decoding writes
    /// exactly these.
    pub exact: f64,
}

/// What a model has learned.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Learned {
    /// The score of the base.
    pub before: Score,
    /// The score of the model.
    pub after: Score,
    /// Number of examples.
    pub examples: usize,
}

/// Scores a model and its base on these examples. Both must have the same vocabulary.
pub fn learned<T: Real>(model: &Transformer<'_, T>, base: &Transformer<'_, T>, data: &Dataset) -> Learned {
    let mut rows: Vec<Vec<Comparison>> = Vec::with_capacity(data.examples.len());
    let mut start = 0;
    while start < data.examples.len() {
        let (mut batch, mut targets) = (Batch::default(), Vec::new());
        for example in &data.examples[start..] {
            if !targets.is_empty() && batch.tokens().len() + example.tokens.len() > MAX_TOKENS {
                break;
            }
            batch.push(&example.tokens, &example.loss_mask);
            targets.push(example.loss_mask.iter().filter(|&&target| target).count());
        }
        start += targets.len();
        let mut compared = model.compare(base, &batch).into_iter();
        rows.extend(targets.into_iter().map(|count| compared.by_ref().take(count).collect()));
    }
    Learned {
        before: score(&rows, |row| row.reference),
        after: score(&rows, |row| row.model),
        examples: rows.len(),
    }
}

/// The score from the predictions of each example.
fn score(examples: &[Vec<Comparison>], side: impl Fn(&Comparison) -> Prediction) -> Score {
    let predictions = || examples.iter().flatten().map(&side);
    let tokens = predictions().count() as f64;
    let exact = examples.iter().filter(|rows| rows.iter().all(|row| side(row).is_top)).count();
    Score {
        loss: -predictions().map(|p| p.log_prob).sum::<f64>() / tokens,
        token_accuracy: predictions().filter(|p| p.is_top).count() as f64 / tokens,
        exact: exact as f64 / examples.len() as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_counts_when_all_its_tokens_do() {
        let row = |log_prob, is_top| {
            let prediction = Prediction { log_prob, is_top };
            Comparison { reference: prediction, model: prediction, kl: 0.0, same_top: true }
        };
        let examples = [vec![row(-1.0, true), row(-2.0, false)], vec![row(-3.0, true)]];
        let found = score(&examples, |row| row.model);
        assert_eq!(found, Score { loss: 2.0, token_accuracy: 2.0 / 3.0, exact: 0.5 });
    }
}
