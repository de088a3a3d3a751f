//! Which examples a step takes, and how a step is cut to fit memory.

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::data::Example;
use crate::model::Batch;

/// Tokens that go through the model at a time; a longer example goes alone. Activations take about
/// `layers * (6 d_model + 3 ff) * 4` bytes a token.
const PASS_TOKENS: usize = 1024;

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

/// Examples in passes of at most [`PASS_TOKENS`] tokens, in the given order.
pub fn passes<'e>(examples: impl IntoIterator<Item = &'e Example>) -> Vec<Batch> {
    let mut passes = Vec::new();
    let mut batch = Batch::default();
    for example in examples {
        if !batch.tokens().is_empty() && batch.tokens().len() + example.tokens.len() > PASS_TOKENS {
            passes.push(std::mem::take(&mut batch));
        }
        batch.push(&example.tokens, &example.targets);
    }
    if !batch.tokens().is_empty() {
        passes.push(batch);
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
    fn passes_hold_every_prediction_once() {
        let example = |length: usize| Example { tokens: vec![7; length], targets: vec![true; length] };
        let examples = [example(1000), example(30), example(3000), example(2)];
        let passes = passes(&examples);
        let sizes: Vec<usize> = passes.iter().map(|p| p.predictions().len()).collect();
        assert_eq!(sizes, [999, 29, 2999, 1]);
        assert!(passes.iter().all(|p| p.tokens().len() == p.predictions().len()));
    }
}
