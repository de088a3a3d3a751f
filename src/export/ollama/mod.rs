//! A folder for `ollama create`: the merged model, and a Modelfile with the model's chat template in Ollama's
//! language.
//!
//! Ollama recognizes a Jinja template only by its similarity to some two dozen known ones (`template.Named`,
//! by edit distance). A model whose template is similar to none gets bare prompts. So the Modelfile contains
//! the template and the texts at which answers end. `FROM` names the model by a relative path, so the folder
//! can be moved.
//!
//! The adapter is merged, and not named by `ADAPTER` beside the base. Ollama 0.17.4 accepts that line, and it
//! works if llama.cpp runs the model. Ollama's own engine, which has taken over more architectures with every
//! version, fails to load the model: "loras are not yet implemented". From 0.34.1 on, `ollama create` is said
//! to refuse the line.

mod go_template;
mod modelfile;
mod prompts;
mod stops;
mod turns;

use std::path::{Path, PathBuf};

use curmerge_formats::output::OutputFolder;

use crate::base::{Base, Files};
use crate::card::{self, Kind};
use crate::merge::{MergeOptions, MergeReport, Source, card_text, merge};
use crate::{Error, Result};
pub use prompts::{MODEL, Prompts};

/// The file that `ollama create -f` reads.
pub const MODELFILE: &str = "Modelfile";

/// What [`write()`] wrote.
#[derive(Clone, Debug)]
pub struct Written {
    /// How much of the adapter each tensor carries.
    pub merged: MergeReport,
    /// How prompts are built.
    pub prompts: Prompts,
}

/// Writes the folder, with the base and the adapters merged as one file; each adapter has a factor. `progress` gets the number of finished steps and of
/// all steps.
///
/// # Errors
/// A base that is not a GGUF file; those of [`merge`] and of [`curmerge_formats::output`]. After an error,
/// `out` is unchanged.
pub fn write(
    base: &Base,
    adapters: &[(Source<'_>, f32)],
    options: &MergeOptions<'_>,
    out: impl AsRef<Path>,
    progress: impl Fn(u64, u64),
) -> Result<Written> {
    let out = out.as_ref();
    if !matches!(base.files(), Files::Gguf(_)) {
        let problem = "not a GGUF file, which Ollama needs";
        let help = "convert the base into one, and use that";
        return Err(Error::file(base.path(), problem, help));
    }
    let prompts = Prompts::of(base).unwrap_or_else(|error| Prompts::Unknown(error.to_string()));
    let mut inputs = base.inputs();
    inputs.extend(options.protect.iter().map(PathBuf::as_path));
    let folder = OutputFolder::create(out, &inputs, options.force)?;
    let mut merged = merge(base, adapters, options, folder.path().join(MODEL), progress)?;
    merged.model = out.join(MODEL);
    let mut file = folder.file(MODELFILE)?;
    file.append(prompts.modelfile().as_bytes())?;
    file.commit()?;
    let card = card_text(Kind::Ollama, base, adapters, options)?;
    folder.write(card::FILE, card.as_bytes())?;
    folder.commit()?;
    Ok(Written { merged, prompts })
}
