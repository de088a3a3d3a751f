//! Perplexity as llama.cpp's llama-perplexity computes it,
//! over [`Chunks`] of the text.

use serde::Serialize;

use super::Chunks;
use crate::Result;
use crate::kernels::Real;
use crate::model::Transformer;
use crate::tokenizer::Tokenizer;

/// A perplexity and its standard error.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Perplexity {
    /// `exp(loss)`.
    pub perplexity: f64,
    /// Standard error of `perplexity`, from the variance of single log-probabilities.
    pub standard_error: f64,
    /// Mean negative log-probability, nats a token.
    pub loss: f64,
    /// Number of predictions that count.
    pub predictions: usize,
    /// Number of chunks.
    pub chunks: usize,
}

/// The perplexity of `text` over its first `max_chunks` chunks, or over all if `None`.
///
/// `ctx` is the number of tokens in a chunk, at least 4. Perplexities compare only at equal `ctx`;
/// llama-perplexity's default is 512. `progress` gets the number of finished chunks, and of all.
///
/// For a model with LongRoPE or learned positions, call [`Transformer::for_context`] with `ctx` first; it
/// says what happens otherwise. Other models need no call.
///
/// # Errors
/// A text shorter than one chunk; `ctx` under 4; a text that cannot be tokenized.
pub fn perplexity<T: Real>(
    model: &Transformer<'_, T>,
    tokenizer: &Tokenizer,
    text: &str,
    ctx: usize,
    max_chunks: Option<usize>,
    mut progress: impl FnMut(usize, usize),
) -> Result<Perplexity> {
    let Chunks { batches, chunks } = Chunks::new(tokenizer, text, ctx, max_chunks)?;
    let (mut log_probs, mut done) = (Vec::with_capacity(chunks * (ctx / 2)), 0);
    for batch in &batches {
        log_probs.extend(model.log_probs(batch));
        done += batch.sequences().len();
        progress(done, chunks);
    }
    Ok(summary(&log_probs, chunks))
}

fn summary(log_probs: &[f64], chunks: usize) -> Perplexity {
    let count = log_probs.len() as f64;
    let loss = -log_probs.iter().sum::<f64>() / count;
    let variance = log_probs.iter().map(|l| (l + loss) * (l + loss)).sum::<f64>() / (count - 1.0).max(1.0);
    let perplexity = loss.exp();
    Perplexity {
        perplexity,
        standard_error: perplexity * (variance / count).sqrt(),
        loss,
        predictions: log_probs.len(),
        chunks,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fair_coin_has_perplexity_two() {
        let p = summary(&[0.5f64.ln(); 10], 1);
        assert!((p.perplexity - 2.0).abs() < 1e-12 && p.standard_error < 1e-9);
        assert_eq!((p.predictions, p.chunks), (10, 1));
    }
}
