//! A text in chunks, as llama.cpp's llama-perplexity reads it.
//!
//! Chunks have `ctx` tokens and do not overlap. The rest is left out. BOS replaces the first token of a
//! chunk if the model's tokenizer adds it to a text. Only the second half of each chunk counts, so every
//! counted prediction has at least `ctx / 2` tokens before it. The texts of control tokens are ordinary
//! text.

use crate::model::Batch;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

/// Tokens that go through the model at a time, in whole chunks.
const MAX_TOKENS: usize = 1024;

/// The chunks of a text, as batches that go through the model one by one.
#[derive(Clone, Debug)]
pub struct Chunks {
    /// The chunks' predictions, in order.
    pub batches: Vec<Batch>,
    /// The number of chunks.
    pub chunks: usize,
}

impl Chunks {
    /// The first `max_chunks` chunks (all if `None`) of `ctx` tokens.
    ///
    /// # Errors
    /// A text shorter than one chunk; `ctx` under 4; a text that cannot be tokenized.
    pub fn new(tokenizer: &Tokenizer, text: &str, ctx: usize, max_chunks: Option<usize>) -> Result<Self> {
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
        let predicted: Vec<bool> = (0..ctx).map(|i| i > ctx / 2).collect();
        let all: Vec<&[u32]> = tokens.chunks_exact(ctx).take(chunks).collect();
        let groups = all.chunks((MAX_TOKENS / ctx).max(1));
        let batches = groups.map(|group| {
            let mut batch = Batch::default();
            for chunk in group {
                let mut chunk = chunk.to_vec();
                if let Some(bos) = first_token {
                    chunk[0] = bos;
                }
                batch.push(&chunk, &predicted);
            }
            batch
        });
        Ok(Self { batches: batches.collect(), chunks })
    }
}
