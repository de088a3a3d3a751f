//! Perplexity as llama.cpp's llama-perplexity computes it.
//!
//! The text is divided into chunks of `ctx` tokens that do not overlap. The rest is left out. BOS replaces the
//! first token of a chunk if the model's tokenizer adds it to a text. Only the second half of each chunk
//! counts, so every counted prediction has at least `ctx / 2` tokens before it. The texts of control tokens
//! are ordinary text.

use serde::Serialize;

use crate::kernels::Real;
use crate::model::{Batch, Transformer};
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

/// Tokens that go through the model at a time, in whole chunks.
const MAX_TOKENS: usize = 1024;

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
    if ctx < 4 {
        let problem = format!("chunks of {ctx} tokens are too short for perplexity");
        return Err(Error::request(problem, "use 512"));
    }
    let tokens = tokenizer.encode_ordinary(text, true)?;
    let chunks = (tokens.len() / ctx).min(max_chunks.unwrap_or(usize::MAX));
    if chunks == 0 {
        return Err(Error::request(
            format!("the text has {} tokens, fewer than one chunk of {ctx}", tokens.len()),
            "give a longer text or a smaller context",
        ));
    }
    let first_token = tokenizer.bos().filter(|_| tokenizer.adds_bos());
    let counted: Vec<bool> = (0..ctx).map(|i| i > ctx / 2).collect();
    let mut log_probs = Vec::with_capacity(chunks * (ctx / 2));
    let all: Vec<&[u32]> = tokens.chunks_exact(ctx).take(chunks).collect();
    for (pass, group) in all.chunks((MAX_TOKENS / ctx).max(1)).enumerate() {
        let mut batch = Batch::default();
        for chunk in group {
            let mut chunk = chunk.to_vec();
            if let Some(bos) = first_token {
                chunk[0] = bos;
            }
            batch.push(&chunk, &counted);
        }
        log_probs.extend(model.log_probs(&batch));
        progress((pass * (MAX_TOKENS / ctx).max(1) + group.len()).min(chunks), chunks);
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
