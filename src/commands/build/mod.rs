//! `curmerge build`: choose columns and rows, train U, write the adapter.

mod identity;
mod sample;
mod text;

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use curmerge_formats::adapter::{Adapter, Training};
use curmerge_formats::output::OutputFile;
use serde_json::json;

use super::arguments::{ComputeArgs, SelectionArgs, parse_size};
use super::interrupt;
use super::select::select;
use crate::base::Base;
use crate::model::Transformer;
use crate::report::{progress::TrainingProgress, terminal};
use crate::train::checkpoint::CheckpointFile;
use crate::train::data::{DataOptions, Dataset};
use crate::train::metrics::MetricsFile;
use crate::train::optimizer::AdamWOptions;
use crate::train::tensorboard::EventFile;
use crate::train::{self, End, Observer, TrainOptions, TrainReport};
use crate::{Error, Result};

/// What says nothing about how an example is made.
const OF_A_TRAINING: [&str; 25] = [
    "output",
    "valid",
    "valid_every",
    "patience",
    "rank",
    "targets",
    "layers",
    "select",
    "seed",
    "scale",
    "epochs",
    "max_steps",
    "batch_size",
    "grad_accum",
    "lr",
    "weight_decay",
    "memory",
    "shrink",
    "clip",
    "precision",
    "init",
    "save_every",
    "resume",
    "metrics",
    "tensorboard",
];

/// Options of `curmerge build`.
#[derive(Clone, Debug, Args)]
pub struct BuildArgs {
    /// Base model: a GGUF file, a Hugging Face folder, an ONNX file, or `ollama:NAME[:TAG]`.
    pub base: PathBuf,
    /// Training examples: JSONL with "text", "prompt" and "completion", or "messages" (beside which "tools", "documents" and
    /// "chat_template_kwargs" may stand); or plain text.
    #[arg(long, value_name = "FILE")]
    pub data: PathBuf,
    /// Examples to measure the loss on after each epoch and at the end.
    #[arg(long, value_name = "FILE")]
    pub valid: Option<PathBuf>,
    /// Measure it every N steps instead, and at the end.
    #[arg(long, value_name = "N", requires = "valid", value_parser = clap::value_parser!(u64).range(1..))]
    pub valid_every: Option<u64>,
    /// End when the loss on --valid has not got better for P measurements; the adapter is that of the best one, also of
    /// a run that comes to its last step or is stopped.
    #[arg(long, value_name = "P", requires = "valid", value_parser = clap::value_parser!(u64).range(1..))]
    pub patience: Option<u64>,
    /// Print the first example as the model will see it, with the tokens that the loss falls on marked, and train nothing:
    /// no option of a training goes with it.
    #[arg(long, conflicts_with_all = OF_A_TRAINING)]
    pub show_sample: bool,
    /// The adapter to write.
    #[arg(short, long, value_name = "ADAPTER", required_unless_present = "show_sample")]
    pub output: Option<PathBuf>,
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
    /// Batches a step: the gradients of K batches are added up, of the mean loss over all their target tokens. The same,
    /// byte for byte, as K times the --batch-size, since memory does not depend on that: what goes through the model at
    /// a time is at most 1024 tokens or one example.
    #[arg(long, default_value_t = 1, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    pub grad_accum: u32,
    /// Peak learning rate; it warms up over a tenth of the steps and comes down along a cosine.
    #[arg(long, default_value_t = 1.5e-3)]
    pub lr: f64,
    /// Share of U taken away a step, times the learning rate.
    #[arg(long, default_value_t = 0.0)]
    pub weight_decay: f32,
    /// Most bytes to keep, such as 500M or 4G: activations for the backward pass, then weights that are ready for products.
    /// What is not kept is computed again, to the same numbers, which takes longer.
    #[arg(long, default_value = "400M", value_name = "SIZE", value_parser = parse_size)]
    pub memory: u64,
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
    #[arg(long, value_name = "ADAPTER", conflicts_with_all = ["rank", "targets", "layers", "select", "scale"])]
    pub init: Option<PathBuf>,
    /// Every N steps, save what --resume needs in ADAPTER.checkpoint; so does Ctrl-C after its step. It is removed when
    /// the run is over and the adapter stands.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub save_every: Option<u64>,
    /// Go on from ADAPTER.checkpoint, with the same command line: on the same kind of processor the adapter will be the
    /// same bytes as if the run had never stopped. Of the options only --threads, --save-every, --metrics and
    /// --tensorboard may differ.
    #[arg(long)]
    pub resume: bool,
    /// Log each step and validation as a line of JSON: step, epoch, loss, learning_rate, gradient_norm, tokens,
    /// tokens_per_s and seconds of the step, or valid_loss. With --resume the lines of steps to be done again are cut.
    #[arg(long, value_name = "FILE")]
    pub metrics: Option<PathBuf>,
    /// Log the same for TensorBoard, in an event file in this folder.
    #[arg(long, value_name = "FOLDER")]
    pub tensorboard: Option<PathBuf>,
}

/// Train an adapter.
pub fn run(args: &BuildArgs, json: bool) -> Result<()> {
    check_numbers(args)?;
    let base = Base::open(&args.base)?;
    let max_seq_len = base.max_tokens().unwrap_or(usize::MAX).min(args.max_seq_len as usize);
    let options = DataOptions { max_seq_len, append_eos: args.append_eos };
    if args.show_sample {
        let tokenizer = base.tokenizer()?;
        let (example, is_cut) = Dataset::first(&args.data, &tokenizer, &options)?;
        return sample::show(&example, is_cut, &tokenizer, json);
    }
    let Some(output) = args.output.as_deref() else {
        return Err(Error::request("the adapter has no name", "give it one with --output"));
    };
    let mut inputs: Vec<&Path> = base.inputs();
    inputs.push(&args.data);
    inputs.extend(args.valid.as_deref());
    inputs.extend(args.init.as_deref());
    check_outputs(args, output, &inputs)?;
    let tokenizer = base.tokenizer()?;
    let data = Dataset::read(&args.data, &tokenizer, &options)?;
    let valid = args.valid.as_ref().map(|path| Dataset::read(path, &tokenizer, &options)).transpose()?;
    let mut adapter = start(args, &base)?;
    let mut model = Transformer::<f32>::new(&base)?.with_precision(args.compute.precision);
    let read = data.examples.iter().chain(valid.iter().flat_map(|valid| &valid.examples));
    model.for_context(read.map(|example| example.tokens.len()).max().unwrap_or(0))?;
    model.attach(&adapter.targets, adapter.scale)?;
    let options = train_options(args, output);
    let planned = options.steps(data.examples.len());
    let mut checkpoints = if args.save_every.is_some() || args.resume {
        let identity = identity::of(args, &base, &adapter, &data, valid.as_ref())?;
        Some(CheckpointFile::new(CheckpointFile::beside(output), &inputs, identity))
    } else {
        None
    };
    let resumed = match &checkpoints {
        Some(file) if args.resume => Some(file.read(options.adamw)?),
        _ => None,
    };
    let resumed_at = resumed.as_ref().map(|state| state.progress.steps());
    let earlier_tokens = resumed.as_ref().map_or(0, |state| state.progress.tokens);
    if !json {
        text::introduce(&base, &data, &adapter, planned, resumed_at)?;
    }

    let mut progress = TrainingProgress::new(planned, resumed_at.unwrap_or(0));
    let mut metrics = args.metrics.as_ref().map(|path| MetricsFile::open(path, resumed_at)).transpose()?;
    let events = |folder| EventFile::create(folder, resumed_at.unwrap_or(0));
    let mut events = args.tensorboard.as_deref().map(events).transpose()?;
    let mut observers: Vec<&mut dyn Observer> = vec![&mut progress];
    observers.extend(metrics.as_mut().map(|metrics| metrics as &mut dyn Observer));
    observers.extend(events.as_mut().map(|events| events as &mut dyn Observer));
    observers.extend(checkpoints.as_mut().map(|checkpoints| checkpoints as &mut dyn Observer));
    let start = Instant::now();
    let report = interrupt::while_training(|stop| {
        train::train(&mut model, &data, valid.as_ref(), &options, resumed, stop, &mut observers)
    });
    let seconds = start.elapsed().as_secs_f64();
    progress.finish();
    let report = report?;
    if report.end == End::Diverged {
        let steps = report.progress.steps();
        let help = match &checkpoints {
            Some(file) if file.path().exists() => {
                format!("delete {} and use a lower --lr", file.path().display())
            }
            _ => "use a lower --lr".into(),
        };
        let problem = format!("the loss is no longer a number after {steps} steps; no adapter was written");
        return Err(Error::request(problem, help));
    }

    for (target, u) in adapter.targets.iter_mut().zip(model.trainable_mut()) {
        target.u = u.iter().copied().collect();
    }
    adapter.training = Some(record(args, &data, &report));
    adapter.write(output, &inputs)?;
    let checkpoint = checkpoints.as_ref().filter(|_| report.end == End::Stopped).map(CheckpointFile::path);
    if let (Some(file), None) = (&checkpoints, checkpoint) {
        file.remove()?;
    }
    let done = report.progress.steps() - resumed_at.unwrap_or(0);
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
    text::conclude(args, output, &report, &text::Pace { steps: done, seconds, rate }, checkpoint)
}

/// Hours of training must not end at a folder that is not there, nor take the place of what other hours gave.
fn check_outputs(args: &BuildArgs, output: &Path, inputs: &[&Path]) -> Result<()> {
    drop(OutputFile::create(output, inputs)?);
    let checkpoint = CheckpointFile::beside(output);
    if args.save_every.is_some() || args.resume {
        drop(OutputFile::create(&checkpoint, inputs)?);
        if !args.resume && checkpoint.exists() {
            let problem = "a run that is not over left this checkpoint";
            return Err(Error::file(checkpoint, problem, "go on from it with --resume, or delete it"));
        }
    }
    if let Some(metrics) = &args.metrics {
        if metrics == output || *metrics == checkpoint {
            return Err(Error::file(metrics, "is written otherwise", "name another file with --metrics"));
        }
        drop(OutputFile::create(metrics, inputs)?);
    }
    Ok(())
}

fn check_numbers(args: &BuildArgs) -> Result<()> {
    let positive = |name: &str, x: f64, zero_allowed: bool| {
        let fits = x.is_finite() && (x > 0.0 || zero_allowed && x == 0.0);
        let help = "give a positive number";
        if fits { Ok(()) } else { Err(Error::request(format!("--{name} {x} cannot be used"), help)) }
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

fn train_options(args: &BuildArgs, output: &Path) -> TrainOptions {
    TrainOptions {
        epochs: args.epochs,
        max_steps: args.max_steps,
        batch_size: usize::try_from(examples_a_step(args)).unwrap_or(usize::MAX),
        learning_rate: args.lr,
        adamw: AdamWOptions { weight_decay: args.weight_decay, ..Default::default() },
        clip: args.clip,
        shrink: args.shrink,
        seed: args.selection.seed,
        valid_every: args.valid_every,
        patience: args.patience,
        save_every: args.save_every,
        memory: args.memory,
        scratch: match output.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        },
    }
}

fn examples_a_step(args: &BuildArgs) -> u64 {
    u64::from(args.batch_size) * u64::from(args.grad_accum)
}

fn record(args: &BuildArgs, data: &Dataset, report: &TrainReport) -> Training {
    Training {
        data_sha256: data.sha256.clone(),
        examples: data.examples.len() as u64,
        steps: report.kept_steps,
        planned_steps: report.planned_steps,
        optimizer: "adamw".into(),
        learning_rate: args.lr,
        batch_size: examples_a_step(args),
        max_seq_len: args.max_seq_len.into(),
        final_loss: report.loss(),
        losses: Some(report.kept_losses().to_vec()),
        valid_loss: report.kept_validation(),
    }
}

fn trained_numbers(adapter: &Adapter) -> usize {
    adapter.targets.iter().map(|t| t.u.len()).sum()
}
