//! The chat template of an open base model.

use super::template::ChatTemplate;
use super::template_source::{source_in_folder, source_in_gguf};
use crate::Result;
use crate::base::folder::Folder;
use crate::base::{Base, Files};
use crate::tokenizer::Tokenizer;

impl Base {
    /// The model's chat template, if it has one. `tokenizer` is the model's own.
    ///
    /// # Errors
    /// If a file of the model's folder cannot be read. A template that cannot be parsed fails when it is
    /// rendered.
    pub fn chat_template(&self, tokenizer: &Tokenizer) -> Result<Option<ChatTemplate>> {
        match self.files() {
            Files::Gguf(model) => Ok(ChatTemplate::from_gguf(model.first(), tokenizer)),
            Files::HuggingFace(_) => ChatTemplate::from_hf_folder(self.path(), tokenizer),
            Files::Onnx(model) => ChatTemplate::from_hf_folder(model.folder(), tokenizer),
        }
    }

    /// The text of the model's chat template, if it has one.
    ///
    /// # Errors
    /// If a file of the model's folder cannot be read.
    pub fn chat_template_source(&self) -> Result<Option<String>> {
        match self.files() {
            Files::Gguf(model) => Ok(source_in_gguf(model.first())),
            Files::HuggingFace(_) => source_in_folder(Folder::new(self.path())),
            Files::Onnx(model) => source_in_folder(Folder::new(model.folder())),
        }
    }
}
