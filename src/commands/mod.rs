//! The command line: one file a subcommand, which says what happens in which order.

#![expect(
    clippy::missing_errors_doc,
    reason = "a command fails as the library does, and its error is printed"
)]

mod adapter_kind;
pub mod anchor;
pub mod arguments;
pub mod build;
pub mod cache;
mod chart;
pub mod columns;
pub mod combined;
mod companions;
pub mod convert;
pub mod data;
pub mod demo;
pub mod documents;
pub mod eval;
pub mod export;
pub mod extract;
mod hub;
pub mod init;
pub mod inspect;
pub mod interrupt;
pub mod kept;
mod limits;
pub mod merge;
mod merged;
mod not_finite;
pub mod plot;
pub mod recipe;
pub mod report;
pub mod run;
pub mod select;
mod signal;
mod values;
pub mod verify;
mod version;

use std::path::{Path, PathBuf};

use arguments::{AdapterArgs, AdapterPart};
use clap::{CommandFactory, Parser, Subcommand};
use curmerge_formats::adapter::Adapter;
use curmerge_formats::dtype::DType;
use curmerge_formats::mmap;
use curmerge_formats::output::OutputFolder;

use crate::base::{Base, Files};
use crate::commands::report::{errors, progress, terminal};
use crate::convert::to_hugging_face::natural_type;
use crate::convert::{FileType, to_gguf};
use crate::cur::fingerprint::{self, BaseCheck};
use crate::kernels::Cpu;
use crate::lora::Lora;
use crate::merge::{MergeOptions, Storage};
use crate::model::Transformer;
use crate::{Error, Result};

/// Fine-tune a language model on disk with CURLoRA, and hand the result to llama.cpp or Ollama.
#[derive(Debug, Parser)]
#[command(disable_version_flag = true, arg_required_else_help = true)]
pub struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    /// Print the version; with --verbose, also what the program was built with and what it computes with.
    #[arg(short = 'V', long)]
    version: bool,
    /// Say more of the version.
    #[arg(long, requires = "version")]
    verbose: bool,
    /// Threads to compute with [default: all]; results do not depend on it.
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Use no instructions beyond these [default: all that the processor has]; CURMERGE_CPU says the same.
    #[arg(long, global = true, value_name = "LEVEL")]
    cpu: Option<Cpu>,
    /// Print the result as JSON on standard output.
    #[arg(long, global = true)]
    json: bool,
    /// Take options from a TOML file: a table a command, such as [build], with the long names of its options and
    /// the names of its arguments as keys. The command line comes before the file; paths are relative to it.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print all options in effect as a file for --config, and do nothing.
    #[arg(long, global = true)]
    print_config: bool,
    /// What --print-config prints.
    #[arg(skip)]
    printed: Option<String>,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Ask five questions, and write a file for --config that answers them.
    Init(init::InitArgs),
    /// Train an adapter for a base model on a file of examples.
    Build(Box<build::BuildArgs>),
    /// Choose an adapter's columns and rows, with U = 0.
    Select(select::SelectArgs),
    /// Write W + C U R into a new model.
    Merge(merge::MergeArgs),
    /// Write an adapter in the form that another program loads.
    Export(export::ExportArgs),
    /// Find the low-rank difference of two models, as a LoRA.
    Extract(extract::ExtractArgs),
    /// Write a model in other types, or in the other container.
    Convert(convert::ConvertArgs),
    /// Show what files of examples hold: rows, lengths, duplicates, samples.
    Data(data::DataArgs),
    /// Measure perplexity and accuracy.
    Eval(eval::EvalArgs),
    /// Draw the logs of runs that build --metrics wrote, in the terminal or as SVG.
    Plot(plot::PlotArgs),
    /// Check every checksum of an adapter, and of its base.
    Verify(verify::VerifyArgs),
    /// Show what a model file or adapter holds.
    Inspect(inspect::InspectArgs),
    /// List or clear what is kept from one run to the next: texts that a model wrote, and what was measured
    /// on them. CURMERGE_CACHE names the folder, CURMERGE_CACHE_LIMIT its size [default: 4G].
    Cache(cache::CacheArgs),
    /// Talk to a model, with an adapter or without, or continue a text.
    Run(Box<run::RunArgs>),
    /// Train, evaluate, merge and export the small model that the program contains.
    Demo(demo::DemoArgs),
    /// Print what a shell needs to complete commands, options and paths: curmerge completions bash >
    /// ~/.local/share/bash-completion/completions/curmerge
    Completions(documents::CompletionsArgs),
    /// Write manual pages.
    Man(documents::ManArgs),
}

/// Carries out a parsed command line.
pub fn run(line: &CommandLine) -> Result<()> {
    if let Some(text) = &line.printed {
        return terminal::print(text);
    }
    // This thread is one of the pool, so that its sequential work need not wait for another.
    limits::prepare();
    let threads = match line.threads {
        Some(threads) => usize::from(threads),
        None => limits::default_threads()?,
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).use_current_thread();
    pool.build_global()
        .map_err(|e| Error::request(format!("cannot start the threads: {e}"), "use fewer --threads"))?;
    Cpu::choose(line.cpu).map_err(|problem| Error::request(problem, "leave out --cpu and CURMERGE_CPU"))?;
    interrupt::listen()?;
    mmap::watch();
    if line.version { version::print(line.verbose, line.json) } else { carry_out(line) }
}

/// [`run()`], once threads and signals are set up.
fn carry_out(line: &CommandLine) -> Result<()> {
    let Some(command) = &line.command else {
        let problem = "a command is missing; see curmerge --help";
        CommandLine::command().error(clap::error::ErrorKind::MissingSubcommand, problem).exit()
    };
    let mut command = command.clone();
    hub::fetch(&mut command)?;
    match &command {
        Command::Init(args) => init::run(args, line.json),
        Command::Build(args) => build::run(args, line.json),
        Command::Select(args) => replacing(&args.output, || select::run(args, line.json)),
        Command::Merge(args) => replacing(&args.output, || merge::run(args, line.json)),
        Command::Export(args) => replacing(&args.output, || export::run(args, line.json)),
        Command::Extract(args) => replacing(&args.output, || extract::run(args, line.json)),
        Command::Convert(args) => replacing(&args.output, || convert::run(args, line.json)),
        Command::Data(args) => data::run(args, line.json),
        Command::Eval(args) => eval::run(args, line.json),
        Command::Plot(args) => match &args.output {
            Some(output) => replacing(output, || plot::run(args, line.json)),
            None => plot::run(args, line.json),
        },
        Command::Verify(args) => verify::run(args, line.json),
        Command::Inspect(args) => inspect::run(args, line.json),
        Command::Cache(args) => cache::run(args, line.json),
        Command::Run(args) => run::run(args, line.json),
        Command::Demo(args) => demo::run(args, line.json),
        Command::Completions(args) => documents::completions(args),
        Command::Man(args) => documents::man(args),
    }
}

/// The adapter in this file, if it belongs to the base; warns of an allowed other base.
fn adapter_of(base: &Base, path: &Path, allow_other_base: bool) -> Result<Adapter> {
    adapter_kind::refuse_others(path)?;
    let adapter = Adapter::read(path)?;
    if let Some(deviation) = fingerprint::check(base, &adapter, base_check(allow_other_base))? {
        terminal::warn(&errors::deviation(&deviation));
    }
    Ok(adapter)
}

/// What `--allow-other-base` asks for.
fn base_check(allow_other_base: bool) -> BaseCheck {
    if allow_other_base { BaseCheck::AllowOtherValues } else { BaseCheck::SameValues }
}

/// Carries out a command that writes `output`, and says if that replaced a file.
fn replacing(output: &Path, command: impl FnOnce() -> Result<()>) -> Result<()> {
    let stood = output.is_file();
    command()?;
    if stood {
        terminal::warn(&format!("{}: the file that stood there was replaced", output.display()));
    }
    Ok(())
}

/// Says if sequences are longer than those that the model was made for.
fn warn_of_context(model: &Transformer<'_, f32>, tokens: u32, option: &str) {
    let context = model.config().context;
    if tokens as usize > context {
        terminal::warn(&format!(
            "{option} {tokens} is more than the model's context of {context} tokens, beyond which it was not trained"
        ));
    }
}

/// Replaces a Hugging Face folder by a GGUF file with the same values. The file is in the returned folder,
/// beside `out`, which the caller keeps until the base is no longer needed.
fn as_gguf(base: &mut Base, out: &Path) -> Result<Option<OutputFolder>> {
    if !matches!(base.files(), Files::HuggingFace(_)) {
        return Ok(None);
    }
    base.must_be_known()?;
    let file_type = match natural_type(base) {
        // The values of codes, exactly.
        _ if base.decoded_codes_of().is_some() => FileType::F32,
        DType::F16 => FileType::F16,
        DType::BF16 => FileType::BF16,
        _ => FileType::F32,
    };
    let mut beside = out.as_os_str().to_owned();
    beside.push(".base");
    let scratch = OutputFolder::create(Path::new(&beside), &[], false)?;
    let file = scratch.path().join("base.gguf");
    let options = to_gguf::Options { file_type: Some(file_type), imatrix: None };
    let bar = progress::bytes("converting");
    let (_, report) = to_gguf(base, &options, &file, &[], progress::follow(&bar))?;
    bar.finish_and_clear();
    companions::with_notes(&report).iter().for_each(|line| terminal::warn(line));
    let given = base.given_chat().clone();
    *base = Base::open(&file)?;
    *base.given_chat_mut() = given;
    Ok(Some(scratch))
}

/// Stores the merge of a base that [`as_gguf`] made of matrices quantized by this method in half precision, unless
/// another type is asked for: GGUF has no form of the method, and the file of [`as_gguf`] is twice as large.
fn store_in_half(options: &mut MergeOptions<'_>, method: &str) {
    if options.file_type.is_some() {
        return;
    }
    options.file_type = Some(FileType::F16);
    if let Storage::Narrowest { .. } = options.storage {
        options.storage = Storage::AsStored;
    }
    terminal::warn(&format!(
        "GGUF has no form of {method}, so the merged model is stored in F16; --type q4_k_m and others make it smaller"
    ));
}

/// Opens a base of a known architecture; warns of what its files contradict each other in.
fn open(path: &Path) -> Result<Base> {
    let base = open_any(path)?;
    base.must_be_known()?;
    Ok(base)
}

/// [`open`] of a base whose architecture need not be known.
fn open_any(path: &Path) -> Result<Base> {
    let base = Base::open_any(path)?;
    base.notes().iter().for_each(|note| terminal::warn(note));
    Ok(base)
}

/// Warns if files of the base hold different chat templates.
fn warn_of_templates(base: &Base) -> Result<()> {
    base.chat_templates()?.conflict().into_iter().for_each(terminal::warn);
    Ok(())
}

/// The LoRA at this path for the base; warns of what a user should know of it.
fn lora_of(base: &Base, path: &Path) -> Result<Lora> {
    let lora = Lora::open(path, base)?;
    lora.notes(base)?.iter().for_each(|note| terminal::warn(note));
    Ok(lora)
}

/// The model of the base, with the adapters attached. They must belong to the base; a LoRA does not record its
/// base, so its names and shapes must fit.
fn adapted_model<'a>(base: &'a Base, beside: &AdapterArgs) -> Result<Transformer<'a, f32>> {
    let mut model = Transformer::new(base)?;
    for (number, AdapterPart { path, factor }) in beside.adapters.iter().enumerate() {
        if number > 0 {
            model.freeze_terms();
        }
        let factor = factor * beside.scale;
        if Lora::is_lora(path) {
            let targets = lora_of(base, path)?.thin_targets(base, factor)?;
            model.attach_lora(&targets, 1.0).map_err(|e| e.in_file(path))?;
            continue;
        }
        let adapter = adapter_of(base, path, beside.allow_other_base)?;
        let scale = adapter.scale * factor;
        if !scale.is_finite() {
            return Err(Error::request(
                format!("a scale of {scale} cannot be used"),
                "give a finite --scale and factor",
            ));
        }
        model.attach(&adapter.targets, scale).map_err(|e| e.in_file(path))?;
    }
    Ok(model)
}
