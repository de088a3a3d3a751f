//! The tokenizer of an open base model. It is here, not in [`crate::base`], because tokenizers read the
//! base's files.

use super::codec::Tokenizer;
use crate::base::{Base, Files};
use crate::{Error, Result};

impl Base {
    /// The model's tokenizer.
    ///
    /// # Errors
    /// Those of [`Tokenizer::from_gguf`] and [`Tokenizer::from_hf_folder`]; a token that the embedding has no
    /// row for.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        let tokenizer = match self.files() {
            Files::Gguf(model) => Tokenizer::from_gguf(model.first())
                .map_err(|source| Error::GgufTokenizer { path: self.path().into(), source })?,
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
