//! `curmerge convert`: a model with other types, or in another container.

mod onnx;

use std::path::{Path, PathBuf};

use clap::Args;
use curmerge_formats::detect::{Container, detect};
use curmerge_formats::dtype::DType;
use curmerge_formats::gguf::GgufModel;
use curmerge_formats::imatrix::Imatrix;
use serde_json::json;

use super::arguments::{OutputTemplateArgs, parse_size};
use super::companions;
use crate::base::{self, Base};
use crate::commands::report::{progress, terminal};
use crate::convert::to_hugging_face::natural_type;
use crate::convert::{ConvertReport, FileType, FolderOptions, retype, to_gguf, to_hugging_face};
use crate::{Error, Result};
use onnx::OnnxArgs;

/// Options of `curmerge convert`.
#[derive(Clone, Debug, Args)]
pub struct ConvertArgs {
    /// The model: a GGUF file (of splits the first), a Hugging Face folder, an ONNX file with its
    /// configuration and tokenizer beside it or a folder with one, `ollama:NAME[:TAG]`, or of the Hugging Face Hub
    /// `hf:OWNER/NAME[:FILE|QUANT][@REVISION]`.
    pub input: PathBuf,
    /// What to write: a name that ends in .gguf or .onnx, or a folder for transformers (with --format onnx,
    /// for onnxruntime and transformers.js), whose name has no such ending.
    pub output: PathBuf,
    /// Types of the output, by llama-quantize's names. A folder takes f32, f16 or bf16; ONNX takes f32, f16,
    /// q4_0 or q4_1. [default: from a folder its own half precision; into a folder the type of the model, or
    /// f16 if it is quantized, which rounds less than bf16, while f32 is exact; into ONNX f32]
    #[arg(long = "type", value_name = "TYPE", value_enum, ignore_case = true)]
    pub file_type: Option<FileType>,
    /// Importance matrix of llama-imatrix: how much the rounding errors of each column count.
    #[arg(long, value_name = "FILE")]
    pub imatrix: Option<PathBuf>,
    /// Of a folder: upper limit of the bytes of tensors in one file, such as 2G or 500M (powers of 1000)
    /// [default: 5G].
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub max_shard_size: Option<u64>,
    /// The chat template of the output.
    #[command(flatten)]
    pub template: OutputTemplateArgs,
    /// Replace an existing folder.
    #[arg(long)]
    pub force: bool,
    /// Options of ONNX outputs.
    #[command(flatten)]
    pub onnx: OnnxArgs,
}

/// Converts, and prints a report.
pub fn run(args: &ConvertArgs, json: bool) -> Result<()> {
    let input = base::resolve(&args.input)?;
    let container = detect(&input)?;
    let ending = args.output.extension().map(|ending| ending.to_ascii_lowercase());
    let ending = ending.as_ref().and_then(|ending| ending.to_str());
    let to_onnx = args.onnx.wanted(ending);
    if !to_onnx {
        args.onnx.must_be_unused(&args.output, ending)?;
    }
    let (type_name, report) = match (container, ending) {
        (Container::Gguf | Container::HfFolder | Container::Onnx, _) if to_onnx => {
            args.template.must_be_unused(&args.output)?;
            onnx::convert(&input, args, ending)?
        }
        (Container::Gguf, Some("gguf")) => to_other_types(&input, args)?,
        (Container::HfFolder | Container::Onnx, Some("gguf")) => folder_to_gguf(&input, args)?,
        (_, Some("safetensors")) => {
            let help = "name a .gguf or .onnx file, or a folder without such an ending";
            return Err(Error::input(&args.output, "output", "the name ends like a single file's", help));
        }
        (Container::Gguf | Container::Onnx, _) => to_folder(&input, args)?,
        (Container::HfFolder, _) => {
            let problem =
                "a Hugging Face folder is converted into a GGUF file, and the name does not end in .gguf";
            return Err(Error::input(&args.output, "output", problem, "give it that ending"));
        }
        _ => {
            let help = "name a GGUF or ONNX file, or a Hugging Face folder";
            return Err(Error::input(&input, "container", "it is not a model that can be converted", help));
        }
    };
    let notes = companions::with_notes(&report);
    for line in &notes {
        terminal::warn(line);
    }
    if json {
        return terminal::print_json(&json!({
            "output": args.output,
            "type": type_name,
            "bytes_before": report.bytes_before,
            "bytes_after": report.bytes_after,
            "types": report.types,
            "notes": notes,
        }));
    }
    terminal::print(&text(args, &report))
}

/// Refuses options that only folders take.
fn check_file_options(args: &ConvertArgs) -> Result<()> {
    if args.max_shard_size.is_some() || args.force {
        let problem = "--max-shard-size and --force are for folders";
        return Err(Error::input(&args.output, "output", problem, "name a folder, or leave them out"));
    }
    Ok(())
}

fn imatrix(args: &ConvertArgs) -> Result<Option<Imatrix>> {
    Ok(args.imatrix.as_ref().map(Imatrix::open).transpose()?)
}

fn to_other_types(input: &Path, args: &ConvertArgs) -> Result<(String, ConvertReport)> {
    check_file_options(args)?;
    let Some(file_type) = args.file_type else {
        let help = "give them with --type, for example --type q4_k_m";
        return Err(Error::input(&args.output, "output", "the types of the new file are missing", help));
    };
    let gguf = GgufModel::open(input)?;
    let imatrix = imatrix(args)?;
    let mut inputs: Vec<&Path> = gguf.files().iter().map(|file| file.path()).collect();
    inputs.extend(args.imatrix.as_deref());
    let mut base = Base::open_any(input)?;
    args.template.apply(&mut base)?;
    let template = base.given_chat().template.as_deref();
    let bar = progress::bytes("converting");
    let follow = progress::follow(&bar);
    let report = retype(&gguf, file_type, imatrix.as_ref(), &args.output, &inputs, template, follow)?;
    bar.finish_and_clear();
    Ok((file_type.to_string(), report))
}

fn folder_to_gguf(input: &Path, args: &ConvertArgs) -> Result<(String, ConvertReport)> {
    check_file_options(args)?;
    let mut base = super::open(input)?;
    args.template.apply(&mut base)?;
    if base.given_chat().template.is_none() {
        super::warn_of_templates(&base)?;
    }
    let imatrix = imatrix(args)?;
    let options = to_gguf::Options { file_type: args.file_type, imatrix: imatrix.as_ref() };
    let protect: Vec<PathBuf> = args.imatrix.iter().cloned().collect();
    let bar = progress::bytes("converting");
    let (file_type, report) = to_gguf(&base, &options, &args.output, &protect, progress::follow(&bar))?;
    bar.finish_and_clear();
    Ok((file_type.to_string(), report))
}

fn to_folder(input: &Path, args: &ConvertArgs) -> Result<(String, ConvertReport)> {
    if let Some(imatrix) = &args.imatrix {
        let problem = "a folder is not quantized, so it needs no importance matrix";
        return Err(Error::file(imatrix, problem, "leave out --imatrix, or name a .gguf file as output"));
    }
    let dtype = match args.file_type {
        None => None,
        Some(FileType::F32) => Some(DType::F32),
        Some(FileType::F16) => Some(DType::F16),
        Some(FileType::BF16) => Some(DType::BF16),
        Some(other) => {
            let problem = format!("a Hugging Face folder is not stored as {other}");
            let help = "use --type f32, f16 or bf16, or give the output's name the ending .gguf";
            return Err(Error::input(&args.output, "output", problem, help));
        }
    };
    let mut base = super::open(input)?;
    args.template.apply(&mut base)?;
    let dtype = dtype.unwrap_or_else(|| natural_type(&base));
    let options =
        FolderOptions { dtype: Some(dtype), max_shard_size: args.max_shard_size, force: args.force };
    let bar = progress::bytes("converting");
    let report = to_hugging_face(&base, &args.output, &options, progress::follow(&bar))?;
    bar.finish_and_clear();
    Ok((dtype.to_string(), report))
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
