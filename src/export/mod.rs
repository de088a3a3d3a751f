//! An adapter in the form that another program loads beside the untouched base.

mod lora_gguf;

use std::path::Path;

use curmerge_formats::adapter::Adapter;

use crate::Result;
use crate::base::Base;

/// The forms an adapter can be written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A GGUF file for llama.cpp's --lora.
    Gguf,
}

/// Write the adapter to `out`, which must be none of `inputs` nor the base.
///
/// # Errors
/// A target that does not fit the base; those of [`curmerge_formats::output::OutputFile`]. After an error nothing stands at `out` that did not before.
pub fn export(base: &Base, adapter: &Adapter, format: Format, out: &Path, inputs: &[&Path]) -> Result<()> {
    match format {
        Format::Gguf => lora_gguf::write(base, adapter, out, inputs),
    }
}
