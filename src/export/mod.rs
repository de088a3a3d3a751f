//! Exports adapters for other programs. Most load them beside the unchanged base; for Ollama they are merged
//! into it.

mod lora_gguf;
pub mod ollama;
mod onnx_adapter;
mod peft;
mod targets;

use std::path::Path;

use curmerge_formats::adapter::Adapter;

use crate::Result;
use crate::base::Base;
use crate::merge::{BaseCheck, MergeOptions};

/// The formats that an adapter can be written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A GGUF file for llama.cpp's --lora.
    Gguf,
    /// A folder for PEFT.
    Peft,
    /// A file for onnxruntime, for a base that was converted with LoRA inputs.
    OnnxAdapter,
    /// A folder for `ollama create`: the merged model, and a Modelfile with its chat template. [`ollama`]
    /// says why the Modelfile has no ADAPTER line.
    Ollama,
}

impl Format {
    /// Every format.
    pub const ALL: &[Self] = &[Self::Gguf, Self::Peft, Self::OnnxAdapter, Self::Ollama];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Format::Gguf => "gguf",
            Format::Peft => "peft",
            Format::OnnxAdapter => "onnx-adapter",
            Format::Ollama => "ollama",
        }
    }
}

/// Writes the adapter to `out`, which must be neither the base nor one of `inputs`. With `force` a folder
/// replaces an existing one. The model for Ollama keeps the base's types. [`ollama::write`] can also change
/// types, and returns a report.
///
/// Only names and shapes of the targets must fit the base. Check first with
/// [`fingerprint::check`](crate::cur::fingerprint::check) that the adapter was made on its values.
///
/// # Errors
/// A target that does not fit the base; those of [`curmerge_formats::output`]. After an error `out` is
/// unchanged.
pub fn export(
    base: &Base,
    adapter: &Adapter,
    format: Format,
    out: impl AsRef<Path>,
    inputs: &[&Path],
    force: bool,
) -> Result<()> {
    let out = out.as_ref();
    let inputs = [inputs, &base.inputs()].concat();
    match format {
        Format::Gguf => lora_gguf::write(base, adapter, out, &inputs),
        Format::Peft => peft::write(base, adapter, out, &inputs, force),
        Format::OnnxAdapter => onnx_adapter::write(base, adapter, out, &inputs),
        Format::Ollama => {
            let protect = inputs.iter().map(|path| path.to_path_buf()).collect();
            let options = MergeOptions { base_check: BaseCheck::Skip, force, protect, ..Default::default() };
            ollama::write(base, adapter, &options, out, |_, _| ()).map(drop)
        }
    }
}
