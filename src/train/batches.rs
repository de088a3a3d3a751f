//! Which examples a step takes, and how a step is cut to fit memory.

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::data::Example;
use crate::model::{Batch, input_tokens};

/// Most tokens that go through the model at a time; a longer example goes alone. More would not make products faster.
pub const MOST_TOKENS: usize = 1024;
/// Passes of fewer tokens spend too much on decoding the weights: rather are activations computed again.
const LEAST_TOKENS: usize = 512;

/// Epochs after which none will have a much larger pass than those before.
const EPOCHS_LOOKED_AT: u64 = 16;

/// Tokens of a pass whose activations, of so many bytes a token, are to fit into `memory`.
pub fn tokens_within(memory: u64, bytes_a_token: u64) -> usize {
    let fitting = memory / bytes_a_token.max(1);
    usize::try_from(fitting).unwrap_or(MOST_TOKENS).clamp(LEAST_TOKENS, MOST_TOKENS)
}

/// Examples that go through the model together.
#[derive(Clone, Debug, Default)]
pub struct Pass {
    /// Their tokens, a sequence each.
    pub batch: Batch,
    /// Their indices.
    pub examples: Vec<usize>,
}

/// The order of `count` examples in an epoch: Fisher and Yates' shuffle by ChaCha20, so the same on every machine.
pub fn order(count: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&epoch.to_le_bytes());
    key[16..24].copy_from_slice(b"examples");
    let mut stream = ChaCha20Rng::from_seed(key);
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        // The bias of a 64-bit remainder is beyond notice for any number of examples.
        order.swap(last, (stream.next_u64() % (last as u64 + 1)) as usize);
    }
    order
}

/// How examples are cut into passes.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// Most tokens of a pass.
    pub most: usize,
    /// Whether the examples of a pass share what they begin with.
    pub share: bool,
}

/// Examples with their indices in passes, in the given order. An example that predicts nothing is left out.
pub fn passes<'e>(examples: impl IntoIterator<Item = (usize, &'e Example)>, cut: Cut) -> Vec<Pass> {
    let of = |group: Vec<(usize, &Example)>| {
        let mut batch = Batch::default();
        let sequences: Vec<(&[u32], &[bool])> =
            group.iter().map(|(_, example)| (&example.tokens[..], &example.targets[..])).collect();
        if cut.share {
            batch.push_with_shared_prefix(&sequences);
        } else {
            sequences.iter().for_each(|(tokens, targets)| batch.push(tokens, targets));
        }
        Pass { batch, examples: group.iter().map(|(index, _)| *index).collect() }
    };
    groups(examples, cut.most).into_iter().map(of).collect()
}

/// Examples that predict something in groups of at most `most` tokens that are read, in the given order; a longer one
/// goes alone.
fn groups<'e>(
    examples: impl IntoIterator<Item = (usize, &'e Example)>,
    most: usize,
) -> Vec<Vec<(usize, &'e Example)>> {
    let mut groups: Vec<Vec<(usize, &Example)>> = Vec::new();
    let mut tokens = 0;
    for (index, example) in examples {
        let own = input_tokens(&example.tokens, &example.targets);
        if own == 0 {
            continue;
        }
        match groups.last_mut().filter(|_| tokens + own <= most) {
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

/// The most tokens that a pass of a run reads, none shared, in its first [`EPOCHS_LOOKED_AT`] epochs: of so many steps of
/// `batch_size` examples, cut at `most`.
pub fn largest_pass(examples: &[Example], batch_size: usize, seed: u64, steps: u64, most: usize) -> usize {
    let steps_of_epoch = examples.len().div_ceil(batch_size) as u64;
    let read = |(_, example): &(usize, &Example)| input_tokens(&example.tokens, &example.targets);
    let mut largest = 0;
    for epoch in 0..steps.div_ceil(steps_of_epoch.max(1)).min(EPOCHS_LOOKED_AT) {
        let left = usize::try_from(steps - epoch * steps_of_epoch).unwrap_or(usize::MAX);
        for batch in order(examples.len(), seed, epoch).chunks(batch_size).take(left) {
            for group in groups(batch.iter().map(|&i| (i, &examples[i])), most) {
                largest = largest.max(group.iter().map(read).sum());
            }
        }
    }
    largest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_a_permutation_of_its_seed_and_epoch() {
        let first = order(100, 1, 0);
        let mut sorted = first.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<_>>());
        assert_eq!(first, order(100, 1, 0));
        assert_ne!(first, order(100, 1, 1));
        assert_ne!(first, order(100, 2, 0));
    }

    #[test]
    fn passes_are_as_long_as_memory_allows_and_products_need() {
        assert_eq!(tokens_within(1 << 30, 1 << 20), 1024);
        assert_eq!(tokens_within(600 << 20, 1 << 20), 600);
        assert_eq!(tokens_within(1, 1 << 20), 512);
        assert_eq!(tokens_within(u64::MAX, 0), 1024);
    }

    #[test]
    fn passes_hold_every_prediction_once() {
        let example = |length: usize| Example { tokens: vec![7; length], targets: vec![true; length] };
        let examples = [example(1000), example(30), example(3000), example(2)];
        let cut = Cut { most: 1024, share: false };
        let passes = passes(examples.iter().enumerate(), cut);
        let sizes: Vec<usize> = passes.iter().map(|p| p.batch.predictions().len()).collect();
        assert_eq!(sizes, [999, 29, 2999, 1]);
        assert!(passes.iter().all(|p| p.batch.tokens().len() == p.batch.predictions().len()));
        assert_eq!(passes.iter().map(|p| p.examples.clone()).collect::<Vec<_>>(), [[0], [1], [2], [3]]);
    }

    #[test]
    fn the_largest_pass_of_a_run_is_found() {
        let example = |length: usize| Example { tokens: vec![7; length], targets: vec![true; length] };
        let examples: Vec<Example> = (2..40).map(example).collect();
        let passes_of = |epoch: u64, steps: usize| {
            let order = order(examples.len(), 3, epoch);
            let batches = order.chunks(8).take(steps).map(<[usize]>::to_vec).collect::<Vec<_>>();
            let cut = Cut { most: 120, share: false };
            let passes = batches
                .into_iter()
                .flat_map(|batch| passes(batch.iter().map(|&i| (i, &examples[i])), cut))
                .map(|pass| pass.batch.tokens().len());
            passes.max().unwrap()
        };
        assert_eq!(largest_pass(&examples, 8, 3, 2, 120), passes_of(0, 2));
        assert_eq!(largest_pass(&examples, 8, 3, 8, 120), passes_of(0, 5).max(passes_of(1, 3)));
        assert_eq!(largest_pass(&[], 8, 3, 0, 120), 0);
    }

    #[test]
    fn examples_of_a_pass_share_their_beginning() {
        let example = |last: u32| Example {
            tokens: vec![1, 2, 3, last, 4],
            targets: vec![false, true, true, true, true],
        };
        let examples = [example(5), example(6), example(7)];
        let passes = passes(examples.iter().enumerate(), Cut { most: 100, share: true });
        assert_eq!(passes[0].batch.tokens(), [1, 2, 3, 5, 6, 7]);
        assert_eq!(passes[0].batch.predictions().len(), 12);
    }
}
