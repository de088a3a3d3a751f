//! `curmerge convert` into ONNX: one file, or a folder with it.

use std::path::Path;

use clap::{Args, ValueEnum};

use super::ConvertArgs;
use crate::commands::{self, report::progress};
use crate::convert::{ConvertReport, OnnxOptions, OnnxType, to_onnx, to_onnx_folder};
use crate::{Error, Result};

/// What a folder is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FolderFormat {
    /// transformers: safetensors.
    Safetensors,
    /// onnxruntime, optimum and transformers.js: model.onnx.
    Onnx,
}

/// Options of ONNX outputs.
#[derive(Clone, Debug, Args)]
pub struct OnnxArgs {
    /// Format of a folder [default: safetensors].
    #[arg(long, value_enum)]
    pub format: Option<FolderFormat>,
    /// ONNX: store the weights in a separate file, OUT.onnx_data, even below 2 GB.
    #[arg(long)]
    pub external_data: bool,
    /// Folder in ONNX: make the model for onnxruntime-genai, with the operator GroupQueryAttention and a
    /// genai_config.json.
    #[arg(long)]
    pub genai: bool,
    /// ONNX: add inputs for LoRAs of these matrices, named as in --targets of build, such as q,v. The model
    /// also runs without an adapter; `export --format onnx-adapter` makes adapters for it.
    #[arg(long, value_name = "TARGETS")]
    pub lora_inputs: Option<String>,
}

impl OnnxArgs {
    /// Whether the output is an ONNX model, alone or in a folder.
    pub(super) fn wanted(&self, ending: Option<&str>) -> bool {
        ending == Some("onnx") || self.format == Some(FolderFormat::Onnx)
    }

    /// Refuses these options for other outputs.
    pub(super) fn must_be_unused(&self, output: &Path, ending: Option<&str>) -> Result<()> {
        if self.external_data || self.genai || self.lora_inputs.is_some() {
            let problem = "--external-data, --genai and --lora-inputs are for ONNX models";
            return Err(Error::input(
                output,
                "output",
                problem,
                "name a .onnx file or give --format onnx, or leave them out",
            ));
        }
        if self.format.is_some() && ending == Some("gguf") {
            let problem = "--format is for folders";
            return Err(Error::input(output, "output", problem, "name a folder, or leave it out"));
        }
        Ok(())
    }
}

/// Converts into ONNX. Returns the name of the type, and a report.
pub(super) fn convert(
    input: &Path,
    args: &ConvertArgs,
    ending: Option<&str>,
) -> Result<(String, ConvertReport)> {
    let alone = ending == Some("onnx");
    let refuse = |problem: &str, help: &str| Err(Error::input(&args.output, "output", problem, help));
    if alone && (args.force || args.onnx.genai || args.onnx.format == Some(FolderFormat::Safetensors)) {
        let problem = "--force, --genai and --format safetensors are for folders";
        return refuse(problem, "name a folder without such an ending, or leave them out");
    }
    if !alone && ending == Some("gguf") {
        return refuse("the name ends like a GGUF file's", "name a folder, or leave out --format");
    }
    if args.max_shard_size.is_some() {
        return refuse("--max-shard-size is for safetensors files", "leave it out");
    }
    if let Some(imatrix) = &args.imatrix {
        let problem = "ONNX models are quantized without an importance matrix";
        return Err(Error::file(imatrix, problem, "leave out --imatrix"));
    }
    let file_type = args.file_type.map(OnnxType::of).transpose()?.unwrap_or_default();
    let OnnxArgs { external_data, genai, lora_inputs, .. } = args.onnx.clone();
    let options = OnnxOptions { file_type, external_data, genai, lora_inputs, force: args.force };
    let base = commands::open(input)?;
    let bar = progress::bytes("converting");
    let report = match alone {
        true => to_onnx(&base, &args.output, &options, progress::follow(&bar))?,
        false => to_onnx_folder(&base, &args.output, &options, progress::follow(&bar))?,
    };
    bar.finish_and_clear();
    Ok((file_type.to_string(), report))
}
