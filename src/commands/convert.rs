//! `curmerge convert`: a model in other types.

use std::path::{Path, PathBuf};

use clap::Args;
use curmerge_formats::detect::{Container, detect};
use curmerge_formats::gguf::GgufModel;
use curmerge_formats::imatrix::Imatrix;
use serde_json::json;

use crate::base;
use crate::convert::{ConvertReport, FileType, retype};
use crate::report::{progress, terminal};
use crate::{Error, Result};

/// Options of `curmerge convert`.
#[derive(Clone, Debug, Args)]
pub struct ConvertArgs {
    /// The model: a GGUF file (of splits the first), or ollama:NAME[:TAG].
    pub input: PathBuf,
    /// The file to write, a name ending in .gguf.
    pub output: PathBuf,
    /// The types to store it in, by llama-quantize's names.
    #[arg(long = "type", value_name = "TYPE", value_enum, ignore_case = true)]
    pub file_type: FileType,
    /// Importance matrix as llama-imatrix writes it: weights by which rounding errors of columns count.
    #[arg(long, value_name = "FILE")]
    pub imatrix: Option<PathBuf>,
}

/// Convert and report.
pub fn run(args: &ConvertArgs, json: bool) -> Result<()> {
    let input = base::resolve(&args.input)?;
    if detect(&input)? != Container::Gguf {
        let mend = "name a GGUF file; convert_hf_to_gguf.py of llama.cpp makes one of a Hugging Face folder";
        return Err(Error::input(&input, "container", "only GGUF files can be converted yet", mend));
    }
    if args.output.extension().is_none_or(|ending| !ending.eq_ignore_ascii_case("gguf")) {
        let mend = "give it that ending; other containers are not written yet";
        return Err(Error::input(&args.output, "output", "the name does not end in .gguf", mend));
    }
    let gguf = GgufModel::open(&input)?;
    let imatrix = args.imatrix.as_ref().map(|path| Imatrix::open(path)).transpose()?;
    let mut inputs: Vec<&Path> = gguf.files().iter().map(|file| file.path()).collect();
    inputs.extend(args.imatrix.as_deref());
    let bar = progress::bytes("converting");
    let report = retype(&gguf, args.file_type, imatrix.as_ref(), &args.output, &inputs, |read, of| {
        bar.set_length(of);
        bar.set_position(read);
    })?;
    bar.finish_and_clear();
    for line in &report.notes {
        terminal::warn(line);
    }
    if json {
        return terminal::print_json(&json!({
            "output": args.output,
            "type": args.file_type.to_string(),
            "bytes_before": report.bytes_before,
            "bytes_after": report.bytes_after,
            "types": report.types,
            "notes": report.notes,
        }));
    }
    terminal::print(&text(args, &report))
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
