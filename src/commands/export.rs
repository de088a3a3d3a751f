//! `curmerge export`: an adapter in the form another program loads.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::base::Base;
use crate::export::{Format, export};
use crate::lora::peft;
use crate::report::terminal;
use crate::{Error, Result};

/// Options of `curmerge export`.
#[derive(Clone, Debug, Args)]
pub struct ExportArgs {
    /// The adapter.
    pub adapter: PathBuf,
    /// Base model: a GGUF file, a Hugging Face folder, or ollama:NAME[:TAG].
    #[arg(long)]
    pub base: PathBuf,
    /// What to write.
    #[arg(long, value_enum)]
    pub format: Format,
    /// Where to write it: a file, or for PEFT a folder.
    #[arg(short, long, value_name = "OUT")]
    pub output: PathBuf,
    /// Replace a folder that stands.
    #[arg(long)]
    pub force: bool,
    /// Export an adapter that was trained on other values of this model, such as another quantization.
    #[arg(long)]
    pub allow_other_base: bool,
}

/// Write the other form.
pub fn run(args: &ExportArgs, json: bool) -> Result<()> {
    let base = Base::open(&args.base)?;
    let adapter = super::adapter_of(&base, &args.adapter, args.allow_other_base)?;
    export(&base, &adapter, args.format, &args.output, &[&args.adapter], args.force)?;
    let written = match args.format {
        Format::Gguf => args.output.clone(),
        Format::Peft => args.output.join(peft::WEIGHTS),
    };
    let bytes = std::fs::metadata(&written).map_err(|e| Error::io(&written, "read", e))?.len();
    if json {
        return terminal::print_json(&json!({ "output": args.output, "bytes": bytes }));
    }
    terminal::print(&format!("exported {} ({bytes} bytes)\n", args.output.display()))
}
