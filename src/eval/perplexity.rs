//! Perplexity as llama.cpp's llama-perplexity counts it.
//!
//! The text is cut into chunks of `ctx` tokens that do not overlap, a rest is left out; the first token of a
//! chunk is replaced by BOS where the model's tokenizer adds one; only the second half of each chunk counts,
//! so that every prediction has at least `ctx / 2` tokens before it. Control tokens' texts within the text
//! are text as any other.

use serde::Serialize;

use crate::kernels::Real;
use crate::model::{Batch, Transformer};
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

/// Tokens that go through the model at a time, in whole chunks.
const MAX_TOKENS: usize = 1024;

/// A perplexity and how sure it is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Perplexity {
    /// exp of the mean negative log-probability.
    pub perplexity: f64,
    /// Standard error of `perplexity`, from the spread of single predictions.
    pub standard_error: f64,
    /// Mean negative log-probability, nats a token.
    pub loss: f64,
    /// Predictions that were counted.
    pub predictions: usize,
    /// Chunks that were read.
    pub chunks: usize,
}

/// The perplexity of `text` over its first `max_chunks` chunks (all if `None`) of `ctx` tokens. `progress`
/// gets the number of chunks done and of all. Fails when the text is shorter than one chunk or `ctx` is under
/// 4.
pub fn perplexity<T: Real>(
    model: &Transformer<'_, T>,
    tokenizer: &Tokenizer,
    text: &str,
    ctx: usize,
    max_chunks: Option<usize>,
    mut progress: impl FnMut(usize, usize),
) -> Result<Perplexity> {
    if ctx < 4 {
        return Err(Error::request(format!("a context of {ctx} tokens has no second half"), "use 512"));
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
