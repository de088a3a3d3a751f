//! Sampling of the next token from logits, by llama.cpp's samplers in its default order: penalties, top-k, top-p, min-p,
//! temperature, a draw.

use std::collections::{HashMap, VecDeque};

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::kernels::Real;
use crate::kernels::random::uniform;

/// How the next token is chosen. Names, meanings and defaults of [`Self::llama_cpp`] are llama.cpp's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplingOptions {
    /// The candidates' logits are divided by it; 0 takes the likeliest token.
    pub temperature: f32,
    /// The number of the likeliest tokens that are candidates; 0 for all.
    pub top_k: usize,
    /// Candidates are the likeliest tokens that together have at least this share of the probability.
    pub top_p: f32,
    /// Candidates have at least this share of the likeliest token's probability.
    pub min_p: f32,
    /// What logits of recent tokens are divided by, or multiplied with if they are negative.
    pub repeat_penalty: f32,
    /// The number of recent tokens that are penalized.
    pub repeat_last_n: usize,
    /// Subtracted from the logit of a token that is among the recent ones.
    pub presence_penalty: f32,
    /// Subtracted from the logit of a token for each time that it is among the recent ones.
    pub frequency_penalty: f32,
}

impl SamplingOptions {
    /// llama.cpp's defaults.
    pub fn llama_cpp() -> Self {
        Self {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            repeat_penalty: 1.0,
            repeat_last_n: 64,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
        }
    }

    /// The likeliest token, always.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::llama_cpp() }
    }

    fn has_penalties(&self) -> bool {
        let none =
            self.repeat_penalty == 1.0 && self.presence_penalty == 0.0 && self.frequency_penalty == 0.0;
        self.repeat_last_n > 0 && !none
    }
}

/// Chooses tokens by the options. Equal seeds draw equally.
#[derive(Debug)]
pub struct Sampler {
    options: SamplingOptions,
    recent: VecDeque<u32>,
    stream: ChaCha20Rng,
}

/// A token that may be drawn, with its logit.
type Candidate = (u32, f64);

impl Sampler {
    /// A sampler that has seen no token.
    pub fn new(options: SamplingOptions, seed: u64) -> Self {
        Self { options, recent: VecDeque::new(), stream: ChaCha20Rng::seed_from_u64(seed) }
    }

    /// Counts a token of the text among the recent ones.
    pub fn accept(&mut self, token: u32) {
        if !self.options.has_penalties() {
            return;
        }
        if self.recent.len() >= self.options.repeat_last_n {
            self.recent.pop_front();
        }
        self.recent.push_back(token);
    }

    /// Forgets the recent tokens.
    pub fn reset(&mut self) {
        self.recent.clear();
    }

    /// The chosen token, which is accepted. At temperature 0, the first of equal ones.
    pub fn choose(&mut self, logits: &[f32]) -> u32 {
        let candidates = self.candidates(logits);
        let point = if candidates.len() > 1 { uniform(&mut self.stream) } else { 0.0 };
        let token = drawn(&candidates, point);
        self.accept(token);
        token
    }

    /// The tokens that may be drawn and their probabilities, the likeliest first.
    pub fn probabilities(&self, logits: &[f32]) -> Vec<(u32, f64)> {
        let candidates = self.candidates(logits);
        let total: f64 = weights(&candidates).map(|(_, weight)| weight).sum();
        weights(&candidates).map(|(token, weight)| (token, weight / total)).collect()
    }

    /// What remains of all tokens, the likeliest first, with logits divided by the temperature.
    fn candidates(&self, logits: &[f32]) -> Vec<Candidate> {
        let SamplingOptions { temperature, top_k, top_p, min_p, .. } = self.options;
        let penalized = self.penalized(logits);
        let logits = penalized.as_deref().unwrap_or(logits);
        if temperature <= 0.0 {
            let token = likeliest(logits.iter());
            return vec![(token, f64::from(logits[token as usize]))];
        }
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        let down = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
        if top_k > 0 && top_k < order.len() {
            order.select_nth_unstable_by(top_k - 1, down);
            order.truncate(top_k);
        }
        order.sort_unstable_by(down);
        let mut candidates: Vec<Candidate> =
            order.into_iter().map(|token| (token, f64::from(logits[token as usize]))).collect();
        if top_p < 1.0 {
            let total: f64 = weights(&candidates).map(|(_, weight)| weight).sum();
            let mut sum = 0.0;
            let enough = weights(&candidates).position(|(_, weight)| {
                sum += weight;
                sum >= f64::from(top_p) * total
            });
            candidates.truncate(enough.map_or(candidates.len(), |last| last + 1));
        }
        if min_p > 0.0 {
            let least = candidates[0].1 + f64::from(min_p).ln();
            let kept = candidates.iter().take_while(|(_, logit)| *logit >= least).count();
            candidates.truncate(kept.max(1));
        }
        candidates.iter_mut().for_each(|(_, logit)| *logit /= f64::from(temperature));
        candidates
    }

    /// The logits with the penalties of recent tokens, if there are any.
    fn penalized(&self, logits: &[f32]) -> Option<Vec<f32>> {
        let SamplingOptions { repeat_penalty, presence_penalty, frequency_penalty, .. } = self.options;
        if self.recent.is_empty() {
            return None;
        }
        let mut counts: HashMap<u32, u32> = HashMap::new();
        self.recent.iter().for_each(|&token| *counts.entry(token).or_default() += 1);
        let mut logits = logits.to_vec();
        for (token, count) in counts {
            let Some(logit) = logits.get_mut(token as usize) else { continue };
            *logit = if *logit <= 0.0 { *logit * repeat_penalty } else { *logit / repeat_penalty };
            *logit -= count as f32 * frequency_penalty + presence_penalty;
        }
        Some(logits)
    }
}

/// The candidates' probabilities, but for a common factor.
fn weights(candidates: &[Candidate]) -> impl Iterator<Item = (u32, f64)> {
    let greatest = candidates.first().map_or(0.0, |(_, logit)| *logit);
    candidates.iter().map(move |&(token, logit)| (token, (logit - greatest).exp()))
}

/// The candidate at `point` of the whole probability, from 0 to 1.
fn drawn(candidates: &[Candidate], point: f64) -> u32 {
    let total: f64 = weights(candidates).map(|(_, weight)| weight).sum();
    let mut rest = point * total;
    for (token, weight) in weights(candidates) {
        rest -= weight;
        if rest < 0.0 {
            return token;
        }
    }
    candidates.first().map_or(0, |(token, _)| *token)
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

    const ALL: SamplingOptions = SamplingOptions {
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repeat_penalty: 1.0,
        repeat_last_n: 64,
        presence_penalty: 0.0,
        frequency_penalty: 0.0,
    };

    /// Logits with these probabilities.
    fn of(probabilities: &[f32]) -> Vec<f32> {
        probabilities.iter().map(|p| p.ln()).collect()
    }

    fn tokens(options: SamplingOptions, logits: &[f32]) -> Vec<u32> {
        Sampler::new(options, 0).probabilities(logits).into_iter().map(|(token, _)| token).collect()
    }

    #[test]
    fn temperature_zero_and_a_small_nucleus_are_greedy() {
        let logits = [0.0, 3.0, 1.0, 3.0];
        assert_eq!(Sampler::new(SamplingOptions::greedy(), 1).choose(&logits), 1);
        for seed in 0..20 {
            let small = SamplingOptions { top_p: 0.1, ..ALL };
            assert_eq!(Sampler::new(small, seed).choose(&logits), 1);
            let two = SamplingOptions { top_k: 2, ..ALL };
            assert!([1, 3].contains(&Sampler::new(two, seed).choose(&logits)));
        }
    }

    #[test]
    fn each_limit_leaves_the_likeliest() {
        let logits = of(&[0.1, 0.4, 0.05, 0.3, 0.15]);
        assert_eq!(tokens(ALL, &logits), [1, 3, 4, 0, 2]);
        assert_eq!(tokens(SamplingOptions { top_k: 3, ..ALL }, &logits), [1, 3, 4]);
        assert_eq!(tokens(SamplingOptions { top_p: 0.69, ..ALL }, &logits), [1, 3]);
        assert_eq!(tokens(SamplingOptions { top_p: 0.71, ..ALL }, &logits), [1, 3, 4]);
        assert_eq!(tokens(SamplingOptions { min_p: 0.3, ..ALL }, &logits), [1, 3, 4]);
        // Top-p counts among what top-k leaves, before the temperature.
        let both = SamplingOptions { top_k: 2, top_p: 0.56, temperature: 9.0, ..ALL };
        assert_eq!(tokens(both, &logits), [1]);
        let warm = Sampler::new(SamplingOptions { temperature: 2.0, top_k: 2, ..ALL }, 0);
        let ratio = warm.probabilities(&logits)[0].1 / warm.probabilities(&logits)[1].1;
        assert!((ratio - (0.4f64 / 0.3).sqrt()).abs() < 1e-6, "{ratio}");
    }

    #[test]
    fn recent_tokens_are_penalized() {
        let logits = [2.0, -1.0, 1.5, 0.0];
        let choose = |options: SamplingOptions, recent: &[u32]| {
            let mut sampler = Sampler::new(options, 0);
            recent.iter().for_each(|&token| sampler.accept(token));
            sampler.penalized(&logits)
        };
        let repeat = SamplingOptions { repeat_penalty: 2.0, repeat_last_n: 2, ..ALL };
        assert_eq!(choose(repeat, &[3, 0, 1]), Some(vec![1.0, -2.0, 1.5, 0.0]));
        let others = SamplingOptions { presence_penalty: 0.5, frequency_penalty: 0.25, ..ALL };
        assert_eq!(choose(others, &[2, 2, 3]), Some(vec![2.0, -1.0, 0.5, -0.75]));
        assert_eq!(choose(ALL, &[0, 1]), None);
        let mut greedy = Sampler::new(SamplingOptions { temperature: 0.0, ..repeat }, 0);
        assert_eq!([greedy.choose(&logits), greedy.choose(&logits)], [0, 2]);
        greedy.reset();
        assert_eq!(greedy.choose(&logits), 0);
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let logits = [0.0f32, (3.0f32).ln()];
        let mut sampler = Sampler::new(ALL, 5);
        let ones: u32 = (0..4000).map(|_| sampler.choose(&logits)).sum();
        assert!((2890..3110).contains(&ones), "{ones} of 4000 where 3000 are expected");
    }
}
