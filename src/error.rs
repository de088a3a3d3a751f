//! The error type. Every variant prints as one line: the file, the place, what is wrong, and what to do.

use std::path::PathBuf;

/// What went wrong. Callers match on the variants that they can act on; the text says what a person can do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
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
    /// Like [`Error::Input`], but of the file as a whole.
    #[error("{}: {problem}; {help}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What the user can do.
        help: String,
    },
    /// An error that another value of one of the caller's options avoids. It prints as the error does; a
    /// program can add what it calls the option.
    #[error("{error}")]
    Avoidable {
        /// What is wrong, and what to do in words of the library.
        error: Box<Error>,
        /// The option.
        option: CallerOption,
    },
    /// A request that cannot be met, whatever the files.
    #[error("{problem}; {help}")]
    Request {
        /// What cannot be done.
        problem: String,
        /// What the user can do instead.
        help: String,
    },
    /// The model's architecture is unknown, so nothing can be computed with it. Its tensors can still be
    /// read.
    #[error("{}: architecture: {problem}; {help}", path.display())]
    UnknownArchitecture {
        /// The model.
        path: PathBuf,
        /// What is unknown.
        problem: String,
        /// What the user can do.
        help: String,
    },
    /// The adapter was made on a model of another architecture or shape.
    #[error("{}: {place}: {problem}; use the base that the adapter was made on", path.display())]
    OtherBase {
        /// The base.
        path: PathBuf,
        /// The tensor or property that differs.
        place: String,
        /// How it differs.
        problem: String,
    },
    /// The adapter was made on other values of a tensor, such as another quantization of the same model.
    #[error(
        "{}: tensor '{tensor}': other values than those the adapter was made on ('{made_on}'); use that base",
        path.display()
    )]
    OtherValues {
        /// The base.
        path: PathBuf,
        /// The first tensor that differs.
        tensor: String,
        /// The name of the base that the adapter was made on.
        made_on: String,
    },
    /// There is no checkpoint to resume from.
    #[error("{}: there is no checkpoint to resume from; start a new run that saves them", path.display())]
    NoCheckpoint {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The checkpoint belongs to a run that would give another result.
    #[error("{}: {setting}: {problem}; resume with what the run began with, or delete the checkpoint", path.display())]
    OtherRun {
        /// The checkpoint.
        path: PathBuf,
        /// The setting that differs: a key of [`Identity`](crate::train::checkpoint::Identity), `base` or
        /// `targets`.
        setting: String,
        /// How it differs.
        problem: String,
    },
    /// The loss or a gradient is no longer a finite number.
    #[error("the loss is no longer a number after {steps} steps; use a lower learning rate")]
    Diverged {
        /// Steps done before.
        steps: u64,
    },
    /// A result of the model is NaN or infinite.
    #[error("{quantity} is not a finite number; check the weights of the model and its adapter")]
    NotFinite {
        /// The result, with its article.
        quantity: &'static str,
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

/// An option of the library that an [`Error::Avoidable`] asks to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallerOption {
    /// The matrices to adapt, [`SelectionOptions::targets`](crate::cur::SelectionOptions::targets).
    Targets,
    /// The factor of an adapter's change.
    Scale,
    /// [`TrainOptions::learning_rate`](crate::train::TrainOptions::learning_rate).
    LearningRate,
    /// The type of a whole model, such as [`MergeOptions::file_type`](crate::merge::MergeOptions::file_type).
    FileType,
    /// The type of the changed tensors, [`MergeOptions::storage`](crate::merge::MergeOptions::storage).
    Storage,
    /// The importance matrix, such as [`MergeOptions::imatrix`](crate::merge::MergeOptions::imatrix).
    ImportanceMatrix,
    /// The limit of one file, such as
    /// [`MergeOptions::max_shard_size`](crate::merge::MergeOptions::max_shard_size).
    MaxShardSize,
    /// [`OnnxOptions::genai`](crate::convert::OnnxOptions::genai).
    Genai,
    /// The columns of a file of examples, [`DataOptions::columns`](crate::train::data::DataOptions::columns).
    Columns,
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
            Error::Avoidable { error, option } => error.in_file(path).avoidable(option),
            other => other,
        }
    }

    /// The same error, as an [`Error::Avoidable`] by this option.
    pub fn avoidable(self, option: CallerOption) -> Self {
        Error::Avoidable { error: Box::new(self), option }
    }

    /// An [`Error::Io`] from its parts.
    pub fn io(path: impl Into<PathBuf>, action: &'static str, source: std::io::Error) -> Self {
        Error::Io { path: path.into(), action, source }
    }
}

/// At most `limit` characters of a text out of a file, then `...` if it is longer, so that no file decides
/// how long an error is.
pub(crate) fn shortened(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        Some((cut, _)) => format!("{}...", text[..cut].escape_debug()),
        None => text.escape_debug().to_string(),
    }
}
