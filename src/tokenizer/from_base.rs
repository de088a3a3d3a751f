//! The tokenizer of an open base model.

use super::codec::Tokenizer;
use crate::base::{Base, Files};
use crate::{Error, Result};

impl Base {
    /// The tokenizer of the model: of a GGUF file the one in its metadata, else the one in the model's folder.
    ///
    /// # Errors
    /// Those of [`Tokenizer::from_gguf`] and [`Tokenizer::from_hf_folder`]; a vocabulary with tokens for which the
    /// embedding has no row.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        let tokenizer = match self.files() {
            Files::Gguf(model) => Tokenizer::from_gguf(model.first())
                .map_err(|source| Error::GgufTokenizer { path: self.path().to_path_buf(), source })?,
            Files::HuggingFace(_) => Tokenizer::from_hf_folder(self.path())?,
            Files::Onnx(model) => Tokenizer::from_hf_folder(model.folder())?,
        };
        let (tokens, rows) = (tokenizer.vocab_size(), self.config().vocab);
        tokenizer.with_embedding_rows(rows).ok_or_else(|| {
            let problem = format!("{tokens} tokens, but the embedding has {rows} rows");
            Error::input(self.path(), "tokenizer", problem, "download the model again")
        })
    }
}
