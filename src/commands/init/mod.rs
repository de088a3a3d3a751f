//! `curmerge init`: five questions, and a file for `--config` that answers them.

mod data;
mod fit;
mod question;
mod recipe;
mod task;

use std::path::{Path, PathBuf};

use clap::Args;
use curmerge_formats::output::OutputFile;
use serde_json::json;

use super::arguments::parse_size;
use super::hub;
use super::report::terminal;
use crate::base::Base;
use crate::{Error, Result};
use data::Data;
use fit::Fit;
use question::Questions;
use recipe::Recipe;
use task::Task;

/// The adapter that a run writes, unless another name is given.
const ADAPTER: &str = "adapter.safetensors";

/// Options of `curmerge init`. On a terminal it asks for those that are not given.
#[derive(Clone, Debug, Args)]
pub struct InitArgs {
    /// Base model: a GGUF file, a Hugging Face folder, an ONNX file, `ollama:NAME[:TAG]`, or of the Hugging Face Hub
    /// `hf:OWNER/NAME[:FILE|QUANT][@REVISION]`.
    #[arg(long)]
    pub base: Option<PathBuf>,
    /// Training examples, as for build. It may be given several times.
    #[arg(long, value_name = "FILE|FOLDER")]
    pub data: Vec<PathBuf>,
    /// What the examples teach [default: what they look like].
    #[arg(long, value_enum)]
    pub task: Option<Task>,
    /// Memory that training may take beside the model's file, such as 4G [default: what is free].
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub memory: Option<u64>,
    /// The adapter that build is to write [default: adapter.safetensors].
    #[arg(long, value_name = "ADAPTER")]
    pub adapter: Option<PathBuf>,
    /// The file to write.
    #[arg(short, long, value_name = "FILE", default_value = "run.toml")]
    pub output: PathBuf,
    /// Replace an existing file.
    #[arg(long)]
    pub force: bool,
}

/// Asks, checks the answers, writes the file, and says what to run next.
pub fn run(args: &InitArgs, json: bool) -> Result<()> {
    let mut questions = Questions::open();
    let output = args.output.as_path();
    if output.exists() && !args.force && !questions.agree(&replaces(output))? {
        let problem = "the file exists, and was left as it is";
        return Err(Error::file(output, problem, "name another one with -o, or replace it with --force"));
    }
    let base = questions.answer(
        "Base model (a GGUF file, a Hugging Face folder, an ONNX file, ollama:NAME, hf:OWNER/NAME:QUANT)",
        ("--base", None),
        args.base.clone(),
        |text| Ok(PathBuf::from(text)),
        |path| super::open(&hub::base(path)?),
    )?;
    let (base_path, base) = base;
    tell(json, &format!("  {}\n", described(&base)))?;
    let given = (!args.data.is_empty()).then(|| args.data.clone());
    let (data_paths, data) = questions.answer(
        "Examples (a file of JSON lines, a table or a text, or a folder of them)",
        ("--data", None),
        given,
        |text| Ok(vec![PathBuf::from(text)]),
        |paths| Data::read(&hub::data(paths)?, &base),
    )?;
    tell(json, &data.text())?;
    let guess = data.task();
    let (task, ()) = questions.answer(
        &format!("What they teach ({})", Task::names()),
        ("--task", Some(guess.name().to_owned())),
        args.task,
        Task::parse,
        |_| Ok(()),
    )?;
    let free = fit::available();
    let (memory, fit) = questions.answer(
        "Memory for training, beside the model's file",
        ("--memory", Some(fit::size(free))),
        args.memory,
        |text| parse_size(text).map_err(|problem| Error::request(problem, "give another size")),
        |memory| Fit::new(&base, *memory),
    )?;
    tell(json, &format!("  {}\n", fit.text(memory)))?;
    let (adapter, ()) = questions.answer(
        "Adapter to write",
        ("--adapter", Some(ADAPTER.to_owned())),
        args.adapter.clone(),
        |text| Ok(PathBuf::from(text)),
        |path| writable(path, &[base_path.as_path(), output]),
    )?;
    let recipe = Recipe {
        base_path: &base_path,
        base: &base,
        data_paths: &data_paths,
        data: &data,
        task,
        memory,
        fit: &fit,
        adapter: &adapter,
    };
    let text = recipe.text(output)?;
    let mut inputs = base.inputs();
    inputs.extend(data_paths.iter().map(PathBuf::as_path));
    let mut file = OutputFile::create(output, &inputs)?;
    file.append(text.as_bytes())?;
    file.commit()?;
    if json {
        return terminal::print_json(
            &json!({ "recipe": output, "task": task.name(), "needs_bytes": fit.needs() }),
        );
    }
    let shown = output.display();
    terminal::print(&format!(
        "\nwrote {shown}. Next:\n\n    curmerge build --config {shown}\n    curmerge merge --config {shown}\n"
    ))
}

/// Prints what an answer led to.
fn tell(json: bool, text: &str) -> Result<()> {
    if json { Ok(()) } else { terminal::print(text) }
}

fn replaces(output: &Path) -> String {
    format!("{} exists. Replace it?", terminal::plain(&output.to_string_lossy()))
}

/// What the base is, in words.
fn described(base: &Base) -> String {
    let config = base.config();
    let bytes: u64 = base.tensors().values().map(|tensor| base.bytes(tensor).len() as u64).sum();
    let numbers: u64 = base.tensors().values().map(|tensor| tensor.shape.iter().product::<u64>()).sum();
    format!(
        "{} ({}, {}), {:.0} million numbers in {:.1} MB, {} blocks of width {}, context {}",
        terminal::plain(&base.name()),
        base.architecture().name,
        base.container(),
        numbers as f64 / 1e6,
        bytes as f64 / 1e6,
        config.layers,
        config.d_model,
        config.context
    )
}

/// Refuses an adapter that would replace something, or that lies in a folder that does not exist.
fn writable(path: &Path, others: &[&Path]) -> Result<()> {
    if others.contains(&path) {
        return Err(Error::file(path, "is another file of the run", "give the adapter another name"));
    }
    if path.exists() {
        return Err(Error::file(path, "exists", "name a new file"));
    }
    match path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()) {
        Some(folder) => Err(Error::file(folder, "is no folder", "make it first, or name another one")),
        None => Ok(()),
    }
}
