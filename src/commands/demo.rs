//! `curmerge demo`: train, evaluate, merge and export a small model that the program contains.
//!
//! The model knows English from dictionary definitions; the task is to name the kind of thing a definition
//! defines. fixtures/demo/README.md says how both were made, and of what.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Args, Parser};
use curmerge_formats::input;
use curmerge_formats::output::OutputFile;
use serde_json::json;

use super::arguments::{AdapterArgs, AdapterPart, read_text};
use super::{CommandLine, adapted_model};
use crate::base::Base;
use crate::commands::report::terminal;
use crate::eval::{self, Chunks};
use crate::model::Transformer;
use crate::train::data;
use crate::{Error, Result};

/// The files that the program contains.
const CARRIED: &[(&str, &[u8])] = &[
    ("base.gguf", include_bytes!("../../fixtures/demo/model.gguf")),
    ("train.jsonl", include_bytes!("../../fixtures/demo/train.jsonl")),
    ("valid.jsonl", include_bytes!("../../fixtures/demo/valid.jsonl")),
    ("test.jsonl", include_bytes!("../../fixtures/demo/test.jsonl")),
    ("text.txt", include_bytes!("../../fixtures/demo/text.txt")),
];
/// Tokens in a chunk of the text: the model's context.
const CTX: usize = 256;

/// Options of `curmerge demo`.
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// Folder for the demo's files and results; those of an earlier demo are replaced.
    #[arg(short, long, default_value = "curmerge-demo", value_name = "FOLDER")]
    pub output: PathBuf,
}

/// Accuracy on test.jsonl; perplexity on text.txt, and KL(base || model) there, nats a token.
struct Scores {
    accuracy: f64,
    perplexity: f64,
    kl: f64,
}

/// Trains, evaluates, merges and exports. With `json`, each command prints one JSON document, and the scores
/// are the last.
pub fn run(args: &DemoArgs, json: bool) -> Result<()> {
    let start = Instant::now();
    let folder = &args.output;
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, "create the folder", e))?;
    let (first, carried) = CARRIED[0];
    let mut present = std::fs::read_dir(folder).map_err(|e| Error::io(folder, "list", e))?;
    let earlier = input::read(&folder.join(first), carried.len() as u64).is_ok_and(|own| own == carried);
    if present.next().is_some() && !earlier {
        let problem = "has files in it that are not an earlier demo's";
        return Err(Error::input(folder, "output", problem, "name an empty or new folder with -o"));
    }
    for (name, bytes) in CARRIED {
        let mut file = OutputFile::create(&folder.join(name), &[])?;
        file.append(bytes)?;
        file.commit()?;
    }
    let path = |name: &str| folder.join(name).display().to_string();
    let (base, adapter) = (path("base.gguf"), path("adapter.safetensors"));
    let (merged, lora) = (path("merged.gguf"), path("lora.gguf"));
    let (train, valid) = (path("train.jsonl"), path("valid.jsonl"));

    let before = scores(folder, "base.gguf", None)?;
    command(json, &["build", &base, "--data", &train, "--valid", &valid, "--epochs", "6", "-o", &adapter])?;
    let beside = scores(folder, "base.gguf", Some("adapter.safetensors"))?;
    command(json, &["merge", &base, &adapter, "-o", &merged])?;
    let after = scores(folder, "merged.gguf", None)?;
    command(json, &["export", &adapter, "--base", &base, "--format", "gguf", "-o", &lora])?;

    let seconds = start.elapsed().as_secs_f64();
    if json {
        let entry = |s: &Scores| json!({ "accuracy": s.accuracy, "perplexity": s.perplexity, "kl": s.kl });
        return terminal::print_json(&json!({
            "base": entry(&before), "adapter": entry(&beside), "merged": entry(&after), "seconds": seconds,
        }));
    }
    let row = |what: &str, s: &Scores| {
        format!("{what:<16} {:>8.3} {:>11.2} {:>13.5}\n", s.accuracy, s.perplexity, s.kl)
    };
    terminal::print(&format!(
        "\n{:<16} {:>8} {:>11} {:>13}\n{}{}{}\n{}\ndone in {seconds:.0} s\n",
        "",
        "accuracy",
        "perplexity",
        "KL from base",
        row("base", &before),
        row("base + adapter", &beside),
        row("merged", &after),
        next_steps(folder, &base, &adapter, &merged, &lora),
    ))
}

/// Shows a command as a user would type it, and carries it out. With `json` it prints its own JSON alone.
fn command(json: bool, words: &[&str]) -> Result<()> {
    if !json {
        terminal::print(&format!("\n$ curmerge {}\n", words.join(" ")))?;
    }
    let program = if json { &["curmerge", "--json"][..] } else { &["curmerge"] };
    super::carry_out(&CommandLine::parse_from(program.iter().chain(words)))
}

fn scores(folder: &Path, model: &str, adapter: Option<&str>) -> Result<Scores> {
    let [base, first] = [model, CARRIED[0].0].map(|name| Base::open(folder.join(name)));
    let (base, first) = (base?, first?);
    let tokenizer = base.tokenizer()?;
    let adapter = adapter.map(|name| AdapterPart::whole(folder.join(name)));
    let model = adapted_model(&base, &AdapterArgs::plain(adapter.into_iter().collect()))?;
    let examples = data::read_choices(folder.join("test.jsonl"), &tokenizer, &data::Columns::Usual)?;
    let path = folder.join("text.txt");
    let text = read_text(&path)?;
    let chunks = Chunks::new(&tokenizer, &text, CTX, None)?;
    let divergence = eval::divergence(&model, &Transformer::new(&first)?, &chunks.batches, |_| ())?;
    Ok(Scores {
        accuracy: eval::accuracy(&model, &examples, |_, _| ()).accuracy,
        perplexity: divergence.perplexity,
        kl: divergence.kl,
    })
}

fn next_steps(folder: &Path, base: &str, adapter: &str, merged: &str, lora: &str) -> String {
    let ollama = folder.join("ollama").display().to_string();
    let prompt = "Definition: a large wild cat with a striped coat\\nKind:";
    format!(
        "Use the result:\n  \
         curmerge run {merged} -n 1 -p $'{prompt}'\n  \
         llama-completion -m {merged} -n 1 -e -p \"{prompt}\" -no-cnv\n  \
         llama-completion -m {base} --lora {lora} -n 1 -e -p \"{prompt}\" -no-cnv\n  \
         curmerge export {adapter} --base {base} --format ollama -o {ollama}\n  \
         ollama create curmerge-demo -f {ollama}/Modelfile\n"
    )
}
