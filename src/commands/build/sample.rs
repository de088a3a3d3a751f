//! `curmerge build --show-sample`: the first example as the model will see it.

use std::io::IsTerminal;

use serde_json::json;

use super::BuildArgs;
use crate::Result;
use crate::base::Base;
use crate::commands::report::terminal;
use crate::tokenizer::Tokenizer;
use crate::train::data::{self, Dataset, Example};

/// Marks around target tokens in a pipe.
const BRACKETS: [&str; 2] = ["«", "»"];
/// Marks around target tokens on a terminal: reverse video.
const REVERSE: [&str; 2] = ["\u{1b}[7m", "\u{1b}[27m"];

/// Prints the first example as it is trained, with its target tokens marked.
pub(super) fn run(args: &BuildArgs, base: &Base, json: bool) -> Result<()> {
    let tokenizer = &base.tokenizer()?;
    let template = base.chat_template(tokenizer)?;
    let options = args.examples.options(base);
    let first = data::files(&args.data)?.swap_remove(0);
    let (example, is_cut) = Dataset::first(first, tokenizer, template.as_ref(), &options)?;
    let loss = example.loss_mask.iter().filter(|&&target| target).count();
    if json {
        return terminal::print_json(&json!({
            "text": tokenizer.decode(&example.tokens),
            "tokens": example.tokens,
            "loss": example.loss_mask,
            "loss_tokens": loss,
            "cut": is_cut,
        }));
    }
    let [begin, end] = marks();
    let cut = if is_cut { ", cut to --max-seq-len" } else { "" };
    let tokens = example.tokens.len();
    let mut text = marked(&example, tokenizer, begin, end);
    text += &format!("\n\nfirst example: {tokens} tokens, loss on {loss} between {begin} and {end}{cut}\n");
    terminal::print(&text)
}

/// What stands before and after target tokens.
pub(in crate::commands) fn marks() -> [&'static str; 2] {
    if std::io::stdout().is_terminal() { REVERSE } else { BRACKETS }
}

/// The text of the example with its target tokens between `begin` and `end`. Line breaks stay; other control
/// characters are escaped.
pub(in crate::commands) fn marked(
    example: &Example,
    tokenizer: &Tokenizer,
    begin: &str,
    end: &str,
) -> String {
    let mut out = String::new();
    let mut from = 0;
    for run in example.loss_mask.chunk_by(|a, b| a == b) {
        // The bytes of a run are decoded together, since a character may be several tokens.
        let tokens = &example.tokens[from..from + run.len()];
        let bytes: Vec<u8> = tokens.iter().flat_map(|&token| tokenizer.token_bytes(token)).collect();
        let text = String::from_utf8_lossy(&bytes);
        let shown: Vec<String> = text.split('\n').map(terminal::plain).collect();
        let shown = shown.join("\n");
        out += &if run[0] { format!("{begin}{shown}{end}") } else { shown };
        from += run.len();
    }
    out
}
