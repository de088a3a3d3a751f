//! `curmerge build`: select columns and rows, train U, write the adapter; or the same for a LoRA.

mod auto;
pub(super) mod examples;
mod identity;
mod introduction;
mod measured;
mod method;
mod outcome;
mod output;
mod protection;
mod recorded;
mod report;
pub(super) mod sample;
mod saving;
mod training;

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use curmerge_formats::adapter::Training;

use super::anchor::{self, AnchorTexts};
use super::arguments::{SelectBy, SelectionArgs, TrainingComputeArgs};
use super::interrupt;
use super::kept::Kept;
use super::report::{progress::TrainingProgress, terminal};
use crate::base::Base;
use crate::lora::Lora;
use crate::model::Transformer;
use crate::train::anchor::budget;
use crate::train::checkpoint::CheckpointFile;
use crate::train::{self, End, Observer, Penalty, State, TrainOptions, TrainReport, Trainer};
use crate::{Error, Result};
use auto::Trials;
pub use examples::ExampleArgs;
use examples::Examples;
use measured::Yardstick;
use method::{Method, MethodArgs, Trainee};
use outcome::Outcome;
use output::Output;
use protection::{Protection, ProtectionArgs};
use report::Report;
use saving::SavingArgs;
use training::TrainingArgs;

/// Options of `curmerge build`.
#[derive(Clone, Debug, Args)]
pub struct BuildArgs {
    /// Base model: a GGUF file, a Hugging Face folder, an ONNX file, `ollama:NAME[:TAG]`, or of the Hugging Face Hub
    /// `hf:OWNER/NAME[:FILE|QUANT][@REVISION]`, such as `hf:OWNER/NAME:Q4_K_M`.
    pub base: PathBuf,
    /// Training examples: JSON lines, a JSON array, a table (CSV, TSV), Parquet or plain text. A row has "text",
    /// "prompt" and "completion", or "messages" (with "tools", "documents" and "chat_template_kwargs" if the
    /// template takes them); or "question" and "answer", "instruction" and "output", "conversations". Given several
    /// times, all are trained; of a folder, its data files; `-` is standard input. Of the
    /// Hugging Face Hub `hf:OWNER/NAME[:FILE|FOLDER|SPLIT][@REVISION]` names a data set.
    #[arg(long, value_name = "FILE|FOLDER|-", required = true)]
    pub data: Vec<PathBuf>,
    /// How examples are made.
    #[command(flatten)]
    pub examples: ExampleArgs,
    /// Print the first example as the model will see it, with the target tokens marked, and do not train. It
    /// takes no options of training.
    #[arg(long, conflicts_with_all = ["output", "force", "MethodArgs", "SelectionArgs", "TrainingArgs", "ProtectionArgs", "AnchorArgs", "TrainingComputeArgs", "SavingArgs"])]
    pub show_sample: bool,
    /// What to write; the ending says in which form. A name without an ending, or with a / at the end: a LoRA
    /// as a folder, for PEFT. `.gguf`: a LoRA for llama.cpp. Any other, such as `.safetensors`: curmerge's
    /// adapter, which is for --method curlora.
    #[arg(short, long, value_name = "ADAPTER", required_unless_present = "show_sample")]
    pub output: Option<PathBuf>,
    /// Replace an existing folder.
    #[arg(long)]
    pub force: bool,
    /// What is trained.
    #[command(flatten)]
    pub method: MethodArgs,
    /// Which columns and rows.
    #[command(flatten)]
    pub selection: SelectionArgs,
    /// How U is trained.
    #[command(flatten)]
    pub training: TrainingArgs,
    /// How the model is kept from forgetting.
    #[command(flatten)]
    pub protection: ProtectionArgs,
    /// How the model computes.
    #[command(flatten)]
    pub compute: TrainingComputeArgs,
    /// Checkpoints and logs.
    #[command(flatten)]
    pub saving: SavingArgs,
}

/// Trains an adapter.
pub fn run(args: &BuildArgs, json: bool) -> Result<()> {
    let args = &args.with_defaults();
    args.training.check()?;
    args.method.check(args)?;
    args.protection.check(args.selects_by_signal())?;
    let mut base = super::open(&args.base)?;
    args.examples.template.apply(&mut base)?;
    let base = base;
    if args.show_sample {
        return sample::run(args, &base, json);
    }
    let Some(output) = &args.output else {
        return Err(Error::request("the adapter has no name", "give it one with --output"));
    };
    let mut own = args.data.clone();
    own.extend(args.training.valid.clone());
    own = train::data::files(&own)?;
    own.extend(args.training.init.as_deref().map(Lora::files).unwrap_or_default());
    let inputs = inputs(args, &base, &own);
    let output = Output::new(output, args.force);
    let _reserved = output.reserve(args.method.trains_lora(), &inputs)?;
    if args.protection.keep_fisher {
        output.check_keeps_fisher()?;
    }
    args.saving.check(output.path(), &inputs)?;
    if output.path().is_file() && !args.saving.resume {
        let path = output.path().display();
        terminal::warn(&format!("{path}: the file that stands there is replaced at the end"));
    }
    let examples = Examples::read(args, &base)?;
    let (shrink, seed) = (args.protection.shrink(), args.selection.seed);
    let numbers = (args.learning_rate(), args.clip(), shrink, seed);
    let options = args.training.options(numbers, args.saving.save_every, output.path());
    let mut frozen = frozen_model(args, &base, &examples)?;
    super::warn_of_context(
        &frozen,
        examples.max_tokens().try_into().unwrap_or(u32::MAX),
        "an example's length of",
    );
    let run = (&base, &examples.data, &options);
    let count = args.protection.anchor_texts(&frozen, run, args.selects_by_signal());
    let kept = Kept::new(&base, args.protection.anchor.no_cache)?;
    let texts = AnchorTexts::new(&args.protection.anchor, (&base, &kept), (count, seed, options.memory));
    let own = args.protection.anchor.to_measure();
    let trained = protection::trained_tokens(&examples.data, &options);
    let measured = budget::texts_to_measure(trained, anchor::length(&base));
    let new_texts = own
        .as_ref()
        .map(|own| AnchorTexts::to_measure(own, (&base, &kept), (measured, seed, options.memory)));
    if !json && count > 0 {
        terminal::print(&texts.line())?;
    }
    // Before training, so that nothing that fails here costs the result.
    let new_texts = new_texts.as_ref().map(|texts| texts.get(&mut frozen)).transpose()?;
    let new_texts = measured::batches(new_texts);
    let few = (count.min(auto::FEW_TEXTS), seed, options.memory);
    let few_texts = AnchorTexts::new(&args.protection.anchor, (&base, &kept), few);
    let trials = Trials {
        frozen: &frozen,
        texts: &texts,
        few_texts: &few_texts,
        new_texts: &new_texts,
        options: &options,
    };
    let (args, automatic) = &auto::resolve(args, &examples, &trials)?;
    if !json {
        terminal::print(&automatic.text())?;
    }
    let options = TrainOptions { learning_rate: args.learning_rate(), ..options };
    let mut trainee = Trainee::new(args, &mut frozen, &texts, &examples.data)?;
    output.check_targets(&base, &trainee)?;
    let mut model = frozen;
    trainee.attach(&mut model)?;
    let mut checkpoints = match args.saving.checkpoints() {
        true => {
            let identity = identity::of(args, &base, &trainee, &examples, count)?;
            Some(CheckpointFile::new(CheckpointFile::beside(output.path()), &inputs, identity))
        }
        false => None,
    };
    let resumed = match &checkpoints {
        Some(file) if args.saving.resume => Some(file.read(options.adamw)?),
        _ => None,
    };
    let resumed_at = resumed.as_ref().map(|state| state.progress.steps());
    let earlier_tokens = resumed.as_ref().map_or(0, |state| state.progress.tokens);
    if !json {
        let steps = options.steps(examples.data.examples.len());
        introduction::print(&base, &examples, &trainee, steps, resumed_at)?;
    }

    // Before training, so that a file that goes missing meanwhile does not cost the result.
    let protection = args.protection.record(count)?;
    let recipe = recorded::recipe(args, &base, &trainee, count)?;
    let penalty = args.protection.penalty(&mut model, &trainee, &texts)?;
    if let (Some(tasks), false) = (trainee.kept_tasks(), matches!(penalty, Some(Penalty::Fisher { .. }))) {
        terminal::warn(&format!("what the adapter keeps of {tasks} is not used; --protect fisher uses it"));
    }
    let start = Instant::now();
    let run = Run { options: &options, penalty: penalty.as_ref(), resumed };
    let report = train(args, &mut model, &examples, run, checkpoints.as_mut());
    let seconds = start.elapsed().as_secs_f64();
    let report = report.map_err(|error| without_adapter(error, &base, checkpoints.as_ref()))?;

    let yardstick = Yardstick::new(&mut model, &new_texts, options.memory);
    let limit =
        args.protection.max_forgetting.map(|max_kl| yardstick.limit(&mut model, max_kl)).transpose()?;
    let max_seq_len = args.examples.max_seq_len.into();
    let training = Training {
        max_seq_len,
        protection,
        recipe: Some(recipe.clone()),
        ..report.record(&examples.data, &options)
    };
    trainee.store(&mut model, training);
    if let Some(fisher) = args.protection.keep(&mut model, &examples.data, &options) {
        trainee.keep(fisher);
    }
    output.write(&base, &trainee, &inputs)?;
    let checkpoint = checkpoints.as_ref().filter(|_| report.end == End::Stopped).map(CheckpointFile::path);
    if let (Some(file), None) = (&checkpoints, checkpoint) {
        file.remove()?;
    }
    // Whoever stops a run wants the adapter now.
    let measures = report.end != End::Stopped;
    let measured = measures.then(|| yardstick.measure(&model, &examples)).transpose()?;
    let samples = match &args.saving.report {
        Some(_) if measures => report::samples::of(&base, [&yardstick.base, &model], &examples)?,
        _ => Vec::new(),
    };
    let outcome = Outcome {
        output: &output,
        data: &examples.data,
        trainee: &trainee,
        report,
        seconds,
        resumed_at,
        earlier_tokens,
        checkpoint,
        limit,
        measured,
        automatic,
    };
    if let Some(path) = &args.saving.report {
        let page = Report {
            base: &base,
            outcome: &outcome,
            examples: &examples,
            samples: &samples,
            recipe: &recipe,
        };
        page.write(path, &inputs)?;
    }
    match json {
        true => terminal::print_json(&outcome.json())?,
        false => terminal::print(&outcome.text(options.shrink)?)?,
    }
    outcome.check()
}

/// The files that no output may replace; `own` has those of the examples and of the adapter that is trained further.
fn inputs<'a>(args: &'a BuildArgs, base: &'a Base, own: &'a [PathBuf]) -> Vec<&'a Path> {
    let mut inputs = base.inputs();
    inputs.extend(own.iter().map(PathBuf::as_path));
    inputs.extend(args.protection.anchor.file().filter(|_| args.reads_anchor()));
    inputs
}

/// The model without an adapter, prepared for the longest example and text.
fn frozen_model<'b>(args: &BuildArgs, base: &'b Base, examples: &Examples) -> Result<Transformer<'b, f32>> {
    let mut model = Transformer::new(base)?.with_precision(args.compute.precision());
    model.for_context(examples.max_tokens().max(anchor::length(base)))?;
    Ok(model)
}

impl BuildArgs {
    /// The same with a protection where none is named, and with the method of the adapter that is trained
    /// further.
    fn with_defaults(&self) -> Self {
        let mut args = self.clone();
        if args.training.init.as_deref().is_some_and(Lora::is_lora) && !args.method.trains_lora() {
            args.method.method = Method::Lora;
        }
        args.protection = args.protection.with_default(args.method.method == Method::Lora);
        args
    }

    /// How columns and rows are chosen.
    fn select(&self) -> SelectBy {
        self.selection.select(self.protection.anchor.exists())
    }

    /// The learning rate. That of trials of other options while it is `auto`.
    fn learning_rate(&self) -> f64 {
        self.training.lr.map_or(self.default_rate(), |lr| lr.or(self.default_rate()))
    }

    /// The learning rate of a run that names none.
    fn default_rate(&self) -> f64 {
        match (self.method.method, self.protection.protect()) {
            (Method::Lora, Protection::Fisher | Protection::Replay) => 1e-3,
            (Method::Lora, _) => 5e-4,
            (_, Protection::Fisher | Protection::Replay) => 3e-3,
            _ => TrainOptions::default().learning_rate,
        }
    }

    /// The limit of the norm of the gradients. Ten beside the penalty of U (or of LoRA-XS's matrix), which is added
    /// after it: the usual norm is 27 on SST-2 and 4 on a tone, and with a limit of 1 the same lambda weighs as much
    /// more.
    fn clip(&self) -> f64 {
        let of_u = self.protection.protect() == Protection::Fisher && self.method.method != Method::Lora;
        self.training.clip.unwrap_or(if of_u { 10.0 } else { TrainOptions::default().clip })
    }

    fn reads_anchor(&self) -> bool {
        self.protection.reads_anchor(self.selects_by_signal())
    }

    /// Whether a new adapter's columns and rows are chosen on the anchor and the examples.
    fn selects_by_signal(&self) -> bool {
        !self.method.trains_lora() && self.training.init.is_none() && self.select() == SelectBy::Signal
    }
}

/// What a training run is to do.
struct Run<'a> {
    options: &'a TrainOptions,
    penalty: Option<&'a Penalty<'a>>,
    /// The state of the run that this one resumes.
    resumed: Option<State>,
}

/// Trains with a progress bar, logs and checkpoints, until the run ends or Ctrl-C stops it.
fn train(
    args: &BuildArgs,
    model: &mut Transformer<'_, f32>,
    examples: &Examples,
    run: Run<'_>,
    checkpoints: Option<&mut CheckpointFile<'_>>,
) -> Result<TrainReport> {
    let Examples { data, valid, .. } = examples;
    let Run { options, penalty, resumed } = run;
    let resumed_at = resumed.as_ref().map(|state| state.progress.steps());
    let mut logs = args.saving.logs(resumed_at)?;
    let mut progress = TrainingProgress::new(options.steps(data.examples.len()), resumed_at.unwrap_or(0));
    let mut observers: Vec<&mut dyn Observer> = vec![&mut progress];
    observers.extend(logs.iter_mut().map(|log| log.as_mut() as &mut dyn Observer));
    observers.extend(checkpoints.map(|checkpoints| checkpoints as &mut dyn Observer));
    let report = interrupt::while_training(|stop| {
        let trainer = match resumed {
            Some(state) => Trainer::resume(model, data, valid.as_ref(), options, state)?,
            None => Trainer::new(model, data, valid.as_ref(), options)?,
        };
        let trainer = match penalty {
            Some(penalty) => trainer.with_penalty(penalty),
            None => trainer,
        };
        train::train(trainer, stop, &mut observers)
    });
    progress.finish();
    report
}

/// The error of a run that ends without an adapter. A checkpoint of a run that diverged would diverge again.
fn without_adapter(error: Error, base: &Base, checkpoints: Option<&CheckpointFile<'_>>) -> Error {
    let Error::Diverged { steps } = error else { return error };
    if steps == 0
        && let Err(error) = base.must_be_finite()
    {
        return error;
    }
    let problem = format!("the loss is no longer a number after {steps} steps; no adapter was written");
    match checkpoints.map(CheckpointFile::path).filter(|path| path.exists()) {
        Some(path) => Error::request(problem, format!("delete {} and use a lower --lr", path.display())),
        None => Error::request(problem, "use a lower --lr"),
    }
}
