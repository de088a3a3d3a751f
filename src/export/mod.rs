//! An adapter in the form that another program loads beside the untouched base.

mod lora_gguf;

use std::path::Path;

use curmerge_formats::adapter::Adapter;

use crate::base::Base;
use crate::{Error, Result};

/// The forms an adapter can be written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A GGUF file for llama.cpp's --lora.
    Gguf,
    /// A folder for PEFT and vLLM.
    Peft,
    /// A Modelfile for Ollama.
    Ollama,
}

/// Write the adapter to `out`, which must be none of `inputs` nor the base.
///
/// # Errors
/// [`Error::Request`] for a form that is not written yet; a target that does not fit the base; those of
/// [`curmerge_formats::output::OutputFile`]. After an error nothing stands at `out` that did not before.
pub fn export(base: &Base, adapter: &Adapter, format: Format, out: &Path, inputs: &[&Path]) -> Result<()> {
    match format {
        Format::Gguf => lora_gguf::write(base, adapter, out, inputs),
        Format::Peft | Format::Ollama => {
            let name = if format == Format::Peft { "peft" } else { "ollama" };
            Err(Error::request(
                format!("--format {name} is not written yet"),
                "use --format gguf, which llama.cpp loads with --lora, or curmerge merge",
            ))
        }
    }
}
