//! `curmerge eval`: perplexity on a text; accuracy, loss or answers on examples.

use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};
use serde_json::{Map, json};

use super::arguments::{AdapterArgs, AdapterPart, ComputeArgs, TemplateArgs, read_text};
use super::columns::ColumnArgs;
use crate::base::Base;
use crate::chat::ChatTemplate;
use crate::commands::report::progress;
use crate::commands::report::terminal;
use crate::eval::{self, Answers, Chunks, Divergence, Perplexity};
use crate::model::Transformer;
use crate::tokenizer::Tokenizer;
use crate::train::data::{self, DataOptions, Dataset};
use crate::train::mean_loss;
use crate::{Error, Result};

/// Options of `curmerge eval`.
#[derive(Clone, Debug, Args)]
pub struct EvalArgs {
    /// Base model: a GGUF file, a Hugging Face folder, an ONNX file, `ollama:NAME[:TAG]`, or of the Hugging Face Hub
    /// `hf:OWNER/NAME[:FILE|QUANT][@REVISION]`, such as `hf:OWNER/NAME:Q4_K_M`.
    pub base: PathBuf,
    /// The adapters to measure.
    #[command(flatten)]
    pub adapters: AdapterArgs,
    /// Test examples: accuracy by likelihood if they have "choices", else the mean loss.
    #[arg(long, value_name = "FILE", required_unless_present = "perplexity")]
    pub data: Option<PathBuf>,
    /// Do not count the loss of the end-of-text token after completions and texts, which build trains.
    #[arg(long, requires = "data")]
    pub no_append_eos: bool,
    /// Let the model answer the examples itself, greedily up to the end of a line, and count the answers that
    /// are exactly the completion (or the assistant's last turn).
    #[arg(long, requires = "data")]
    pub generate: bool,
    /// With --generate: upper limit of the tokens of an answer.
    #[arg(long, value_name = "N", default_value_t = 32, requires = "generate", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: u32,
    /// Text to measure perplexity on, as llama-perplexity does.
    #[arg(long, value_name = "TEXT")]
    pub perplexity: Option<PathBuf>,
    /// Compare with this model on the text: KL(BASE || model) a token, and how often both find the
    /// same token the most probable, as llama-perplexity --kl-divergence does.
    #[arg(long, value_name = "BASE", requires = "perplexity")]
    pub against: Option<PathBuf>,
    /// The adapter that the model of --against runs with. It may be given several times.
    #[arg(long = "against-adapter", value_name = "ADAPTER[=FACTOR]", requires = "against", value_parser = AdapterPart::parser(), value_hint = ValueHint::AnyPath)]
    pub against_adapters: Vec<AdapterPart>,
    /// Read only the first N chunks of the text [default: all].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub chunks: Option<u32>,
    /// Which columns are the examples.
    #[command(flatten)]
    pub columns: ColumnArgs,
    /// How conversations become text.
    #[command(flatten)]
    pub template: TemplateArgs,
    /// How the model computes.
    #[command(flatten)]
    pub compute: ComputeArgs,
    /// Tokens in a chunk of the text.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(4..))]
    pub ctx: u32,
}

/// Measures, and prints the figures.
pub fn run(args: &EvalArgs, json: bool) -> Result<()> {
    let mut base = super::open(&args.base)?;
    if args.data.is_some() {
        args.template.apply(&mut base)?;
    } else {
        args.template.must_be_unused("--data")?;
        args.columns.must_be_unused("--data")?;
    }
    measure(args, &base, json).map_err(|error| super::not_finite::explained(error, &base))
}

fn measure(args: &EvalArgs, base: &Base, json: bool) -> Result<()> {
    let tokenizer = base.tokenizer()?;
    let mut model = super::adapted_model(base, &args.adapters)?.with_precision(args.compute.precision);
    let (mut fields, mut lines) = (Map::new(), String::new());
    if let Some(path) = &args.data {
        let template = base.chat_template(&tokenizer)?;
        if args.generate {
            let result = generated(&mut model, &tokenizer, template.as_ref(), path, args)?;
            let count = result.answers.len();
            lines += &format!("exact match {:.4} of {count} answers\n", result.exact_match);
            fields.insert("exact_match".into(), json!(result.exact_match));
            fields.insert("answers".into(), json!(result.answers));
        } else {
            examples(&mut model, &tokenizer, template.as_ref(), path, args, &mut fields, &mut lines)?;
        }
    }
    if let (Some(path), Some(other)) = (&args.perplexity, &args.against) {
        let (d, chunks) = against(&mut model, &tokenizer, path, other, args)?;
        finite("the KL", d.kl)?;
        lines += &format!(
            "perplexity {:.4}, of the other model {:.4}\nKL {:.6} +/- {:.6} nats a token, the same first token in {:.2} %\n",
            d.perplexity,
            d.reference_perplexity,
            d.kl,
            d.kl_standard_error,
            100.0 * d.same_top
        );
        fields.insert("perplexity".into(), json!(d.perplexity));
        fields.insert("against_perplexity".into(), json!(d.reference_perplexity));
        fields.insert("kl".into(), json!(d.kl));
        fields.insert("kl_standard_error".into(), json!(d.kl_standard_error));
        fields.insert("same_top".into(), json!(d.same_top));
        fields.insert("perplexity_predictions".into(), json!(d.predictions));
        fields.insert("chunks".into(), json!(chunks));
    } else if let Some(path) = &args.perplexity {
        let p = text(&mut model, &tokenizer, path, args)?;
        finite("the perplexity", p.perplexity)?;
        lines += &format!(
            "perplexity {:.4} +/- {:.4} ({} predictions in {} chunks of {})\n",
            p.perplexity, p.standard_error, p.predictions, p.chunks, args.ctx
        );
        fields.insert("perplexity".into(), json!(p.perplexity));
        fields.insert("perplexity_standard_error".into(), json!(p.standard_error));
        fields.insert("perplexity_predictions".into(), json!(p.predictions));
        fields.insert("chunks".into(), json!(p.chunks));
    }
    if json { terminal::print_json(&fields.into()) } else { terminal::print(&lines) }
}

/// Refuses a figure that is NaN or infinite.
fn finite(quantity: &'static str, value: f64) -> Result<()> {
    if value.is_finite() { Ok(()) } else { Err(Error::NotFinite { quantity }) }
}

fn examples(
    model: &mut Transformer<'_, f32>,
    tokenizer: &Tokenizer,
    template: Option<&ChatTemplate>,
    path: &Path,
    args: &EvalArgs,
    fields: &mut Map<String, serde_json::Value>,
    lines: &mut String,
) -> Result<()> {
    let columns = args.columns.columns();
    if data::has_choices(path, &columns)? {
        let examples = data::read_choices(path, tokenizer, &columns)?;
        let lengths =
            examples.iter().flat_map(|e| e.choices.iter().map(|choice| e.prompt.len() + choice.len()));
        model.for_context(lengths.max().unwrap_or(0)).map_err(|e| e.in_file(path))?;
        let bar = progress::bar("choices", examples.len() as u64);
        let result = eval::accuracy(model, &examples, |done, _| bar.set_position(done as u64));
        bar.finish_and_clear();
        finite("the loss", result.loss)?;
        *lines += &format!("accuracy {:.4} of {} examples\n", result.accuracy, result.examples);
        *lines += &format!("loss {:.4} nats a token of the right choice\n", result.loss);
        fields.insert("accuracy".into(), json!(result.accuracy));
        fields.insert("loss".into(), json!(result.loss));
        fields.insert("examples".into(), json!(result.examples));
    } else {
        let options =
            DataOptions { max_seq_len: model.config().context, append_eos: !args.no_append_eos, columns };
        let data = Dataset::read(path, tokenizer, template, &options)?;
        model.for_context(data.examples.iter().map(|e| e.tokens.len()).max().unwrap_or(0))?;
        let loss = mean_loss(model, &data);
        finite("the loss", loss)?;
        *lines += &format!("loss {loss:.4} nats a target token of {} examples\n", data.examples.len());
        fields.insert("loss".into(), json!(loss));
        fields.insert("examples".into(), json!(data.examples.len()));
    }
    Ok(())
}

/// What the model answers to the questions of a file.
fn generated(
    model: &mut Transformer<'_, f32>,
    tokenizer: &Tokenizer,
    template: Option<&ChatTemplate>,
    path: &Path,
    args: &EvalArgs,
) -> Result<Answers> {
    let context = model.config().context;
    let max_tokens = args.max_tokens as usize;
    let questions = data::read_questions(path, tokenizer, template, context, &args.columns.columns())?;
    let longest = questions.iter().map(|question| question.prompt.len()).max().unwrap_or(0);
    model.for_context(context.min(longest + max_tokens)).map_err(|e| e.in_file(path))?;
    let bar = progress::bar("answers", questions.len() as u64);
    let result =
        eval::answers(model, tokenizer, &questions, max_tokens, |done, _| bar.set_position(done as u64));
    bar.finish_and_clear();
    result
}

fn text(
    model: &mut Transformer<'_, f32>,
    tokenizer: &Tokenizer,
    path: &Path,
    args: &EvalArgs,
) -> Result<Perplexity> {
    let text = read_text(path)?;
    super::warn_of_context(model, args.ctx, "--ctx");
    model.for_context(args.ctx as usize)?;
    let chunks = args.chunks.map(|c| c as usize);
    let mut bar = None;
    let result = eval::perplexity(model, tokenizer, &text, args.ctx as usize, chunks, |done, of| {
        bar.get_or_insert_with(|| progress::bar("perplexity", of as u64)).set_position(done as u64);
    });
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    result.map_err(|error| about_text(error, path))
}

/// The divergence of the model from that of `--against` on a text, and the text's chunks.
fn against(
    model: &mut Transformer<'_, f32>,
    tokenizer: &Tokenizer,
    path: &Path,
    other: &Path,
    args: &EvalArgs,
) -> Result<(Divergence, usize)> {
    let base = super::open(other)?;
    let adapter = AdapterArgs::plain(args.against_adapters.clone());
    let mut reference = super::adapted_model(&base, &adapter)?.with_precision(args.compute.precision);
    let (text, ctx) = (read_text(path)?, args.ctx as usize);
    super::warn_of_context(model, args.ctx, "--ctx");
    model.for_context(ctx)?;
    reference.for_context(ctx)?;
    let max_chunks = args.chunks.map(|chunks| chunks as usize);
    let chunks = Chunks::new(tokenizer, &text, ctx, max_chunks).map_err(|error| about_text(error, path))?;
    let bar = progress::bar("comparing", chunks.chunks as u64);
    let result = eval::divergence(model, &reference, &chunks.batches, |done| bar.set_position(done as u64));
    bar.finish_and_clear();
    Ok((result?, chunks.chunks))
}

/// An error of a text, with its file and the option that mends it.
fn about_text(error: Error, path: &Path) -> Error {
    match error.in_file(path) {
        Error::File { path, problem, help } => Error::file(path, problem, format!("{help} with --ctx")),
        other => other,
    }
}
