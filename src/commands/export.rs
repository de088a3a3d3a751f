//! `curmerge export`: an adapter in the form that another program loads.

use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};
use serde_json::json;

use super::arguments::{AdapterPart, StorageArgs, TemplateArgs};
use super::combined::{self, CombineArgs, Opened};
use super::{adapter_kind, merged};
use crate::base::{self, Base};
use crate::combine::{Combination, Combined};
use crate::commands::report::{progress, terminal};
use crate::export::ollama::{self, Prompts};
use crate::export::{Format, Trained, export, no_cur};
use crate::lora::{Lora, TrainedLora, peft};
use crate::merge::{BaseCheck, MergeOptions};
use crate::{Error, Result};

/// Options of `curmerge export`.
#[derive(Clone, Debug, Args)]
pub struct ExportArgs {
    /// The adapter: curmerge's own, a LoRA folder of PEFT or mlx-lm, a GGUF LoRA file, or `hf:OWNER/NAME[:FILE]`.
    /// Several become one, each with an optional =FACTOR of its change: their exact sum, or what --combine says.
    #[arg(required = true, value_name = "ADAPTER[=FACTOR]", value_parser = AdapterPart::parser(), value_hint = ValueHint::AnyPath)]
    pub adapters: Vec<AdapterPart>,
    /// Base model: a GGUF file, a Hugging Face folder, an ONNX file, `ollama:NAME[:TAG]`, or of the Hugging Face Hub
    /// `hf:OWNER/NAME[:FILE|QUANT][@REVISION]`, such as `hf:OWNER/NAME:Q4_K_M`.
    #[arg(long)]
    pub base: PathBuf,
    /// What to write [default: what the ending of OUT says: .gguf gguf, .onnx_adapter onnx-adapter, none peft,
    /// any other curmerge].
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// Where to write it: a file, or for PEFT and Ollama a folder.
    #[arg(short, long, value_name = "OUT")]
    pub output: PathBuf,
    /// How several adapters become one.
    #[command(flatten)]
    pub combine: CombineArgs,
    /// Types of the changed tensors in the model for Ollama.
    #[command(flatten)]
    pub storage: StorageArgs,
    /// The template that Ollama is to use.
    #[command(flatten)]
    pub template: TemplateArgs,
    /// Replace an existing folder.
    #[arg(long)]
    pub force: bool,
    /// Export an adapter that was trained on other values of this model, such as another quantization.
    #[arg(long)]
    pub allow_other_base: bool,
}

/// Exports, and prints what was written.
pub fn run(args: &ExportArgs, json: bool) -> Result<()> {
    let base = super::open_any(&args.base)?;
    let format = args.format.unwrap_or_else(|| Format::of_output(&args.output));
    if !matches!(format, Format::Gguf | Format::Curmerge) {
        base.must_be_known()?;
    }
    if format == Format::Ollama {
        return for_ollama(args, base, json);
    }
    args.template.must_be_unused("--format ollama")?;
    if args.storage.is_given() {
        let problem = "--type and --type-adapted are for --format ollama: the matrices of a LoRA are F32";
        return Err(Error::request(problem, "leave them out"));
    }
    let is_lora = |part: &AdapterPart| Lora::is_lora(&part.path);
    let makes_lora =
        args.combine.combine.is_some_and(Combination::is_svd) || args.adapters.iter().any(is_lora);
    if format == Format::Curmerge && makes_lora {
        return Err(no_cur(&args.output));
    }
    if format == Format::Curmerge && args.allow_other_base {
        let problem = "an adapter of curmerge's own records the base that it was trained on, and these were trained on another";
        return Err(Error::request(problem, "name their own base, without --allow-other-base"));
    }
    let opened = opened(args, &base)?;
    let one = one(args, &base, &opened)?;
    let trained = match &one {
        Combined::Cur(adapter) => Trained::Cur(adapter),
        Combined::Lora(lora) => Trained::Lora(lora),
    };
    let files: Vec<PathBuf> = args.adapters.iter().flat_map(|part| Lora::files(&part.path)).collect();
    let inputs: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    export(&base, trained, format, &args.output, &inputs, args.force)?;
    let written = if format == Format::Peft { args.output.join(peft::WEIGHTS) } else { args.output.clone() };
    let bytes = std::fs::metadata(&written).map_err(|e| Error::io(&written, "read", e))?.len();
    if json {
        return terminal::print_json(&json!({ "output": args.output, "bytes": bytes }));
    }
    terminal::print(&format!("exported {} ({bytes} bytes)\n", args.output.display()))
}

fn opened(args: &ExportArgs, base: &Base) -> Result<Vec<Opened>> {
    let opened = args.adapters.iter().map(|part| Opened::checked(base, &part.path, args.allow_other_base));
    opened.collect()
}

/// The adapters as one: a single one with its whole change as it is.
fn one(args: &ExportArgs, base: &Base, opened: &[Opened]) -> Result<Combined> {
    let whole = matches!(args.adapters[..], [AdapterPart { factor: 1.0, .. }]);
    Ok(match opened {
        [Opened::Cur(adapter)] if whole && args.combine.combine.is_none() => {
            Combined::Cur(Box::new(adapter.clone()))
        }
        [Opened::Lora(lora)] if whole && args.combine.combine.is_none() => {
            Combined::Lora(TrainedLora::of(lora, base)?)
        }
        _ => args.combine.combined(base, &combined::sources(opened, &args.adapters))?,
    })
}

/// Exports for Ollama, which takes GGUF files.
fn for_ollama(args: &ExportArgs, mut base: Base, json: bool) -> Result<()> {
    args.template.apply(&mut base)?;
    adapter_kind::warn_of_templates(&base, &args.adapters)?;
    let named = opened(args, &base)?;
    // Which method another program had quantized it by.
    let quantized = base.decoded_codes_of();
    let _scratch = super::as_gguf(&mut base, &args.output)?;
    let base = &base;
    // LoRAs have other names and orders of rows in the file.
    let own = named.into_iter().zip(&args.adapters).map(|(opened, part)| match opened {
        Opened::Lora(_) => Lora::open(&part.path, base).map(Opened::Lora),
        Opened::Cur(adapter) => Ok(Opened::Cur(adapter)),
    });
    let opened = own.collect::<Result<Vec<_>>>()?;
    let mut sources = combined::sources(&opened, &args.adapters);
    let combines = args.combine.combine.is_some();
    let one = combines.then(|| args.combine.combined(base, &sources)).transpose()?;
    if let Some(one) = &one {
        sources = vec![(one.source(), 1.0)];
    }
    let bar = progress::bar("merging", 0);
    let imatrix = args.storage.imatrix()?;
    let inputs = args.adapters.iter().map(|part| part.path.clone());
    let mut options = MergeOptions {
        // The adapters were checked against the base that was named, before it was converted.
        base_check: BaseCheck::Skip,
        force: args.force,
        ..args.storage.options(imatrix.as_ref(), inputs.chain([base::resolve(&args.base)?]))?
    };
    if let Some(method) = quantized {
        super::store_in_half(&mut options, method);
    }
    let written = ollama::write(base, &sources, &options, &args.output, progress::follow(&bar))?;
    bar.finish_and_clear();
    for line in merged::warnings(&written.merged) {
        terminal::warn(&line);
    }
    if let Prompts::Unknown(why) = &written.prompts {
        terminal::warn(&format!(
            "{}: the chat template cannot be put in Ollama's form ({why}); Ollama will use one of its own if it knows \
             this template, else bare prompts: add a TEMPLATE to the Modelfile",
            base.path().display()
        ));
    }
    let (prompts, stops) = match &written.prompts {
        Prompts::Chat { stops, .. } => ("chat", stops.as_slice()),
        Prompts::Plain => ("plain", &[][..]),
        Prompts::Unknown(_) => ("unknown", &[][..]),
    };
    let file = args.output.join(ollama::MODELFILE);
    if json {
        return terminal::print_json(&json!({
            "output": args.output,
            "model": written.merged.model,
            "modelfile": file,
            "prompts": prompts,
            "stops": stops,
            "tensors": written.merged.worst_first(),
        }));
    }
    let said = match &written.prompts {
        Prompts::Chat { stops, .. } => {
            let stops = terminal::plain(&stops.join(" "));
            format!("prompts  through the model's chat template; answers end at {stops}\n")
        }
        Prompts::Plain => "prompts  as they are: the model has no chat template\n".to_string(),
        Prompts::Unknown(_) => String::new(),
    };
    terminal::print(&format!(
        "{}{said}exported {}\nuse it   ollama create NAME -f {}\n",
        merged::table(&written.merged),
        args.output.display(),
        file.display()
    ))
}
