//! One answer: what the model writes after a text.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::Result;
use crate::commands::report::terminal;
use crate::model::{Sampler, Sequence, Transformer};
use crate::tokenizer::{TextStream, Tokenizer};

/// Tokens of a prompt that are computed in one pass.
const PASS: usize = 256;

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::commands) enum End {
    /// The model ended it.
    Token,
    /// It has as many tokens as were asked for.
    Limit,
    /// It fills the context.
    Context,
    /// Ctrl-C.
    Stopped,
}

impl End {
    /// Its name, as OpenAI's interfaces have it.
    pub(in crate::commands) fn name(self) -> &'static str {
        match self {
            End::Token => "stop",
            End::Limit | End::Context => "length",
            End::Stopped => "cancelled",
        }
    }
}

/// What a model wrote.
#[derive(Clone, Debug)]
pub(in crate::commands) struct Answer {
    pub(in crate::commands) tokens: Vec<u32>,
    pub(in crate::commands) text: String,
    /// How many tokens of the prompt were computed; the others had been before.
    pub(in crate::commands) read: usize,
    pub(in crate::commands) end: End,
}

/// What writes answers.
pub(in crate::commands) struct Writer<'w, 'a> {
    pub(in crate::commands) model: &'w Transformer<'a, f32>,
    pub(in crate::commands) tokenizer: &'w Tokenizer,
    /// The most tokens of an answer.
    pub(in crate::commands) limit: Option<usize>,
    /// The most tokens of prompt and answer.
    pub(in crate::commands) context: usize,
    /// Set when the answer shall end.
    pub(in crate::commands) stop: &'w AtomicBool,
}

impl Writer<'_, '_> {
    /// Answers `prompt`, of which the beginning may have been computed in `sequence`. `show` gets the text as it is
    /// written, and `look` the logits of each token.
    pub(in crate::commands) fn write(
        &self,
        sequence: &mut Sequence<f32>,
        sampler: &mut Sampler,
        prompt: &[u32],
        mut look: impl FnMut(&[f32]),
        mut show: impl FnMut(&str) -> Result<()>,
    ) -> Result<Answer> {
        let known = sequence.rewind(self.model, prompt);
        let mut answer = Answer { tokens: Vec::new(), text: String::new(), read: 0, end: End::Token };
        sampler.reset();
        prompt.iter().for_each(|&token| sampler.accept(token));
        // Nobody reads what a closed pipe gets.
        let stopped = || self.stop.load(Ordering::Relaxed) || terminal::is_closed();
        let mut logits = None;
        for part in prompt[known..].chunks(PASS) {
            if stopped() {
                return Ok(Answer { end: End::Stopped, ..answer });
            }
            logits = Some(sequence.read(self.model, part)?);
            answer.read += part.len();
        }
        let mut stream = TextStream::new(self.tokenizer);
        answer.end = loop {
            let Some(row) = logits.as_ref().and_then(|logits| logits.as_slice()) else { break End::Token };
            if self.limit.is_some_and(|limit| answer.tokens.len() >= limit) {
                break End::Limit;
            }
            if sequence.tokens().len() >= self.context {
                break End::Context;
            }
            if stopped() {
                break End::Stopped;
            }
            look(row);
            let token = sampler.choose(row);
            if self.tokenizer.is_end(token) {
                break End::Token;
            }
            answer.tokens.push(token);
            let new = stream.push(token);
            if !new.is_empty() {
                show(&new)?;
            }
            answer.text += &new;
            // The last token's logits are not needed.
            let more = self.limit.is_none_or(|limit| answer.tokens.len() < limit);
            if more {
                logits = Some(sequence.read(self.model, &[token])?);
            }
        };
        let rest = stream.finish();
        show(&rest)?;
        answer.text += &rest;
        Ok(answer)
    }
}
