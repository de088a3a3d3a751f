//! A folder for `ollama create`: the merged model, and a Modelfile with the model's chat template in Ollama's language.
//!
//! Ollama knows Jinja templates only by resemblance to some two dozen of its own list (`template.Named`, by edit
//! distance), and a model whose template resembles none gets bare prompts. So the Modelfile carries the template, with
//! the texts at which answers end. `FROM` names the model beside it: the folder may be moved.
//!
//! The adapter is merged, not put beside the base with `ADAPTER`. Ollama 0.17.4 takes that line, and runs it where
//! llama.cpp runs the model; its own engine, which has taken over more architectures with every version, then fails to
//! load the model: "loras are not yet implemented". From 0.34.1 on `ollama create` itself is said to refuse the line.

mod go_template;
mod turns;

use std::path::{Path, PathBuf};

use curmerge_formats::adapter::Adapter;
use curmerge_formats::output::OutputFolder;

use crate::base::{Base, Files};
use crate::chat::ChatTemplate;
use crate::merge::{MergeOptions, MergeReport, Source, merge};
use crate::{Error, Result};
use turns::Turns;

/// The merged model within the folder.
pub const MODEL: &str = "model.gguf";
/// The file that `ollama create -f` reads.
pub const MODELFILE: &str = "Modelfile";

/// What a Modelfile says besides `FROM`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompts {
    /// The model's chat template.
    Chat {
        /// In Go's language.
        template: String,
        /// Text at which an answer ends.
        stops: Vec<String>,
        /// Whether the template takes a system message.
        takes_system: bool,
    },
    /// The prompt as it is: the model has no chat template.
    Plain,
    /// Nothing: the chat template could not be put in Ollama's form, for this reason.
    Unknown(String),
}

/// What was written.
#[derive(Clone, Debug)]
pub struct Written {
    /// How much of the adapter each tensor carries.
    pub merged: MergeReport,
    /// How prompts are built.
    pub prompts: Prompts,
}

/// Write the folder, its model as one file, merged as `options` say. `progress` is told how many of how many are done.
///
/// # Errors
/// A base that is no GGUF file; those of [`merge`] and of [`curmerge_formats::output`]. After an error nothing stands at
/// `out` that did not before.
pub fn write(
    base: &Base,
    adapter: &Adapter,
    options: &MergeOptions<'_>,
    out: &Path,
    progress: impl Fn(u64, u64),
) -> Result<Written> {
    if !matches!(base.files(), Files::Gguf(_)) {
        let problem = "no GGUF file, which Ollama is given";
        let help = "write one with `curmerge convert MODEL MODEL.gguf`, and name it as --base";
        return Err(Error::file(base.path(), problem, help));
    }
    let prompts = Prompts::of(base).unwrap_or_else(|error| Prompts::Unknown(error.to_string()));
    let mut inputs = base.inputs();
    inputs.extend(options.protect.iter().map(PathBuf::as_path));
    let folder = OutputFolder::create(out, &inputs, options.force)?;
    let mut merged =
        merge(base, &[(Source::Cur(adapter), 1.0)], options, &folder.path().join(MODEL), progress)?;
    merged.model = out.join(MODEL);
    let mut file = folder.file(MODELFILE)?;
    file.append(prompts.modelfile().as_bytes())?;
    file.commit()?;
    folder.commit()?;
    Ok(Written { merged, prompts })
}

impl Prompts {
    /// Those of a model.
    fn of(base: &Base) -> Result<Self> {
        let tokenizer = base.tokenizer()?;
        let Some(template) = base.chat_template(&tokenizer)? else { return Ok(Prompts::Plain) };
        // Ollama puts BOS in front where the model's settings say so, as our tokenizer does.
        let bos = tokenizer.bos().filter(|_| tokenizer.adds_bos()).map(|id| tokenizer.decode(&[id]));
        Ok(Self::of_template(&template, bos.as_deref()))
    }

    /// Those of a chat template. `bos` is the text of a token that the tokenizer puts in front by itself.
    pub fn of_template(template: &ChatTemplate, bos: Option<&str>) -> Self {
        match Turns::of(template, bos) {
            Ok(turns) => Prompts::Chat {
                template: go_template::of(&turns),
                stops: turns.stops(template),
                takes_system: turns.takes_system,
            },
            Err(why) => Prompts::Unknown(why),
        }
    }

    /// The text of a Modelfile for [`MODEL`].
    pub fn modelfile(&self) -> String {
        let mut text = format!("FROM ./{MODEL}\n");
        match self {
            Prompts::Chat { template, stops, takes_system } => {
                if !takes_system {
                    text += "# The model's own template has no place for a system message: it goes before the user's words.\n";
                }
                text += &format!("TEMPLATE \"\"\"{template}\"\"\"\n");
                for stop in stops {
                    text += &format!("PARAMETER stop \"{stop}\"\n");
                }
            }
            Prompts::Plain => text += "TEMPLATE {{ .Prompt }}\n",
            Prompts::Unknown(_) => {}
        }
        text
    }
}
