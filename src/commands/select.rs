//! `curmerge select`: an adapter with its columns and rows chosen and U = 0.

use std::path::PathBuf;

use clap::Args;
use curmerge_formats::adapter::Adapter;
use serde_json::json;

use super::anchor::{self, AnchorArgs, AnchorTexts};
use super::arguments::{SelectBy, SelectionArgs, TrainingComputeArgs, parse_size};
use super::build::ExampleArgs;
use super::kept::Kept;
use super::signal;
use crate::base::Base;
use crate::commands::report::{progress, terminal};
use crate::cur::{Selection, new_adapter};
use crate::model::Transformer;
use crate::train::anchor::budget::{self, Budget};
use crate::train::data::Dataset;
use crate::{Error, Result};

/// Options of `curmerge select`.
#[derive(Clone, Debug, Args)]
pub struct SelectArgs {
    /// Base model: a GGUF file, a Hugging Face folder, an ONNX file, `ollama:NAME[:TAG]`, or of the Hugging Face Hub
    /// `hf:OWNER/NAME[:FILE|QUANT][@REVISION]`, such as `hf:OWNER/NAME:Q4_K_M`.
    pub base: PathBuf,
    /// The adapter to write.
    #[arg(short, long, value_name = "ADAPTER")]
    pub output: PathBuf,
    /// Which columns and rows.
    #[command(flatten)]
    pub selection: SelectionArgs,
    /// What `--select signal` reads.
    #[command(flatten)]
    pub signal: SignalArgs,
}

/// What `--select signal` reads.
#[derive(Clone, Debug, Args)]
pub struct SignalArgs {
    /// For --select signal: examples of the task, as for build.
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// How examples are made.
    #[command(flatten)]
    pub examples: ExampleArgs,
    /// Texts of what the model is to keep.
    #[command(flatten)]
    pub anchor: AnchorArgs,
    /// How the model computes.
    #[command(flatten)]
    pub compute: TrainingComputeArgs,
    /// For --select signal: upper limit of the memory for activations, then for packed weights.
    #[arg(long, default_value = "400M", value_name = "SIZE", value_parser = parse_size)]
    pub memory: u64,
}

/// A new adapter of the base with columns and rows that are drawn, with a spinner on a terminal.
pub(super) fn select(base: &Base, args: &SelectionArgs, selection: Selection) -> Result<Adapter> {
    let spinner = progress::spinner("choosing columns and rows");
    let adapter = new_adapter(base, &args.options(selection));
    spinner.finish_and_clear();
    adapter
}

/// A new adapter of the base with columns and rows that are chosen by their signal.
fn select_by_signal(base: &Base, args: &SelectArgs) -> Result<Adapter> {
    let (selection, args) = (&args.selection, &args.signal);
    let Some(path) = &args.data else {
        return Err(Error::request("--select signal has no examples", "name a file with --data"));
    };
    args.anchor.check("--select signal")?;
    let tokenizer = base.tokenizer()?;
    let template = base.chat_template(&tokenizer)?;
    let data = Dataset::read(path, &tokenizer, template.as_ref(), &args.examples.options(base))?;
    let mut model = Transformer::new(base)?.with_precision(args.compute.precision());
    let longest = data.examples.iter().map(|example| example.tokens.len()).max().unwrap_or(0);
    model.for_context(longest.max(anchor::length(base)))?;
    let budget = Budget::new(model.parameters_per_token(), 0);
    let count = args.anchor.texts(base, &budget, budget::WRITING, Some((&data, selection.seed)));
    let kept = Kept::new(base, args.anchor.no_cache)?;
    let work = (count, selection.seed, args.memory);
    signal::adapter(selection, &mut model, &AnchorTexts::new(&args.anchor, (base, &kept), work), &data)
}

/// Chooses columns and rows, and writes the adapter.
pub fn run(args: &SelectArgs, json: bool) -> Result<()> {
    if args.selection.is_automatic() {
        let problem = "auto is for build, which can try what it chooses";
        return Err(Error::request(problem, "give --rank and --targets values"));
    }
    let mut base = super::open_any(&args.base)?;
    args.signal.examples.template.apply(&mut base)?;
    let base = base;
    let has_texts = args.signal.data.is_some() && args.signal.anchor.exists();
    let adapter = match args.selection.select(has_texts) {
        SelectBy::Signal => select_by_signal(&base, args)?,
        SelectBy::Drawn(_) if args.signal.data.is_some() => {
            let problem = "only --select signal reads --data";
            return Err(Error::request(problem, "leave it out, or add --select signal"));
        }
        SelectBy::Drawn(selection) => select(&base, &args.selection, selection)?,
    };
    let mut inputs = base.inputs();
    inputs.extend(args.signal.data.as_deref());
    inputs.extend(args.signal.anchor.file());
    adapter.write(&args.output, &inputs)?;
    if json {
        let targets =
            adapter.targets.iter().map(|t| json!({ "name": t.name, "cols": t.cols, "rows": t.rows }));
        return terminal::print_json(&json!({
            "adapter": args.output,
            "rank": adapter.rank,
            "selection": adapter.selection,
            "seed": adapter.seed,
            "targets": targets.collect::<Vec<_>>(),
        }));
    }
    terminal::print(&format!(
        "chose {} columns and rows of each of {} matrices ({} selection, seed {})\nadapter {}\n",
        adapter.rank,
        adapter.targets.len(),
        adapter.selection,
        adapter.seed,
        args.output.display(),
    ))
}
