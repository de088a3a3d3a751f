//! Which examples a step takes, and how a step is cut to fit memory.

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::data::Example;
use crate::model::Batch;

/// Most tokens that go through the model at a time; a longer example goes alone. More would not make products faster.
pub const MOST_TOKENS: usize = 1024;
/// Passes of fewer tokens spend too much on decoding the weights: rather are activations computed again.
const LEAST_TOKENS: usize = 512;

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

/// Examples with their indices in passes of at most `most` tokens, in the given order. An example that predicts nothing
/// is left out.
pub fn passes<'e>(examples: impl IntoIterator<Item = (usize, &'e Example)>, most: usize) -> Vec<Pass> {
    let mut passes = Vec::new();
    let mut pass = Pass::default();
    for (index, example) in examples {
        let tokens = pass.batch.tokens().len();
        if tokens > 0 && tokens + example.tokens.len() > most {
            passes.push(std::mem::take(&mut pass));
        }
        let before = pass.batch.sequences().len();
        pass.batch.push(&example.tokens, &example.targets);
        if pass.batch.sequences().len() > before {
            pass.examples.push(index);
        }
    }
    if !pass.batch.tokens().is_empty() {
        passes.push(pass);
    }
    passes
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
        let passes = passes(examples.iter().enumerate(), 1024);
        let sizes: Vec<usize> = passes.iter().map(|p| p.batch.predictions().len()).collect();
        assert_eq!(sizes, [999, 29, 2999, 1]);
        assert!(passes.iter().all(|p| p.batch.tokens().len() == p.batch.predictions().len()));
        assert_eq!(passes.iter().map(|p| p.examples.clone()).collect::<Vec<_>>(), [[0], [1], [2], [3]]);
    }
}
