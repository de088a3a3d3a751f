//! `curmerge run`: continue a text.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::arguments::{AdapterArgs, TemplateArgs};
use crate::base::Base;
use crate::chat::{ChatError, Message};
use crate::commands::report::terminal;
use crate::model::{Generator, Sampler};
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

/// Options of `curmerge run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Base model: a GGUF file, a Hugging Face folder, an ONNX file, or `ollama:NAME[:TAG]`.
    pub base: PathBuf,
    /// The adapters to apply.
    #[command(flatten)]
    pub adapters: AdapterArgs,
    /// The text to continue.
    #[arg(short, long, value_name = "TEXT")]
    pub prompt: String,
    /// Put the prompt into the model's chat template, as a user's message.
    #[arg(long)]
    pub chat: bool,
    /// How a chat becomes text.
    #[command(flatten)]
    pub template: TemplateArgs,
    /// Upper limit of the tokens to write.
    #[arg(short = 'n', long, default_value_t = 64)]
    pub max_tokens: usize,
    /// 0 always takes the likeliest token. Higher values make less likely tokens likelier.
    #[arg(long, default_value_t = 0.0)]
    pub temperature: f32,
    /// Draw from this number of the likeliest tokens; 0 for all.
    #[arg(long, default_value_t = 40)]
    pub top_k: usize,
    /// Draw from the likeliest tokens that together have this share of the probability.
    #[arg(long, default_value_t = 0.95)]
    pub top_p: f32,
    /// With --json: print the natural log-probabilities of the N likeliest tokens at each position.
    #[arg(long, default_value_t = 0, value_name = "N", requires = "json")]
    pub logprobs: usize,
    /// Seed of the draws.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

/// Prints the continuation of the prompt token by token; with `json`, at the end.
pub fn run(args: &RunArgs, json: bool) -> Result<()> {
    let usable =
        args.temperature >= 0.0 && args.temperature.is_finite() && args.top_p > 0.0 && args.top_p <= 1.0;
    if !usable {
        return Err(Error::request(
            format!("temperature {} or top-p {} cannot be used", args.temperature, args.top_p),
            "give a temperature from 0 up, and a share above 0 and at most 1",
        ));
    }
    let mut base = super::open(&args.base)?;
    if args.chat {
        args.template.apply(&mut base)?;
    } else {
        args.template.must_be_unused("--chat")?;
    }
    answer(args, &base, json).map_err(|error| super::not_finite::explained(error, &base))
}

fn answer(args: &RunArgs, base: &Base, json: bool) -> Result<()> {
    let tokenizer = base.tokenizer()?;
    let mut model = super::adapted_model(base, &args.adapters)?;
    let prompt = prompt_tokens(args, base, &tokenizer)?;
    let context = base.config().context;
    if prompt.len() >= context {
        let problem = format!("the prompt has {} tokens, and the model's context {context}", prompt.len());
        return Err(Error::request(problem, "give a shorter prompt"));
    }
    model.for_context(context.min(prompt.len().saturating_add(args.max_tokens)))?;
    let mut sampler = Sampler::new(args.temperature, args.top_k, args.top_p, args.seed);
    let mut generator = Generator::new(&model);
    let (mut written, mut likeliest) = (Vec::new(), Vec::new());
    let mut shown = 0;
    let mut logits = generator.read(&prompt)?;
    while written.len() < args.max_tokens && generator.len() < context {
        let row = logits.as_slice().expect("one row of logits");
        let token = sampler.choose(row);
        if args.logprobs > 0 {
            likeliest.push(log_probs(row, args.logprobs));
        }
        if tokenizer.is_end(token) {
            break;
        }
        written.push(token);
        let text = tokenizer.decode(&written);
        // A token may end within a character, which decodes to U+FFFD until the next token completes it.
        if !json && !text.ends_with(char::REPLACEMENT_CHARACTER) {
            terminal::print_written(&text[shown..])?;
            shown = text.len();
        }
        if written.len() < args.max_tokens {
            logits = generator.read(&[token])?;
        }
    }
    let text = tokenizer.decode(&written);
    if json {
        return terminal::print_json(&json!({
            "prompt_tokens": prompt, "tokens": written, "text": text, "logprobs": likeliest,
        }));
    }
    terminal::print_written(&text[shown..])?;
    terminal::print("\n")
}

fn prompt_tokens(args: &RunArgs, base: &Base, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
    let tokens = if args.chat {
        let template = base.chat_template(tokenizer)?.ok_or(ChatError::NoTemplate)?;
        template.encode(tokenizer, &[Message::new("user", &args.prompt)], true)?
    } else {
        tokenizer.encode_with_bos(&args.prompt)?
    };
    if tokens.is_empty() {
        return Err(Error::request("the prompt has no tokens", "give some text with -p"));
    }
    Ok(tokens)
}

/// The `count` likeliest tokens and their natural log-probabilities, the likeliest first.
fn log_probs(logits: &[f32], count: usize) -> Vec<(usize, f64)> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&x| f64::from(x - max).exp()).sum();
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    order.into_iter().take(count).map(|i| (i, f64::from(logits[i] - max) - sum.ln())).collect()
}
