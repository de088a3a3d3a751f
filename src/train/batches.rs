//! Which examples a step takes, and how a step is divided to fit memory.

use super::data::{Dataset, Example};
use crate::model::{Batch, input_tokens};

/// Upper limit of the tokens of a micro-batch; a longer example forms one alone. Larger ones do not make
/// matrix products faster.
pub const MAX_TOKENS: usize = 1024;
/// Smaller micro-batches spend too much time on decoding the weights. Below this, activations are recomputed
/// instead.
const MIN_TOKENS: usize = 512;

/// Epochs that [`largest_micro_batch`] looks at. Later ones are unlikely to hold a much larger one.
const EPOCHS_EXAMINED: u64 = 16;

/// How many tokens a micro-batch may have so that its activations, of `bytes_a_token` each, fit into `memory`
/// bytes.
pub fn tokens_within(memory: u64, bytes_a_token: u64) -> usize {
    let fitting = memory / bytes_a_token.max(1);
    usize::try_from(fitting).unwrap_or(MAX_TOKENS).clamp(MIN_TOKENS, MAX_TOKENS)
}

/// Examples that go through the model together. A step accumulates the gradients of its micro-batches.
#[derive(Clone, Debug, Default)]
pub struct MicroBatch {
    /// Their tokens, one sequence for each example.
    pub batch: Batch,
    /// Their indices in the data set.
    pub examples: Vec<usize>,
}

/// How examples are divided into micro-batches.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    /// Upper limit of the tokens of a micro-batch that holds several examples.
    pub max_tokens: usize,
    /// Whether the examples of a micro-batch share the prefix that all of them have.
    pub share_prefixes: bool,
}

/// Divides examples, given with their indices, into micro-batches in the given order. An example that
/// predicts nothing is left out.
pub fn micro_batches<'e>(
    examples: impl IntoIterator<Item = (usize, &'e Example)>,
    limits: BatchLimits,
) -> Vec<MicroBatch> {
    let of = |group: Vec<(usize, &Example)>| {
        let mut batch = Batch::default();
        let sequences: Vec<(&[u32], &[bool])> =
            group.iter().map(|(_, example)| (&example.tokens[..], &example.loss_mask[..])).collect();
        if limits.share_prefixes {
            batch.push_with_shared_prefix(&sequences);
        } else {
            sequences.iter().for_each(|(tokens, loss_mask)| batch.push(tokens, loss_mask));
        }
        MicroBatch { batch, examples: group.iter().map(|(index, _)| *index).collect() }
    };
    groups(examples, limits.max_tokens).into_iter().map(of).collect()
}

/// Groups the examples that predict something, in the given order. The model reads at most `max_tokens`
/// tokens of a group; a longer example forms a group alone.
fn groups<'e>(
    examples: impl IntoIterator<Item = (usize, &'e Example)>,
    max_tokens: usize,
) -> Vec<Vec<(usize, &'e Example)>> {
    let mut groups: Vec<Vec<(usize, &Example)>> = Vec::new();
    let mut tokens = 0;
    for (index, example) in examples {
        let own = input_tokens(&example.tokens, &example.loss_mask);
        if own == 0 {
            continue;
        }
        match groups.last_mut().filter(|_| tokens + own <= max_tokens) {
            Some(group) => group.push((index, example)),
            None => {
                groups.push(vec![(index, example)]);
                tokens = 0;
            }
        }
        tokens += own;
    }
    groups
}

/// The number of tokens that the model reads of the largest micro-batch in a run's first `EPOCHS_EXAMINED`
/// epochs, without shared prefixes. The run takes `steps` steps of `batch_size` examples, each divided at
/// `max_tokens`.
pub fn largest_micro_batch(
    data: &Dataset,
    batch_size: usize,
    seed: u64,
    steps: u64,
    max_tokens: usize,
) -> usize {
    let examples = &data.examples;
    let steps_of_epoch = examples.len().div_ceil(batch_size) as u64;
    let read = |(_, example): &(usize, &Example)| input_tokens(&example.tokens, &example.loss_mask);
    let mut largest = 0;
    for epoch in 0..steps.div_ceil(steps_of_epoch.max(1)).min(EPOCHS_EXAMINED) {
        let remaining = usize::try_from(steps - epoch * steps_of_epoch).unwrap_or(usize::MAX);
        for batch in data.order(seed, epoch).chunks(batch_size).take(remaining) {
            for group in groups(batch.iter().map(|&i| (i, &examples[i])), max_tokens) {
                largest = largest.max(group.iter().map(read).sum());
            }
        }
    }
    largest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(length: usize) -> Example {
        Example { tokens: vec![7; length], loss_mask: vec![true; length] }
    }

    #[test]
    fn micro_batches_are_as_long_as_memory_allows_and_products_need() {
        assert_eq!(tokens_within(1 << 30, 1 << 20), 1024);
        assert_eq!(tokens_within(600 << 20, 1 << 20), 600);
        assert_eq!(tokens_within(1, 1 << 20), 512);
        assert_eq!(tokens_within(u64::MAX, 0), 1024);
    }

    #[test]
    fn micro_batches_hold_every_prediction_once() {
        let examples = [example(1000), example(30), example(3000), example(2)];
        let limits = BatchLimits { max_tokens: 1024, share_prefixes: false };
        let made = micro_batches(examples.iter().enumerate(), limits);
        let sizes: Vec<usize> = made.iter().map(|m| m.batch.predictions().len()).collect();
        assert_eq!(sizes, [999, 29, 2999, 1]);
        assert!(made.iter().all(|m| m.batch.tokens().len() == m.batch.predictions().len()));
        assert_eq!(made.iter().map(|m| m.examples.clone()).collect::<Vec<_>>(), [[0], [1], [2], [3]]);
    }

    #[test]
    fn the_largest_micro_batch_of_a_run_is_found() {
        let of = |examples| Dataset { examples, ..Dataset::default() };
        let data = of((2..40).map(example).collect());
        let examples = &data.examples;
        let largest_of = |epoch: u64, steps: usize| {
            let order = data.order(3, epoch);
            let limits = BatchLimits { max_tokens: 120, share_prefixes: false };
            let made = order
                .chunks(8)
                .take(steps)
                .flat_map(|batch| micro_batches(batch.iter().map(|&i| (i, &examples[i])), limits));
            made.map(|m| m.batch.tokens().len()).max().unwrap()
        };
        assert_eq!(largest_micro_batch(&data, 8, 3, 2, 120), largest_of(0, 2));
        assert_eq!(largest_micro_batch(&data, 8, 3, 8, 120), largest_of(0, 5).max(largest_of(1, 3)));
        assert_eq!(largest_micro_batch(&of(Vec::new()), 8, 3, 0, 120), 0);
    }

    #[test]
    fn examples_of_a_micro_batch_share_their_prefix() {
        let example = |last: u32| Example {
            tokens: vec![1, 2, 3, last, 4],
            loss_mask: vec![false, true, true, true, true],
        };
        let examples = [example(5), example(6), example(7)];
        let limits = BatchLimits { max_tokens: 100, share_prefixes: true };
        let made = micro_batches(examples.iter().enumerate(), limits);
        assert_eq!(made[0].batch.tokens(), [1, 2, 3, 5, 6, 7]);
        assert_eq!(made[0].batch.predictions().len(), 12);
    }
}
