//! The chat template of an open base model.

use super::template::ChatTemplate;
use crate::Result;
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
}
