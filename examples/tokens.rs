//! Writes the tokens of texts as JSON lines {"text", "ids", "ordinary"}, for `tests/scripts/tokens.py` to
//! compare with llama.cpp's:
//!
//! `cargo run --release --example tokens -- MODEL FILE... > TOKENS.jsonl`
//!
//! `ordinary` are the ids with control tokens' texts as ordinary text. MODEL is a GGUF file or a Hugging Face
//! folder. A JSONL file gives the strings of each object, and prompt and completion joined. Any other file
//! gives its whole text and each line. Strings that are hard to tokenize are always added.

#![allow(clippy::print_stderr, reason = "this program talks to a terminal")]

use std::error::Error;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Instant;

use curmerge::tokenizer::Tokenizer;
use curmerge_formats::gguf::Gguf;
use serde_json::{Value, json};

/// Texts on which tokenizers differ: runs of white space, digits, scripts, marks, emoji, special tokens
/// within a text.
const HARD: &str = include_str!("../fixtures/tokenizer/hard.jsonl");

fn long() -> Vec<String> {
    vec![
        "a".repeat(20_000),
        " ".repeat(20_000),
        format!("{}x", " ".repeat(5_000)),
        "\n".repeat(5_000),
        "1".repeat(5_000),
        "ab ".repeat(10_000),
        "日本".repeat(3_000),
        "!".repeat(5_000),
        "<|im_end|>".repeat(2_000),
        "\u{301}".repeat(2_000),
    ]
}

fn texts_of(path: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let content = std::fs::read_to_string(path)?;
    if path.extension().is_none_or(|ending| ending != "jsonl") {
        let lines = content.split('\n').map(str::to_owned);
        return Ok(lines.chain([content.clone()]).collect());
    }
    let mut texts = Vec::new();
    for line in content.lines().filter(|line| !line.trim().is_empty()) {
        let object: Value = serde_json::from_str(line)?;
        let field = |name: &str| object.get(name).and_then(Value::as_str).map(str::to_owned);
        if let (Some(prompt), Some(completion)) = (field("prompt"), field("completion")) {
            texts.push(prompt + &completion);
        }
        texts.extend(["text", "prompt", "completion"].into_iter().filter_map(field));
    }
    Ok(texts)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let model = arguments.next().ok_or("usage: tokens MODEL FILE... > TOKENS.jsonl")?;
    let model = Path::new(&model);
    let tokenizer = if model.is_dir() {
        Tokenizer::from_hf_folder(model)?
    } else {
        Tokenizer::from_gguf(&Gguf::open(model)?)?
    };
    let mut texts: Vec<String> = HARD.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    texts.extend(long());
    for path in arguments {
        texts.extend(texts_of(Path::new(&path))?);
    }
    let mut out = BufWriter::new(std::io::stdout().lock());
    let start = Instant::now();
    let ids: Vec<Vec<u32>> =
        texts.iter().map(|text| tokenizer.encode(text, false)).collect::<Result<_, _>>()?;
    let bytes: usize = texts.iter().map(String::len).sum();
    eprintln!("{} texts of {bytes} bytes in {:.2} s", texts.len(), start.elapsed().as_secs_f64());
    for (text, ids) in texts.iter().zip(&ids) {
        let ordinary = tokenizer.encode_ordinary(text, false)?;
        writeln!(out, "{}", json!({ "text": text, "ids": ids, "ordinary": ordinary }))?;
    }
    Ok(())
}
