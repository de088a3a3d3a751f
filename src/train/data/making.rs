//! The examples of a record: tokens and their loss mask.

use std::borrow::Cow;
use std::path::Path;

use rayon::prelude::*;

use super::records::{Record, Row};
use super::{DataOptions, Example, Problem, nothing_to_learn};
use crate::Error;
use crate::chat::{self, ChatError, ChatTemplate, Conversation, MaskedTokens};
use crate::tokenizer::Tokenizer;

/// The example without the first token as a target, since nothing predicts it; `None` if no target remains.
pub(super) fn learnable(mut example: Example) -> Option<Example> {
    if let Some(first) = example.loss_mask.first_mut() {
        *first = false;
    }
    example.loss_mask.contains(&true).then_some(example)
}

/// The examples of each record of a part, and whether each was cut short.
pub(super) fn all(
    path: &Path,
    records: Vec<(usize, Row)>,
    tokenizer: &Tokenizer,
    template: Option<&ChatTemplate>,
    options: &DataOptions,
) -> Result<Vec<Vec<(Example, bool)>>, Error> {
    // Collected in order first: which of several errors is reported must not depend on the threads.
    let made: Vec<_> = records
        .into_par_iter()
        .map(|(line, row)| (line, examples(row.record, tokenizer, template, options)))
        .collect();
    made.into_iter().map(|(line, made)| made.map_err(|problem| problem.at(path, line))).collect()
}

/// The conversation as the template can render it: with texts in place of lists of texts, if it drops or
/// misunderstands the lists.
pub(super) fn readable<'c>(conversation: &'c Conversation, template: &ChatTemplate) -> Cow<'c, Conversation> {
    let Some(joined) = conversation.with_joined_texts() else { return Cow::Borrowed(conversation) };
    let words = |conversation: &Conversation| {
        let text = template.render_with(&conversation.messages, &conversation.variables, false);
        text.ok().map(|text| text.split_whitespace().collect::<String>())
    };
    let (own, plain) = (words(conversation), words(&joined));
    if plain.is_none() || own == plain { Cow::Borrowed(conversation) } else { Cow::Owned(joined) }
}

/// The examples of a record, and whether each was cut short. A conversation may make several; see
/// [`chat::tokenize`].
pub(super) fn examples(
    record: Record,
    tokenizer: &Tokenizer,
    template: Option<&ChatTemplate>,
    options: &DataOptions,
) -> Result<Vec<(Example, bool)>, Problem> {
    let max = options.max_seq_len;
    match record.asked(template.is_some()) {
        Record::Text(text) => {
            let mut tokens = tokenizer.encode_with_bos(&text)?;
            let append_eos = options.append_eos || tokenizer.adds_eos();
            end(&mut tokens, tokenizer, append_eos);
            let loss_mask = vec![true; tokens.len()];
            Ok(vec![keep_start(Example { tokens, loss_mask }, max)])
        }
        Record::Chat(conversation) => {
            let template = template.ok_or(ChatError::NoTemplate)?;
            let made =
                chat::tokenize(&readable(&conversation, template), template, tokenizer, options.append_eos)?;
            let example = |MaskedTokens { tokens, loss_mask }| Example { tokens, loss_mask };
            Ok(made.into_iter().map(|made| keep_start(example(made), max)).collect())
        }
        Record::Exchange { question: prompt, answer: completion, .. }
        | Record::Pair { prompt, completion, .. } => {
            let prompt = tokenizer.encode_with_bos(&prompt)?;
            let mut completion = tokenizer.encode_after(&prompt, &completion)?;
            end(&mut completion, tokenizer, options.append_eos);
            Ok(vec![keep_end(prompt, completion, tokenizer, max)])
        }
    }
}

/// Ends a text that does not end yet.
fn end(tokens: &mut Vec<u32>, tokenizer: &Tokenizer, append_eos: bool) {
    if let (true, Some(eos)) = (append_eos, tokenizer.eos())
        && tokens.last() != Some(&eos)
    {
        tokens.push(eos);
    }
}

fn keep_start(mut example: Example, max: usize) -> (Example, bool) {
    let cut = example.tokens.len() > max;
    example.tokens.truncate(max);
    example.loss_mask.truncate(max);
    (example, cut)
}

/// Joins prompt and completion. If they are too long, the prompt loses its start after BOS, down to one
/// token; then the completion loses its end.
fn keep_end(
    mut prompt: Vec<u32>,
    mut completion: Vec<u32>,
    tokenizer: &Tokenizer,
    max: usize,
) -> (Example, bool) {
    let cut = prompt.len() + completion.len() > max;
    if cut {
        let bos = usize::from(tokenizer.adds_bos()).min(prompt.len());
        let min_prompt = bos.max(1).min(prompt.len());
        let keep = max.saturating_sub(completion.len()).max(min_prompt).min(prompt.len());
        prompt.drain(bos..bos + prompt.len() - keep);
        completion.truncate(max - prompt.len());
    }
    let mut loss_mask = vec![false; prompt.len()];
    loss_mask.resize(prompt.len() + completion.len(), true);
    prompt.append(&mut completion);
    (Example { tokens: prompt, loss_mask }, cut)
}

/// A plain text as windows; see [`Dataset::read`](super::Dataset::read).
pub(super) fn windows(
    text: &str,
    tokenizer: &Tokenizer,
    options: &DataOptions,
) -> Result<Vec<Example>, Problem> {
    let mut tokens = tokenizer.encode_after(&[], text)?;
    end(&mut tokens, tokenizer, options.append_eos);
    let bos = tokenizer.bos().filter(|_| tokenizer.adds_bos());
    // A window is one token of context and up to this many targets.
    let step = options.max_seq_len - 1;
    let (mut context, rest) = match (bos, tokens.split_first()) {
        (Some(bos), _) => (bos, &tokens[..]),
        (None, Some((&first, rest))) => (first, rest),
        (None, None) => return Ok(Vec::new()),
    };
    let mut examples = Vec::with_capacity(rest.len() / step + 1);
    for chunk in rest.chunks(step) {
        let mut window = Vec::with_capacity(chunk.len() + 1);
        window.push(context);
        window.extend_from_slice(chunk);
        let mut loss_mask = vec![true; window.len()];
        loss_mask[0] = false;
        if let (None, Some(&last)) = (bos, chunk.last()) {
            context = last;
        }
        examples.push(Example { tokens: window, loss_mask });
    }
    Ok(examples)
}

/// The first window of a plain text.
pub(super) fn first_window(
    path: &Path,
    all: &str,
    tokenizer: &Tokenizer,
    options: &DataOptions,
) -> Result<(Example, bool), Error> {
    // Far more text than fills a window, so the cut changes none of its tokens.
    let max_bytes = options.max_seq_len.saturating_mul(64).min(all.len());
    let part = (0..=max_bytes).rev().find(|&at| all.is_char_boundary(at)).unwrap_or(0);
    for text in [&all[..part], all] {
        let made = windows(text, tokenizer, options);
        let made = made.map_err(|problem| Error::file(path, problem.problem, problem.help))?;
        let is_full = |first: &Example| first.tokens.len() == options.max_seq_len;
        if let Some(first) = made.into_iter().next().filter(|first| is_full(first) || all == text) {
            return Ok((first, false));
        }
    }
    Err(nothing_to_learn(path))
}
