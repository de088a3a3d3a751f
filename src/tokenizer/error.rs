//! What can be wrong with a tokenizer.

use std::path::{Path, PathBuf};

/// A tokenizer that cannot be used, or a text that it cannot encode.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// A metadata key of a GGUF file is missing, of the wrong type, or inconsistent.
    #[error("tokenizer: {key}: {problem}; {help}")]
    Key {
        /// The metadata key.
        key: String,
        /// What is wrong with it.
        problem: String,
        /// What the user can do.
        help: &'static str,
    },
    /// `tokenizer.ggml.model` names an algorithm that curmerge does not implement.
    #[error(
        "tokenizer: tokenizer.ggml.model is {name:?}, known are \"gpt2\" (byte-level BPE), \"llama\" (SentencePiece \
         BPE) and \"gemma4\"; use a base model with one of these"
    )]
    UnknownModel {
        /// The value of the key.
        name: String,
    },
    /// `tokenizer.ggml.pre` names a pre-tokenizer that curmerge does not implement.
    #[error(
        "tokenizer: tokenizer.ggml.pre is {name:?}, none of the {known} known values; use the model's Hugging Face \
         folder"
    )]
    UnknownPreTokenizer {
        /// The value of the key.
        name: String,
        /// How many values are known.
        known: usize,
    },
    /// A file of a Hugging Face folder cannot be read, or its content is invalid.
    #[error("{}: {problem}; {help}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the place if it is known.
        problem: String,
        /// What the user can do.
        help: &'static str,
    },
    /// The tokenizer of a Hugging Face folder failed to encode a text.
    #[error("tokenizer: cannot encode the text: {problem}; use the model's GGUF file")]
    Encode {
        /// The `tokenizers` crate's reason.
        problem: String,
    },
    /// The text has a long part that cannot be cut into words. Encoding it takes many times its bytes.
    #[error(
        "tokenizer: the text has more than {} KiB without a place to cut it into words; put spaces or line ends \
         into it",
        limit >> 10
    )]
    LongWord {
        /// The longest part that is encoded at once, in bytes.
        limit: usize,
    },
    /// The text has a token for which the embedding has no row.
    #[error("tokenizer: the text has {text}, for which the model has no embedding; leave it out")]
    NoEmbedding {
        /// The token's text.
        text: String,
    },
}

impl TokenizerError {
    pub(super) fn key(key: &str, problem: impl Into<String>, help: &'static str) -> Self {
        TokenizerError::Key { key: key.to_owned(), problem: problem.into(), help }
    }

    pub(crate) fn file(path: &Path, problem: impl std::fmt::Display, help: &'static str) -> Self {
        TokenizerError::File { path: path.to_owned(), problem: one_line(problem), help }
    }

    pub(super) fn encode(problem: impl std::fmt::Display) -> Self {
        TokenizerError::Encode { problem: one_line(problem) }
    }
}

fn one_line(problem: impl std::fmt::Display) -> String {
    problem.to_string().replace(['\n', '\r'], " ")
}
