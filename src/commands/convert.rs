//! `curmerge convert`: a model in other types, or in another container.

use std::path::{Path, PathBuf};

use clap::Args;
use curmerge_formats::detect::{Container, detect};
use curmerge_formats::gguf::GgufModel;
use curmerge_formats::imatrix::Imatrix;
use serde_json::json;

use crate::base::{self, Base};
use crate::convert::{ConvertReport, FileType, retype, to_gguf};
use crate::report::{progress, terminal};
use crate::{Error, Result};

/// Options of `curmerge convert`.
#[derive(Clone, Debug, Args)]
pub struct ConvertArgs {
    /// The model: a GGUF file (of splits the first), a Hugging Face folder, or ollama:NAME[:TAG].
    pub input: PathBuf,
    /// The file to write, a name ending in .gguf.
    pub output: PathBuf,
    /// The types to store it in, by llama-quantize's names [default for a folder: its own half precision].
    #[arg(long = "type", value_name = "TYPE", value_enum, ignore_case = true)]
    pub file_type: Option<FileType>,
    /// Importance matrix as llama-imatrix writes it: weights by which rounding errors of columns count.
    #[arg(long, value_name = "FILE")]
    pub imatrix: Option<PathBuf>,
}

/// Convert and report.
pub fn run(args: &ConvertArgs, json: bool) -> Result<()> {
    let input = base::resolve(&args.input)?;
    let container = detect(&input)?;
    if args.output.extension().is_none_or(|ending| !ending.eq_ignore_ascii_case("gguf")) {
        let mend = "give it that ending; other containers are not written yet";
        return Err(Error::input(&args.output, "output", "the name does not end in .gguf", mend));
    }
    let imatrix = args.imatrix.as_ref().map(|path| Imatrix::open(path)).transpose()?;
    let (file_type, report) = match container {
        Container::Gguf => gguf_in_other_types(args, &input, imatrix.as_ref())?,
        Container::HfFolder => folder_to_gguf(args, &input, imatrix.as_ref())?,
        _ => {
            let mend = "name a GGUF file, or a Hugging Face folder";
            return Err(Error::input(&input, "container", "neither can be converted", mend));
        }
    };
    for line in &report.notes {
        terminal::warn(line);
    }
    if json {
        return terminal::print_json(&json!({
            "output": args.output,
            "type": file_type.to_string(),
            "bytes_before": report.bytes_before,
            "bytes_after": report.bytes_after,
            "types": report.types,
            "notes": report.notes,
        }));
    }
    terminal::print(&text(args, &report))
}

fn gguf_in_other_types(
    args: &ConvertArgs,
    input: &Path,
    imatrix: Option<&Imatrix>,
) -> Result<(FileType, ConvertReport)> {
    let Some(file_type) = args.file_type else {
        let mend = "say in which with --type, for example q8_0 or q4_k_m";
        return Err(Error::request("a GGUF file is converted into other types", mend));
    };
    let gguf = GgufModel::open(input)?;
    let mut inputs: Vec<&Path> = gguf.files().iter().map(|file| file.path()).collect();
    inputs.extend(args.imatrix.as_deref());
    let bar = progress::bytes("converting");
    let report = retype(&gguf, file_type, imatrix, &args.output, &inputs, |read, of| {
        bar.set_length(of);
        bar.set_position(read);
    })?;
    bar.finish_and_clear();
    Ok((file_type, report))
}

fn folder_to_gguf(
    args: &ConvertArgs,
    input: &Path,
    imatrix: Option<&Imatrix>,
) -> Result<(FileType, ConvertReport)> {
    let base = Base::open(input)?;
    let options = to_gguf::Options { file_type: args.file_type, imatrix };
    let protect: Vec<PathBuf> = args.imatrix.iter().cloned().collect();
    let bar = progress::bytes("converting");
    let done = to_gguf(&base, &options, &args.output, &protect, |read, of| {
        bar.set_length(of);
        bar.set_position(read);
    })?;
    bar.finish_and_clear();
    Ok(done)
}

fn text(args: &ConvertArgs, report: &ConvertReport) -> String {
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let types: Vec<String> = report.types.iter().map(|(name, count)| format!("{count} {name}")).collect();
    format!(
        "tensors   {}\nsize      {:.1} MB before, {:.1} MB now\nconverted {}\n",
        types.join(", "),
        megabytes(report.bytes_before),
        megabytes(report.bytes_after),
        args.output.display()
    )
}
