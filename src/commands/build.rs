//! `curmerge build`: choose columns and rows, train U, write the adapter.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use curmerge_formats::adapter::{Adapter, Training};
use curmerge_formats::output::OutputFile;
use serde_json::json;

use super::arguments::{ComputeArgs, SelectionArgs};
use super::interrupt;
use super::select::select;
use crate::base::Base;
use crate::model::Transformer;
use crate::report::{progress::TrainingProgress, terminal};
use crate::train::data::{DataOptions, Dataset};
use crate::train::optimizer::AdamWOptions;
use crate::train::{self, TrainOptions, TrainReport};
use crate::{Error, Result};

/// Options of `curmerge build`.
#[derive(Clone, Debug, Args)]
pub struct BuildArgs {
    /// Base model: a GGUF file, a Hugging Face folder, or ollama:NAME[:TAG].
    pub base: PathBuf,
    /// Training examples: JSONL with "text", "prompt" and "completion", or "messages"; or plain text.
    #[arg(long, value_name = "FILE")]
    pub data: PathBuf,
    /// Examples to measure the loss on after each epoch.
    #[arg(long, value_name = "FILE")]
    pub valid: Option<PathBuf>,
    /// The adapter to write.
    #[arg(short, long, value_name = "ADAPTER")]
    pub output: PathBuf,
    /// Which columns and rows.
    #[command(flatten)]
    pub selection: SelectionArgs,
    /// Factor of the change: W + scale C U R.
    #[arg(long, default_value_t = 1.0)]
    pub scale: f32,
    /// Passes over the data.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    pub epochs: u64,
    /// End after so many steps, with a schedule of that length.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_steps: Option<u64>,
    /// Examples a step.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch_size: u32,
    /// Peak learning rate; it warms up over a tenth of the steps and comes down along a cosine.
    #[arg(long, default_value_t = 1.5e-3)]
    pub lr: f64,
    /// Share of U taken away a step, times the learning rate.
    #[arg(long, default_value_t = 0.0)]
    pub weight_decay: f32,
    /// Multiply what U gained by this at the end: less learnt, and much less forgotten.
    #[arg(long, default_value_t = 0.55)]
    pub shrink: f32,
    /// Largest norm of the gradients.
    #[arg(long, default_value_t = 1.0)]
    pub clip: f64,
    /// Longer examples are cut, and counted.
    #[arg(long, default_value_t = 1024, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(2..))]
    pub max_seq_len: u32,
    /// Teach the end-of-text token behind completions and texts.
    #[arg(long)]
    pub append_eos: bool,
    /// How the model computes.
    #[command(flatten)]
    pub compute: ComputeArgs,
    /// Go on training this adapter: its targets, indices and U.
    #[arg(long, value_name = "ADAPTER", conflicts_with_all = ["rank", "targets", "select", "scale"])]
    pub init: Option<PathBuf>,
}

/// Train an adapter.
pub fn run(args: &BuildArgs, json: bool) -> Result<()> {
    check_numbers(args)?;
    let base = Base::open(&args.base)?;
    let mut inputs: Vec<&Path> = base.inputs();
    inputs.push(&args.data);
    inputs.extend(args.valid.as_deref());
    inputs.extend(args.init.as_deref());
    // Hours of training must not end at a folder that is not there.
    drop(OutputFile::create(&args.output, &inputs)?);
    let tokenizer = base.tokenizer()?;
    let options = DataOptions { max_seq_len: args.max_seq_len as usize, append_eos: args.append_eos };
    let data = Dataset::read(&args.data, &tokenizer, &options)?;
    let valid = args.valid.as_ref().map(|path| Dataset::read(path, &tokenizer, &options)).transpose()?;
    let mut adapter = start(args, &base)?;
    let mut model = Transformer::<f32>::new(&base)?.with_precision(args.compute.precision);
    model.attach(&adapter.targets, adapter.scale)?;
    let options = train_options(args);
    let planned = options.steps(data.examples.len());
    if !json {
        introduce(&base, &data, &adapter, planned)?;
    }

    let mut progress = TrainingProgress::new(planned);
    let start = Instant::now();
    let report = interrupt::while_training(|stop| {
        train::train(&mut model, &data, valid.as_ref(), &options, stop, &mut progress)
    });
    let seconds = start.elapsed().as_secs_f64();
    progress.finish();
    if report.diverged {
        return Err(Error::request(
            format!("the loss is no longer a number after {} steps; no adapter was written", report.steps),
            "use a lower --lr",
        ));
    }

    for (target, u) in adapter.targets.iter_mut().zip(model.trained()) {
        target.u = u.iter().copied().collect();
    }
    adapter.training = Some(record(args, &data, &report));
    adapter.write(&args.output, &inputs)?;
    if json {
        return terminal::print_json(&json!({
            "adapter": args.output,
            "steps": report.steps,
            "planned_steps": report.planned_steps,
            "examples": data.examples.len(),
            "examples_cut": data.cut,
            "tokens": report.tokens,
            "seconds": seconds,
            "tokens_per_s": report.tokens as f64 / seconds,
            "loss": report.loss,
            "losses": report.losses,
            "validation": report.validation.iter().map(|(s, l)| json!({"steps": s, "loss": l})).collect::<Vec<_>>(),
            "trained_numbers": trained_numbers(&adapter),
        }));
    }
    conclude(args, &report, seconds)
}

fn check_numbers(args: &BuildArgs) -> Result<()> {
    let positive = |name: &str, x: f64, zero_allowed: bool| {
        let fits = x.is_finite() && (x > 0.0 || zero_allowed && x == 0.0);
        let mend = "give a positive number";
        if fits { Ok(()) } else { Err(Error::request(format!("--{name} {x} cannot be used"), mend)) }
    };
    positive("lr", args.lr, false)?;
    positive("clip", args.clip, false)?;
    positive("shrink", args.shrink.into(), false)?;
    positive("weight-decay", args.weight_decay.into(), true)?;
    positive("scale", args.scale.abs().into(), false)
}

/// A new adapter with U = 0, or the one that `--init` names.
fn start(args: &BuildArgs, base: &Base) -> Result<Adapter> {
    if let Some(path) = &args.init {
        return super::adapter_of(base, path, false);
    }
    Ok(Adapter { scale: args.scale, ..select(base, &args.selection)? })
}

fn train_options(args: &BuildArgs) -> TrainOptions {
    TrainOptions {
        epochs: args.epochs,
        max_steps: args.max_steps,
        batch_size: args.batch_size as usize,
        learning_rate: args.lr,
        adamw: AdamWOptions { weight_decay: args.weight_decay, ..Default::default() },
        clip: args.clip,
        shrink: args.shrink,
        seed: args.selection.seed,
    }
}

fn record(args: &BuildArgs, data: &Dataset, report: &TrainReport) -> Training {
    Training {
        data_sha256: data.sha256.clone(),
        examples: data.examples.len() as u64,
        steps: report.steps,
        planned_steps: report.planned_steps,
        optimizer: "adamw".into(),
        learning_rate: args.lr,
        batch_size: args.batch_size.into(),
        max_seq_len: args.max_seq_len.into(),
        final_loss: report.loss,
        losses: Some(report.losses.clone()),
        valid_loss: report.validation.last().map(|(_, loss)| *loss),
    }
}

fn trained_numbers(adapter: &Adapter) -> usize {
    adapter.targets.iter().map(|t| t.u.len()).sum()
}

fn introduce(base: &Base, data: &Dataset, adapter: &Adapter, steps: u64) -> Result<()> {
    let config = base.config();
    let tokens: usize = data.examples.iter().map(|e| e.tokens.len()).sum();
    let mut text = format!(
        "base     {} ({}, {}, {} blocks of width {})\n",
        terminal::plain(&base.name()),
        base.architecture().gguf,
        base.container(),
        config.layers,
        config.d_model,
    );
    let count = data.examples.len();
    text += &format!("data     {count} examples, {tokens} tokens, loss on {}\n", data.target_tokens());
    if data.cut > 0 {
        text += &format!("         {} examples were longer than --max-seq-len and cut\n", data.cut);
    }
    if data.dropped > 0 {
        text += &format!("         {} examples had nothing to learn from and were left out\n", data.dropped);
    }
    text += &format!(
        "targets  {} matrices, rank {}, {} selection, seed {}: {} numbers to train\n",
        adapter.targets.len(),
        adapter.rank,
        adapter.selection,
        adapter.seed,
        trained_numbers(adapter),
    );
    text += &format!("steps    {steps}\n");
    terminal::print(&text)
}

fn conclude(args: &BuildArgs, report: &TrainReport, seconds: f64) -> Result<()> {
    let mut text = String::new();
    if report.steps < report.planned_steps {
        text += &format!("stopped  at step {} of {}\n", report.steps, report.planned_steps);
    }
    let rate = report.tokens as f64 / seconds;
    text += &format!("trained  {} steps in {seconds:.0} s, {rate:.0} tokens/s\n", report.steps);
    if let (Some(first), true) = (report.losses.first(), report.loss.is_finite()) {
        let before = if args.shrink == 1.0 { "" } else { ", before --shrink" };
        text += &format!("loss     {first:.4} at first, {:.4} over the last steps{before}\n", report.loss);
    }
    for (steps, loss) in &report.validation {
        text += &format!("valid    {loss:.4} after {steps} steps\n");
    }
    let bytes = std::fs::metadata(&args.output).map_err(|e| Error::io(&args.output, "read", e))?.len();
    text += &format!("adapter  {} ({bytes} bytes)\n", args.output.display());
    terminal::print(&text)
}
