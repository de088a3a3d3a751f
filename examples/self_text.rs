//! Prints texts that a base model writes itself, as the anchor of `--protect` has them: up to 128 tokens
//! each, sampled at a temperature of 1. A quarter of a chat model's are questions and answers through its template.
//!
//! `cargo run --release --example self_text -- BASE.gguf SEED TEXTS`

#![allow(clippy::print_stdout, reason = "this program talks to a terminal")]

use curmerge::train::anchor::{Anchor, AnchorOptions};
use curmerge::{Base, Error, Result, Transformer};

/// Memory for keys, values and packed weights, in bytes.
const MEMORY: u64 = 1 << 30;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let usage =
        || Error::request("three arguments are needed", "give BASE SEED TEXTS, the last two as numbers");
    let [base, seed, texts] = &arguments[..] else { return Err(usage()) };
    let (Ok(seed), Ok(texts)) = (seed.parse(), texts.parse()) else { return Err(usage()) };
    let base = Base::open(base)?;
    let tokenizer = base.tokenizer()?;
    let template = base.chat_template(&tokenizer)?;
    let options = AnchorOptions { texts, seed, ..AnchorOptions::default() };
    let mut model = Transformer::new(&base)?;
    model.for_context(options.length)?;
    let template = template.as_ref();
    let anchor = Anchor::self_written(&mut model, &tokenizer, template, &options, MEMORY, |_, _| ())?;
    // Whoever reads the texts adds it again.
    let bos = tokenizer.bos().filter(|_| tokenizer.adds_bos());
    for text in &anchor.texts {
        let begins = bos.is_some() && text.tokens.first() == bos.as_ref();
        println!("{}\n", tokenizer.decode(&text.tokens[usize::from(begins)..]));
    }
    Ok(())
}
