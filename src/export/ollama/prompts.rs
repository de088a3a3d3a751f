//! How Ollama builds prompts for a model: what its Modelfile says besides the model.

use super::go_template;
use super::stops::stops;
use super::turns::TurnFormat;
use crate::Result;
use crate::base::Base;
use crate::chat::ChatTemplate;

/// The merged model within the exported folder.
pub const MODEL: &str = "model.gguf";

/// What a Modelfile says besides `FROM`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompts {
    /// The model's chat template.
    Chat {
        /// The template as a Go template.
        template: String,
        /// Texts at which an answer ends.
        stops: Vec<String>,
        /// Whether the template takes a system message.
        takes_system: bool,
    },
    /// The bare prompt: the model has no chat template.
    Plain,
    /// Nothing: the chat template has no equivalent in Ollama's language, for this reason.
    Unknown(String),
}

impl Prompts {
    /// Those of a model.
    ///
    /// # Errors
    /// If its tokenizer or chat template cannot be read.
    pub(super) fn of(base: &Base) -> Result<Self> {
        let tokenizer = base.tokenizer()?;
        let Some(template) = base.chat_template(&tokenizer)? else { return Ok(Prompts::Plain) };
        // Ollama adds BOS if the model's settings say so, as curmerge's tokenizer does.
        let bos = tokenizer.bos().filter(|_| tokenizer.adds_bos()).map(|id| tokenizer.decode(&[id]));
        Ok(Self::of_template(&template, bos.as_deref()))
    }

    /// Those of a chat template. `bos` is the text of the BOS token if the tokenizer adds it.
    pub fn of_template(template: &ChatTemplate, bos: Option<&str>) -> Self {
        match TurnFormat::of(template, bos) {
            Ok(format) => Prompts::Chat {
                template: go_template::of(&format),
                stops: stops(&format, template),
                takes_system: format.takes_system,
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
