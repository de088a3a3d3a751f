//! The anchor: texts that say what the base model knows, so that training can keep it.
//!
//! By default the model writes them itself: sampling at a temperature of 1 turns what it knows into
//! examples, so no data is asked of the user. Each text begins with BOS, if the tokenizer adds one, and a
//! token drawn uniformly from the vocabulary. A chat model writes a quarter of its texts through its template,
//! since that is how it is asked: from the beginning of a user's turn it writes a question (Xu et al. 2024,
//! Magpie, arXiv 2406.08464) and then an answer.

pub mod budget;
mod labels;
mod stored;
mod written;

use super::data::Example;
use crate::chat::ChatTemplate;
use crate::model::{Batch, Transformer};
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

pub use labels::backward_with_sampled_labels;
pub use written::{AnchorOptions, Prompts};

/// Texts of the base model's own distribution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// The texts, of at least two tokens. What is given, such as the header of a chat, is not predicted.
    pub texts: Vec<Example>,
}

impl Anchor {
    /// Texts that `model` writes, by [`AnchorOptions`]. Keys, values and weights packed for products take
    /// at most `memory` bytes; the texts do not depend on it. `progress` gets the number of tokens written
    /// and to write.
    ///
    /// # Errors
    /// A chat template that cannot be rendered.
    pub fn self_written(
        model: &mut Transformer<'_, f32>,
        tokenizer: &Tokenizer,
        template: Option<&ChatTemplate>,
        options: &AnchorOptions,
        memory: u64,
        progress: impl FnMut(usize, usize),
    ) -> Result<Self> {
        Ok(Prompts::new(model, tokenizer, template, options)?.write(model, memory, progress))
    }

    /// Pieces of a text, of [`AnchorOptions::length`] tokens each, spread evenly over it; fewer than
    /// [`AnchorOptions::texts`] if it is short.
    ///
    /// # Errors
    /// A text that cannot be tokenized, or that is shorter than one piece.
    pub fn from_text(tokenizer: &Tokenizer, text: &str, options: &AnchorOptions) -> Result<Self> {
        let tokens = tokenizer.encode_ordinary(text, false)?;
        let pieces: Vec<&[u32]> = tokens.chunks_exact(options.length).collect();
        if pieces.is_empty() {
            let problem = format!("{} tokens are less than one piece of {}", tokens.len(), options.length);
            return Err(Error::request(problem, "give a longer text"));
        }
        let count = options.texts.min(pieces.len());
        let bos = tokenizer.bos().filter(|_| tokenizer.adds_bos());
        let texts = (0..count).map(|i| {
            let mut text = pieces[i * pieces.len() / count].to_vec();
            if let Some(bos) = bos {
                text[0] = bos;
            }
            let loss_mask = (0..text.len()).map(|i| i > 0).collect();
            Example { tokens: text, loss_mask }
        });
        Ok(Self { texts: texts.collect() })
    }

    /// The texts as batches of whole texts of at most `max_tokens` tokens (but at least one text).
    pub fn batches(&self, max_tokens: usize) -> Vec<Batch> {
        let mut batches: Vec<Batch> = Vec::new();
        for text in &self.texts {
            let full =
                batches.last().is_none_or(|batch| batch.tokens().len() + text.tokens.len() > max_tokens);
            if full {
                batches.push(Batch::default());
            }
            if let Some(batch) = batches.last_mut() {
                batch.push(&text.tokens, &text.loss_mask);
            }
        }
        batches
    }
}
