//! The one error of the program. Every variant prints as one line: the file, the place, and what to do.

use std::path::PathBuf;

/// What can go wrong in a command. `main` prints it after `error: ` and exits with status 1.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A container, number format, adapter or output file.
    #[error(transparent)]
    Format(#[from] curmerge_formats::Error),
    /// The model's chat template.
    #[error(transparent)]
    Chat(#[from] crate::chat::ChatError),
    /// The model's tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] crate::tokenizer::TokenizerError),
    /// The tokenizer in a GGUF file's metadata.
    #[error("{}: {source}", path.display())]
    GgufTokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: crate::tokenizer::TokenizerError,
    },
    /// A line of a file of examples.
    #[error("{}:{line}: {problem}; {help}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
        /// What the user can do.
        help: String,
    },
    /// A model, adapter or other input that can be read but not used as asked.
    #[error("{}: {place}: {problem}; {help}", path.display())]
    Input {
        /// The file or folder.
        path: PathBuf,
        /// The tensor, key or line within it.
        place: String,
        /// What is wrong there.
        problem: String,
        /// What the user can do.
        help: String,
    },
    /// The same of a file as a whole.
    #[error("{}: {problem}; {help}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What the user can do.
        help: String,
    },
    /// A request that no file is to blame for.
    #[error("{problem}; {help}")]
    Request {
        /// What cannot be done.
        problem: String,
        /// What the user can do instead.
        help: String,
    },
    /// The operating system refused a file operation.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was attempted, as a verb phrase.
        action: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// A result whose error is [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An [`Error::Input`] from its parts.
    pub fn input(
        path: impl Into<PathBuf>,
        place: impl Into<String>,
        problem: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Error::Input { path: path.into(), place: place.into(), problem: problem.into(), help: help.into() }
    }

    /// An [`Error::Request`] from its parts.
    pub fn request(problem: impl Into<String>, help: impl Into<String>) -> Self {
        Error::Request { problem: problem.into(), help: help.into() }
    }

    /// An [`Error::Line`] from its parts.
    pub fn line(
        path: impl Into<PathBuf>,
        line: usize,
        problem: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Error::Line { path: path.into(), line, problem: problem.into(), help: help.into() }
    }

    /// An [`Error::File`] from its parts.
    pub fn file(path: impl Into<PathBuf>, problem: impl Into<String>, help: impl Into<String>) -> Self {
        Error::File { path: path.into(), problem: problem.into(), help: help.into() }
    }

    /// The same error, naming the file that it was found in, if it named none.
    pub fn in_file(self, path: impl Into<PathBuf>) -> Self {
        match self {
            Error::Request { problem, help } => Error::File { path: path.into(), problem, help },
            other => other,
        }
    }

    /// An [`Error::Io`] from its parts.
    pub fn io(path: impl Into<PathBuf>, action: &'static str, source: std::io::Error) -> Self {
        Error::Io { path: path.into(), action, source }
    }
}
