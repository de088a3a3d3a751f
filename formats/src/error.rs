//! The one error of the crate: each prints as a single line that names the file, the place and what to do.

use std::path::{Path, PathBuf};

/// What can go wrong with a container, an adapter or an output.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
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
    /// The file breaks the rules of its format.
    #[error("{}: {place}: {problem}; {help}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The tensor, key or byte offset.
        place: String,
        /// What is wrong there.
        problem: String,
        /// What the user can do.
        help: String,
    },
    /// The file is sound but uses something this crate does not read.
    #[error("{}: {place}: {problem}; {help}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The tensor, key or byte offset.
        place: String,
        /// What is not read.
        problem: String,
        /// What the user can do.
        help: String,
    },
    /// Stored bytes do not have the digest that was recorded for them.
    #[error(
        "{}: {place}: damaged: SHA-256 is {found}, recorded is {expected}; get the file again from its source",
        path.display()
    )]
    Checksum {
        /// The file.
        path: PathBuf,
        /// The damaged tensor, or `whole file`.
        place: String,
        /// The recorded digest, hex.
        expected: String,
        /// The digest of the present bytes, hex.
        found: String,
    },
    /// What was asked to be written cannot be expressed in the format.
    #[error("{place}: {problem}; {help}")]
    Encode {
        /// The tensor or key.
        place: String,
        /// Why it cannot be written.
        problem: String,
        /// What the user can do.
        help: String,
    },
    /// The output already exists and may not be replaced.
    #[error("{}: already exists; name another output, or ask to replace it", path.display())]
    Exists {
        /// The output.
        path: PathBuf,
    },
    /// A file was changed or replaced while it was mapped.
    #[error("{}: it was changed or replaced while it was read; run the command again when nothing writes it", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// Another program, or another part of this one, is writing the output.
    #[error("{}: another curmerge is writing it; wait until that ends, or name another output", path.display())]
    Busy {
        /// The output.
        path: PathBuf,
    },
    /// The disk has too little space for the output.
    #[error(
        "{}: the output needs {:.2} GB, and {:.2} GB are free there; free some space, or name an output on another disk",
        path.display(), *bytes as f64 / 1e9, *free as f64 / 1e9
    )]
    NoSpace {
        /// The output.
        path: PathBuf,
        /// Its length, in bytes.
        bytes: u64,
        /// The bytes that are free.
        free: u64,
    },
    /// The output would overwrite, or lie within, an input.
    #[error("{}: the output is or would replace the input {}; name another output", path.display(), input.display())]
    SameFile {
        /// The output.
        path: PathBuf,
        /// The input in danger.
        input: PathBuf,
    },
    /// The output's name belongs to something that is not an ordinary file or folder.
    #[error("{}: is {what}; name another output", path.display())]
    WrongKind {
        /// The output.
        path: PathBuf,
        /// What is there, with its article.
        what: &'static str,
    },
}

/// A result whose error is [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An [`Error::Io`] from its parts.
    pub fn io(path: &Path, action: &'static str, source: std::io::Error) -> Self {
        Error::Io { path: path.to_owned(), action, source }
    }

    /// An [`Error::Malformed`] from its parts.
    pub fn malformed(
        path: &Path,
        place: impl Into<String>,
        problem: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Error::Malformed {
            path: path.to_owned(),
            place: place.into(),
            problem: problem.into(),
            help: help.into(),
        }
    }

    /// An [`Error::Unsupported`] from its parts.
    pub fn unsupported(
        path: &Path,
        place: impl Into<String>,
        problem: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Error::Unsupported {
            path: path.to_owned(),
            place: place.into(),
            problem: problem.into(),
            help: help.into(),
        }
    }

    /// An [`Error::Encode`] from its parts.
    pub fn encode(place: impl Into<String>, problem: impl Into<String>, help: impl Into<String>) -> Self {
        Error::Encode { place: place.into(), problem: problem.into(), help: help.into() }
    }
}

/// A string out of a file as an error may show it: quoted, control characters escaped, at most 80 characters.
pub fn quoted(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((cut, _)) => format!("{:?}...", &text[..cut]),
        None => format!("{text:?}"),
    }
}

/// The message of a parser's error, which may quote the file, on one line of at most 200 characters.
pub(crate) fn one_line(error: &impl std::fmt::Display) -> String {
    let message = error.to_string();
    message
        .chars()
        .take(200)
        .flat_map(|c| if c.is_control() { c.escape_debug().collect() } else { vec![c] })
        .collect()
}

/// What to do about a file that breaks its format's rules.
pub(crate) const FETCH_AGAIN: &str = "the file is damaged or cut short: fetch or convert it again";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_stay_on_one_short_line() {
        let shown = quoted(&"a\nb\u{1b}".repeat(100));
        assert!(!shown.contains('\n') && !shown.contains('\u{1b}'));
        assert!(shown.len() < 1000);
    }
}
