//! The chat template of an open base model.

use super::template::ChatTemplate;
use super::templates::Templates;
use crate::base::folder::Folder;
use crate::base::{Base, Files};
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

/// The longest file of a template, in bytes.
const MAX_BYTES: u64 = 16 << 20;

impl Base {
    /// The chat template, if there is one: that of [`Self::use_chat_template`], else the model's own; with the
    /// message of [`Self::use_system`].
    /// `tokenizer` is the model's own.
    ///
    /// # Errors
    /// If a file of the model's folder cannot be read. A template that cannot be parsed fails when it is
    /// rendered.
    pub fn chat_template(&self, tokenizer: &Tokenizer) -> Result<Option<ChatTemplate>> {
        let given = self.given_chat();
        let source = match &given.template {
            Some(given) => Some(given.to_owned()),
            None => self.chat_templates()?.used().map(str::to_owned),
        };
        let template = source.map(|source| ChatTemplate::for_tokenizer(source, tokenizer));
        Ok(match &given.system {
            Some(system) => template.map(|template| template.with_system(system)),
            None => template,
        })
    }

    /// The model's own chat templates.
    ///
    /// # Errors
    /// If a file of the model's folder cannot be read.
    pub fn chat_templates(&self) -> Result<Templates> {
        match self.files() {
            Files::Gguf(model) => Ok(Templates::of_gguf(model.first())),
            Files::HuggingFace(_) => Templates::of_folder(Folder::new(self.path())),
            Files::Onnx(model) => Templates::of_folder(Folder::new(model.folder())),
        }
    }

    /// Uses another chat template than the model's default: its own of this name, or the file of this name.
    ///
    /// # Errors
    /// Neither exists; a file that cannot be read.
    pub fn use_chat_template(&mut self, name_or_file: &str) -> Result<()> {
        let templates = self.chat_templates()?;
        if let Some(source) = templates.get(name_or_file) {
            self.given_chat_mut().template = Some(source.to_owned());
            return Ok(());
        }
        let path = std::path::Path::new(name_or_file);
        if !path.exists() {
            let names: Vec<&str> = templates.all().iter().map(|(name, _)| name.as_str()).collect();
            let problem = format!("the model has no chat template '{}'", name_or_file.escape_debug());
            let help = match names[..] {
                [] => "name a file with a template; the model has none".to_owned(),
                _ => format!("name a file, or one of the model's own: {}", names.join(", ").escape_debug()),
            };
            return Err(Error::file(path, problem, help));
        }
        let failed = |error| Error::io(path, "read the chat template", error);
        let bytes = curmerge_formats::input::read(path, MAX_BYTES).map_err(failed)?;
        let source = String::from_utf8(bytes)
            .map_err(|_| Error::file(path, "is not UTF-8", "save the template as UTF-8 text"))?;
        self.given_chat_mut().template = Some(source);
        Ok(())
    }
    /// Begins every conversation that has no system message with this one.
    pub fn use_system(&mut self, text: &str) {
        self.given_chat_mut().system = Some(text.to_owned());
    }
}
