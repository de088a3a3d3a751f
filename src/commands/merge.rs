//! `curmerge merge`: W + C U R, with one adapter or several, as a new model file.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use serde_json::json;

use super::arguments::{AdapterPart, OutputTemplateArgs, StorageArgs, parse_size};
use super::combined::{self, CombineArgs, Opened};
use super::{adapter_kind, base_check, merged};
use crate::Result;
use crate::base::{self, Files};
use crate::commands::report::{errors, progress, terminal};
use crate::merge::{BaseCheck, MergeOptions, merge};

/// Options of `curmerge merge`.
#[derive(Clone, Debug, Args)]
pub struct MergeArgs {
    /// Base model: a GGUF file (of splits the first), a Hugging Face folder, an ONNX file,
    /// `ollama:NAME[:TAG]`, or of the Hugging Face Hub `hf:OWNER/NAME[:FILE|QUANT][@REVISION]`.
    pub base: PathBuf,
    /// The adapters, each with an optional =FACTOR of its change: curmerge's own, PEFT LoRA folders, GGUF
    /// LoRA files, `hf:OWNER/NAME[:FILE]`.
    #[arg(required = true, value_name = "ADAPTER[=FACTOR]", value_parser = AdapterPart::parser(), value_hint = ValueHint::AnyPath)]
    pub adapters: Vec<AdapterPart>,
    /// The model to write: a name that ends in .gguf; for a GGUF base with --max-shard-size a folder for its
    /// splits; for a Hugging Face folder another folder.
    #[arg(short, long, value_name = "OUT")]
    pub output: PathBuf,
    /// How the adapters become one before.
    #[command(flatten)]
    pub combine: CombineArgs,
    /// Types of the changed tensors.
    #[command(flatten)]
    pub storage: StorageArgs,
    /// Upper limit of the bytes of tensors in one file, such as 2G or 500M (powers of 1000). A GGUF model
    /// becomes splits that llama.cpp opens, OUT/OUT-00001-of-00003.gguf and so on. A Hugging Face folder gets
    /// model-00001-of-00003.safetensors and so on, with an index. [default: one GGUF file, or the folder's
    /// own shards]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub max_shard_size: Option<u64>,
    /// Multiplies the adapters' own scales.
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    pub scale: f32,
    /// The chat template of the output.
    #[command(flatten)]
    pub template: OutputTemplateArgs,
    /// Replace an existing folder.
    #[arg(long)]
    pub force: bool,
    /// Merge an adapter that was trained on other values of this model, such as another quantization.
    #[arg(long)]
    pub allow_other_base: bool,
}

/// Merges, and prints a report.
pub fn run(args: &MergeArgs, json: bool) -> Result<()> {
    let mut base = super::open_any(&args.base)?;
    let like_gguf = args.output.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gguf"));
    let quantized = base.decoded_codes_of().filter(|_| like_gguf);
    let scratch = if like_gguf { super::as_gguf(&mut base, &args.output)? } else { None };
    args.template.apply(&mut base)?;
    if let Files::Onnx(_) = base.files() {
        args.template.must_be_unused(&args.output)?;
    }
    adapter_kind::warn_of_templates(&base, &args.adapters)?;
    let combines = args.combine.combine.is_some();
    let opened = args.adapters.iter().map(|part| match combines {
        true => Opened::checked(&base, &part.path, args.allow_other_base),
        // The merge checks them while it writes.
        false => Opened::unchecked(&base, &part.path),
    });
    let opened = opened.collect::<Result<Vec<_>>>()?;
    let mut sources = combined::sources(&opened, &args.adapters);
    let one = combines.then(|| args.combine.combined(&base, &sources)).transpose()?;
    if let Some(one) = &one {
        sources = vec![(one.source(), 1.0)];
    }
    sources.iter_mut().for_each(|(_, factor)| *factor *= args.scale);
    let imatrix = args.storage.imatrix()?;
    // The base as it was named, not as it was converted.
    let inputs = args.adapters.iter().map(|part| part.path.clone()).chain([base::resolve(&args.base)?]);
    let mut options = MergeOptions {
        base_check: if combines { BaseCheck::Skip } else { base_check(args.allow_other_base) },
        max_shard_size: args.max_shard_size,
        force: args.force,
        ..args.storage.options(imatrix.as_ref(), inputs)?
    };
    if let Some(method) = quantized {
        super::store_in_half(&mut options, method);
    }
    let bar = progress::bar("merging", 0);
    let report = merge(&base, &sources, &options, &args.output, progress::follow(&bar))?;
    bar.finish_and_clear();
    drop(scratch);
    for deviation in &report.deviations {
        terminal::warn(&errors::deviation(deviation));
    }
    for line in merged::warnings(&report) {
        terminal::warn(&line);
    }
    if json {
        return terminal::print_json(&json!({
            "output": args.output,
            "model": report.model,
            "tensors": report.worst_first(),
            "notes": merged::notes(&report),
        }));
    }
    terminal::print(&(merged::table(&report) + &format!("merged   {}\n", report.model.display())))
}
