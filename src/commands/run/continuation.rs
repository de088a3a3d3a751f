//! `curmerge run -p`: continue a text.

use std::io::Read;
use std::sync::atomic::AtomicBool;

use serde_json::json;

use super::RunArgs;
use super::answer::Writer;
use crate::base::Base;
use crate::chat::{ChatError, Message};
use crate::commands::report::terminal;
use crate::model::Sequence;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

/// The number of tokens that are written if none is given.
const TOKENS: usize = 64;
/// The greatest length of a prompt on standard input, in bytes.
const MAX_PROMPT: u64 = 64 << 20;

/// Prints the continuation token by token; with `json`, at the end.
pub(super) fn run(args: &RunArgs, prompt: &str, base: &Base, json: bool) -> Result<()> {
    let tokenizer = base.tokenizer()?;
    let mut model = args.model(base, &args.adapters)?;
    let prompt = prompt_tokens(args, prompt, base, &tokenizer)?;
    let context = args.context(base.config())?;
    if prompt.len() >= context {
        let problem = format!("the prompt has {} tokens, and the context {context}", prompt.len());
        return Err(Error::request(problem, "give a shorter prompt"));
    }
    let limit = args.limit(Some(TOKENS));
    model.for_context(limit.map_or(context, |limit| context.min(prompt.len().saturating_add(limit))))?;
    let stop = AtomicBool::new(false);
    let writer = Writer { model: &model, tokenizer: &tokenizer, limit, context, stop: &stop };
    let mut likeliest = Vec::new();
    let look = |row: &[f32]| {
        if args.logprobs > 0 {
            likeliest.push(log_probs(row, args.logprobs));
        }
    };
    let show = |text: &str| if json { Ok(()) } else { terminal::print_written(text) };
    let mut sampler = args.sampling.sampler(false);
    let answer = writer.write(&mut Sequence::new(&model), &mut sampler, &prompt, look, show)?;
    if json {
        return terminal::print_json(&json!({
            "prompt_tokens": prompt, "tokens": answer.tokens, "text": answer.text, "logprobs": likeliest,
        }));
    }
    terminal::print("\n")
}

fn prompt_tokens(args: &RunArgs, prompt: &str, base: &Base, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
    let given = if prompt == "-" { Some(standard_input()?) } else { None };
    let prompt = given.as_deref().unwrap_or(prompt);
    let tokens = if args.chat {
        let template = base.chat_template(tokenizer)?.ok_or(ChatError::NoTemplate)?;
        template.encode(tokenizer, &[Message::new("user", prompt)], true)?
    } else {
        tokenizer.encode_with_bos(prompt)?
    };
    if tokens.is_empty() {
        return Err(Error::request("the prompt has no tokens", "give some text with -p"));
    }
    Ok(tokens)
}

/// All of standard input, without the line break at its end.
fn standard_input() -> Result<String> {
    let mut text = String::new();
    let failed = |e| Error::io("standard input", "read", e);
    std::io::stdin().lock().take(MAX_PROMPT + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_PROMPT {
        let problem = format!("the prompt on standard input has more than {} MiB", MAX_PROMPT >> 20);
        return Err(Error::request(problem, "give a shorter prompt"));
    }
    let end =
        text.strip_suffix('\n').map_or(text.len(), |text| text.strip_suffix('\r').unwrap_or(text).len());
    text.truncate(end);
    Ok(text)
}

/// The `count` likeliest tokens and their natural log-probabilities, the likeliest first.
fn log_probs(logits: &[f32], count: usize) -> Vec<(usize, f64)> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&x| f64::from(x - max).exp()).sum();
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    order.into_iter().take(count).map(|i| (i, f64::from(logits[i] - max) - sum.ln())).collect()
}
