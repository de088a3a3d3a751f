//! `curmerge build`: select columns and rows, train U, write the adapter.

mod identity;
mod sample;
mod saving;
mod text;
mod training;

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use curmerge_formats::adapter::{Adapter, Training};
use serde_json::json;

use super::arguments::{ComputeArgs, SelectionArgs};
use super::interrupt;
use super::report::{progress::TrainingProgress, terminal};
use super::select::select;
use crate::base::Base;
use crate::model::Transformer;
use crate::train::checkpoint::CheckpointFile;
use crate::train::data::{DataOptions, Dataset};
use crate::train::{self, End, Observer, Trainer};
use crate::{Error, Result};
use saving::SavingArgs;
use training::TrainingArgs;

/// Options of `curmerge build`.
#[derive(Clone, Debug, Args)]
pub struct BuildArgs {
    /// Base model: a GGUF file, a Hugging Face folder, an ONNX file, or `ollama:NAME[:TAG]`.
    pub base: PathBuf,
    /// Training examples: JSONL with "text", "prompt" and "completion", or "messages" (with "tools",
    /// "documents" and "chat_template_kwargs" if the template takes them); or plain text.
    #[arg(long, value_name = "FILE")]
    pub data: PathBuf,
    /// How examples are made.
    #[command(flatten)]
    pub examples: ExampleArgs,
    /// Print the first example as the model will see it, with the tokens of the loss marked, and train
    /// nothing. Options of training do not go with it.
    #[arg(long, conflicts_with_all = ["output", "SelectionArgs", "TrainingArgs", "ComputeArgs", "SavingArgs"])]
    pub show_sample: bool,
    /// The adapter to write.
    #[arg(short, long, value_name = "ADAPTER", required_unless_present = "show_sample")]
    pub output: Option<PathBuf>,
    /// Which columns and rows.
    #[command(flatten)]
    pub selection: SelectionArgs,
    /// How U is trained.
    #[command(flatten)]
    pub training: TrainingArgs,
    /// How the model computes.
    #[command(flatten)]
    pub compute: ComputeArgs,
    /// Checkpoints and logs.
    #[command(flatten)]
    pub saving: SavingArgs,
}

/// How examples are made.
#[derive(Clone, Copy, Debug, Args)]
pub struct ExampleArgs {
    /// Longer examples are cut, and counted.
    #[arg(long, default_value_t = 1024, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(2..))]
    pub max_seq_len: u32,
    /// Teach the end-of-text token after completions and texts.
    #[arg(long)]
    pub append_eos: bool,
}

/// Train an adapter.
pub fn run(args: &BuildArgs, json: bool) -> Result<()> {
    args.training.check()?;
    let base = Base::open(&args.base)?;
    let ExampleArgs { max_seq_len, append_eos } = args.examples;
    let max_seq_len = base.max_tokens().unwrap_or(usize::MAX).min(max_seq_len as usize);
    let data_options = DataOptions { max_seq_len, append_eos };
    if args.show_sample {
        let tokenizer = base.tokenizer()?;
        let template = base.chat_template(&tokenizer)?;
        let (example, is_cut) = Dataset::first(&args.data, &tokenizer, template.as_ref(), &data_options)?;
        return sample::show(&example, is_cut, &tokenizer, json);
    }
    let Some(output) = args.output.as_deref() else {
        return Err(Error::request("the adapter has no name", "give it one with --output"));
    };
    let mut inputs: Vec<&Path> = base.inputs();
    inputs.push(&args.data);
    inputs.extend(args.training.valid.as_deref());
    inputs.extend(args.training.init.as_deref());
    args.saving.check(output, &inputs)?;
    let tokenizer = base.tokenizer()?;
    let template = base.chat_template(&tokenizer)?;
    let read = |path: &PathBuf| Dataset::read(path, &tokenizer, template.as_ref(), &data_options);
    let data = read(&args.data)?;
    let valid = args.training.valid.as_ref().map(read).transpose()?;
    let mut adapter = initial_adapter(args, &base)?;
    let mut model = Transformer::<f32>::new(&base)?.with_precision(args.compute.precision);
    let all = data.examples.iter().chain(valid.iter().flat_map(|valid| &valid.examples));
    model.for_context(all.map(|example| example.tokens.len()).max().unwrap_or(0))?;
    model.attach(&adapter.targets, adapter.scale)?;
    let options = args.training.options(args.selection.seed, args.saving.save_every, output);
    let planned = options.steps(data.examples.len());
    let mut checkpoints = if args.saving.checkpoints() {
        let identity = identity::of(args, &base, &adapter, &data, valid.as_ref())?;
        Some(CheckpointFile::new(CheckpointFile::beside(output), &inputs, identity))
    } else {
        None
    };
    let resumed = match &checkpoints {
        Some(file) if args.saving.resume => Some(file.read(options.adamw)?),
        _ => None,
    };
    let resumed_at = resumed.as_ref().map(|state| state.progress.steps());
    let earlier_tokens = resumed.as_ref().map_or(0, |state| state.progress.tokens);
    if !json {
        text::introduce(&base, &data, &adapter, planned, resumed_at)?;
    }

    let mut progress = TrainingProgress::new(planned, resumed_at.unwrap_or(0));
    let mut logs = args.saving.logs(resumed_at)?;
    let mut observers: Vec<&mut dyn Observer> = vec![&mut progress];
    observers.extend(logs.iter_mut().map(|log| log.as_mut() as &mut dyn Observer));
    observers.extend(checkpoints.as_mut().map(|checkpoints| checkpoints as &mut dyn Observer));
    let start = Instant::now();
    let report = interrupt::while_training(|stop| {
        let trainer = match resumed {
            Some(state) => Trainer::resume(&mut model, &data, valid.as_ref(), &options, state)?,
            None => Trainer::new(&mut model, &data, valid.as_ref(), &options)?,
        };
        train::train(trainer, stop, &mut observers)
    });
    let seconds = start.elapsed().as_secs_f64();
    progress.finish();
    let report = report.map_err(|error| without_adapter(error, checkpoints.as_ref()))?;

    model.store(&mut adapter.targets);
    let max_seq_len = args.examples.max_seq_len.into();
    adapter.training = Some(Training { max_seq_len, ..report.record(&data, &options) });
    adapter.write(output, &inputs)?;
    let checkpoint = checkpoints.as_ref().filter(|_| report.end == End::Stopped).map(CheckpointFile::path);
    if let (Some(file), None) = (&checkpoints, checkpoint) {
        file.remove()?;
    }
    let steps = report.progress.steps() - resumed_at.unwrap_or(0);
    let rate = (report.progress.tokens - earlier_tokens) as f64 / seconds;
    if json {
        let validation = report.progress.validation.iter().map(|(s, l)| json!({"steps": s, "loss": l}));
        return terminal::print_json(&json!({
            "adapter": output,
            "steps": report.progress.steps(),
            "planned_steps": report.planned_steps,
            "kept_steps": report.kept_steps,
            "resumed_at": resumed_at,
            "end": text::end(report.end),
            "checkpoint": checkpoint,
            "examples": data.examples.len(),
            "examples_cut": data.cut,
            "tokens": report.progress.tokens,
            "seconds": seconds,
            "tokens_per_s": rate,
            "loss": report.loss(),
            "losses": report.progress.losses,
            "validation": validation.collect::<Vec<_>>(),
            "trained_numbers": trained_numbers(&adapter),
        }));
    }
    text::conclude(args, output, &report, &text::Pace { steps, seconds, rate }, checkpoint)
}

/// A new adapter with U = 0, or the one that `--init` names.
fn initial_adapter(args: &BuildArgs, base: &Base) -> Result<Adapter> {
    if let Some(path) = &args.training.init {
        return super::adapter_of(base, path, false);
    }
    Ok(Adapter { scale: args.training.scale, ..select(base, &args.selection)? })
}

/// The error of a run that ends without an adapter. A checkpoint of a run that diverged would diverge again.
fn without_adapter(error: Error, checkpoints: Option<&CheckpointFile<'_>>) -> Error {
    let Error::Diverged { steps } = error else { return error };
    let problem = format!("the loss is no longer a number after {steps} steps; no adapter was written");
    match checkpoints.map(CheckpointFile::path).filter(|path| path.exists()) {
        Some(path) => Error::request(problem, format!("delete {} and use a lower --lr", path.display())),
        None => Error::request(problem, "use a lower --lr"),
    }
}

fn trained_numbers(adapter: &Adapter) -> usize {
    adapter.targets.iter().map(|t| t.u.len()).sum()
}
