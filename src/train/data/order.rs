//! The order in which training takes the examples of a data set.

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::Dataset;

impl Dataset {
    /// The examples in the order of an epoch.
    pub fn order(&self, seed: u64, epoch: u64) -> Vec<usize> {
        let count = self.examples.len();
        if self.in_order && epoch == 0 { (0..count).collect() } else { order(count, seed, epoch) }
    }
}

/// The order of `count` examples in an epoch, the same on every machine.
pub fn order(count: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    shuffle(&mut order, seed, epoch);
    order
}

/// A Fisher-Yates shuffle driven by ChaCha20, so it is the same on every machine.
pub(super) fn shuffle<T>(order: &mut [T], seed: u64, epoch: u64) {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&epoch.to_le_bytes());
    key[16..24].copy_from_slice(b"examples");
    let mut stream = ChaCha20Rng::from_seed(key);
    for last in (1..order.len()).rev() {
        // The bias of a 64-bit remainder is negligible for any number of examples.
        order.swap(last, (stream.next_u64() % (last as u64 + 1)) as usize);
    }
}

/// Whether the example at `i` of `total` is one of `count` that are spread evenly: where i count / total passes
/// a whole number.
pub(super) fn is_spread(i: usize, count: usize, total: usize) -> bool {
    (i + 1) * count / total > i * count / total
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
}
