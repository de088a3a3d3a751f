//! Sampling of the next token from logits.

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::kernels::Real;
use crate::kernels::random::uniform;

/// Greedy decoding, or temperature sampling with top-k and top-p.
#[derive(Debug)]
pub struct Sampler {
    temperature: f32,
    top_k: usize,
    top_p: f32,
    stream: ChaCha20Rng,
}

impl Sampler {
    /// `temperature` 0 is greedy. Otherwise tokens are sampled among the `top_k` most probable (0: all), cut
    /// to the smallest set that has `top_p` of their probability (nucleus sampling).
    pub fn new(temperature: f32, top_k: usize, top_p: f32, seed: u64) -> Self {
        Self { temperature, top_k, top_p, stream: ChaCha20Rng::seed_from_u64(seed) }
    }

    /// The index of the chosen logit. Greedily, the first of equal ones.
    pub fn choose(&mut self, logits: &[f32]) -> u32 {
        let greedy = likeliest(logits.iter()) as usize;
        if self.temperature <= 0.0 {
            return greedy as u32;
        }
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        order.truncate(if self.top_k == 0 { usize::MAX } else { self.top_k });
        let weight = |i: usize| f64::from((logits[i] - logits[greedy]) / self.temperature).exp();
        let total: f64 = order.iter().map(|&i| weight(i)).sum();
        let mut kept = 0.0;
        let nucleus = order
            .iter()
            .position(|&i| {
                kept += weight(i);
                kept >= f64::from(self.top_p) * total
            })
            .map_or(order.len(), |last| last + 1);
        order.truncate(nucleus);
        let mut point = uniform(&mut self.stream) * kept;
        for &i in &order {
            point -= weight(i);
            if point < 0.0 {
                return i as u32;
            }
        }
        greedy as u32
    }
}

/// The index of the maximum logit, the first of equal ones.
pub(super) fn likeliest<'l, T: Real>(logits: impl Iterator<Item = &'l T>) -> u32 {
    let mut best = (0, T::neg_infinity());
    for (i, &logit) in logits.enumerate() {
        if logit > best.1 {
            best = (i as u32, logit);
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temperature_zero_and_a_small_nucleus_are_greedy() {
        let logits = [0.0, 3.0, 1.0, 3.0];
        assert_eq!(Sampler::new(0.0, 0, 1.0, 1).choose(&logits), 1);
        for seed in 0..20 {
            assert_eq!(Sampler::new(1.0, 0, 0.1, seed).choose(&logits), 1);
            assert!([1, 3].contains(&Sampler::new(1.0, 2, 1.0, seed).choose(&logits)));
        }
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let logits = [0.0f32, (3.0f32).ln()];
        let mut sampler = Sampler::new(1.0, 0, 1.0, 5);
        let ones: u32 = (0..4000).map(|_| sampler.choose(&logits)).sum();
        assert!((2890..3110).contains(&ones), "{ones} of 4000 where 3000 are expected");
    }
}
