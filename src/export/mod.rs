//! An adapter in the form that another program loads beside the untouched base.

mod lora_gguf;
mod peft;

use std::path::Path;

use curmerge_formats::adapter::Adapter;

use crate::Result;
use crate::base::Base;

/// The forms an adapter can be written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A GGUF file for llama.cpp's --lora.
    Gguf,
    /// A folder for PEFT.
    Peft,
}

/// Write the adapter to `out`, which must be none of `inputs` nor the base. `force` lets a folder replace one that
/// stands.
///
/// # Errors
/// A target that does not fit the base; those of [`curmerge_formats::output`]. After an error nothing stands at `out`
/// that did not before.
pub fn export(
    base: &Base,
    adapter: &Adapter,
    format: Format,
    out: &Path,
    inputs: &[&Path],
    force: bool,
) -> Result<()> {
    let inputs = [inputs, &base.inputs()].concat();
    match format {
        Format::Gguf => lora_gguf::write(base, adapter, out, &inputs),
        Format::Peft => peft::write(base, adapter, out, &inputs, force),
    }
}
