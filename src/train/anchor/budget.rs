//! How much work the anchor may take. It is counted in parameters times tokens, never in seconds, so that
//! the same command gives the same bytes on every machine.

use super::AnchorOptions;
use crate::train::signal;

/// What the anchor may always take, in parameters times tokens: a minute of SmolLM2-135M on two cores with
/// AVX-512 BF16.
const MINUTE: f64 = 1.1e13;
/// The share of the training's own work that the anchor may take, where that is more.
const SHARE: f64 = 0.2;
/// The fewest texts. With fewer, samples say little about a matrix.
const FEWEST: usize = 32;

/// The passes of a text that the model writes. Passes forward and backward count alike: a backward pass
/// takes no gradients of weights.
pub const WRITING: usize = 1;
/// The passes of a text for the [Fisher information](crate::train::fisher).
pub const FISHER: usize = 2;
/// The passes of a text or an example for a [selection by signal](crate::train::signal), which reads twice.
const SELECTION: usize = 4;

/// The most texts on which a run measures what it forgot, and the fewest.
const MEASURED: [usize; 2] = [32, 8];
/// One token is measured for this many that are trained.
const TRAINED_EACH: u64 = 10;

/// The number of texts of `length` tokens on which a run measures what it forgot, if this many tokens go
/// through the model in training.
pub fn texts_to_measure(training_tokens: u64, length: usize) -> usize {
    let [most, fewest] = MEASURED;
    let texts = training_tokens / TRAINED_EACH / length.max(1) as u64;
    usize::try_from(texts).unwrap_or(most).clamp(fewest, most)
}

/// The work that the anchor may take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// Tokens times passes.
    tokens: f64,
}

impl Budget {
    /// For a model whose tokens are multiplied with this many `parameters`, and a run in which this many
    /// tokens go through the model, forward and backward.
    pub fn new(parameters: u64, training_tokens: u64) -> Self {
        let minute = MINUTE / parameters.max(1) as f64;
        Self { tokens: minute.max(SHARE * 2.0 * training_tokens as f64) }
    }

    /// The number of texts of `length` tokens that may make these passes, at most the default of
    /// [`AnchorOptions::texts`].
    pub fn texts(&self, length: usize, passes: usize) -> usize {
        let texts = self.tokens / (length * passes).max(1) as f64;
        (texts as usize).clamp(FEWEST, AnchorOptions::default().texts)
    }

    /// [`Self::texts`] beside a selection by signal that reads this many tokens of examples.
    pub fn texts_with_selection(&self, length: usize, passes: usize, example_tokens: usize) -> usize {
        let reading = SELECTION * (signal::TEXTS * length + example_tokens);
        let rest = Self { tokens: (self.tokens - reading as f64).max(0.0) };
        let all = rest.texts(length, passes);
        // With fewer texts, the selection reads all of them, and as many tokens of examples.
        if all >= signal::TEXTS { all } else { self.texts(length, passes + 2 * SELECTION).min(signal::TEXTS) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn larger_models_write_fewer_texts_and_longer_runs_more() {
        let texts = |parameters, tokens| Budget::new(parameters, tokens).texts(128, 3);
        assert_eq!(texts(135_000_000, 0), 212);
        assert_eq!(texts(1_000_000, 0), 400);
        assert_eq!(texts(500_000_000, 0), 57);
        assert_eq!(texts(7_000_000_000, 0), 32);
        assert_eq!(texts(7_000_000_000, 100_000), 104);
        assert_eq!(texts(7_000_000_000, u64::MAX), 400);
        assert_eq!(Budget::new(0, 0).texts(0, 0), 400);
    }

    #[test]
    fn a_short_run_measures_less() {
        for (tokens, texts) in [(0, 8), (20_000, 15), (30_000, 23), (u64::MAX, 32)] {
            assert_eq!(texts_to_measure(tokens, 128), texts, "{tokens}");
        }
    }

    #[test]
    fn a_selection_takes_its_part() {
        let texts = |parameters| Budget::new(parameters, 0).texts_with_selection(128, 3, 1850);
        assert_eq!(texts(1_000_000), 400);
        // (1.1e13 / 1.345e8 - 4 (50 * 128 + 1,850)) / (3 * 128) = 127.05
        assert_eq!(texts(134_500_000), 127);
        assert_eq!(texts(300_000_000), 32);
        assert_eq!(texts(7_000_000_000), 32);
    }
}
