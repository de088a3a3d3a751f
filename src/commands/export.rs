//! `curmerge export`: an adapter in the form that another program loads.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::arguments::{StorageArgs, TemplateArgs};
use super::{adapter_kind, merged};
use crate::base::{self, Base};
use crate::commands::report::{progress, terminal};
use crate::export::ollama::{self, Prompts};
use crate::export::{Format, Trained, export};
use crate::lora::{Lora, TrainedLora, peft};
use crate::merge::{BaseCheck, MergeOptions, Source};
use crate::{Error, Result};

/// Options of `curmerge export`.
#[derive(Clone, Debug, Args)]
pub struct ExportArgs {
    /// The adapter: curmerge's own, a LoRA folder of PEFT or mlx-lm, or a GGUF LoRA file.
    pub adapter: PathBuf,
    /// Base model: a GGUF file, a Hugging Face folder, an ONNX file, or `ollama:NAME[:TAG]`.
    #[arg(long)]
    pub base: PathBuf,
    /// What to write.
    #[arg(long, value_enum)]
    pub format: Format,
    /// Where to write it: a file, or for PEFT and Ollama a folder.
    #[arg(short, long, value_name = "OUT")]
    pub output: PathBuf,
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
    let mut base = super::open_any(&args.base)?;
    if args.format != Format::Gguf {
        base.must_be_known()?;
    }
    if args.format != Format::Ollama {
        args.template.must_be_unused("--format ollama")?;
    }
    let adapter = match Lora::is_lora(&args.adapter) {
        true => None,
        false => Some(super::adapter_of(&base, &args.adapter, args.allow_other_base)?),
    };
    if args.format == Format::Ollama {
        args.template.apply(&mut base)?;
        adapter_kind::warn_of_template(&base, &args.adapter)?;
        let quantized = base.decoded_codes_of();
        let _scratch = super::as_gguf(&mut base, &args.output)?;
        return match &adapter {
            Some(adapter) => for_ollama(args, (&base, quantized), Source::Cur(adapter), json),
            None => {
                let lora = super::lora_of(&base, &args.adapter)?;
                for_ollama(args, (&base, quantized), Source::Lora(&lora), json)
            }
        };
    }
    if args.storage.is_given() {
        let problem = "--type and --type-adapted are for --format ollama: the matrices of a LoRA are F32";
        return Err(Error::request(problem, "leave them out"));
    }
    let lora;
    let trained = match &adapter {
        Some(adapter) => Trained::Cur(adapter),
        None => {
            lora = TrainedLora::of(&super::lora_of(&base, &args.adapter)?, &base)?;
            Trained::Lora(&lora)
        }
    };
    let files = Lora::files(&args.adapter);
    let inputs: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    export(&base, trained, args.format, &args.output, &inputs, args.force)?;
    let written = match args.format {
        Format::Gguf | Format::OnnxAdapter => args.output.clone(),
        Format::Peft => args.output.join(peft::WEIGHTS),
        Format::Ollama => args.output.join(ollama::MODEL),
    };
    let bytes = std::fs::metadata(&written).map_err(|e| Error::io(&written, "read", e))?.len();
    if json {
        return terminal::print_json(&json!({ "output": args.output, "bytes": bytes }));
    }
    terminal::print(&format!("exported {} ({bytes} bytes)\n", args.output.display()))
}

/// Exports for Ollama from a GGUF base, which another program had quantized by this method.
fn for_ollama(
    args: &ExportArgs,
    (base, quantized): (&Base, Option<&str>),
    adapter: Source<'_>,
    json: bool,
) -> Result<()> {
    let bar = progress::bar("merging", 0);
    let imatrix = args.storage.imatrix()?;
    let mut options = MergeOptions {
        // The adapter was checked against the base that was named, before it was converted.
        base_check: BaseCheck::Skip,
        force: args.force,
        ..args
            .storage
            .options(imatrix.as_ref(), [args.adapter.clone(), base::resolve(&args.base)?].into_iter())?
    };
    if let Some(method) = quantized {
        super::store_in_half(&mut options, method);
    }
    let written = ollama::write(base, adapter, &options, &args.output, progress::follow(&bar))?;
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
