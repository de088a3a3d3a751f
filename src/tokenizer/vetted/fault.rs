//! What is wrong with a tokenizer.json, and where.

use std::path::Path;

use crate::tokenizer::error::TokenizerError;

/// What to do about a file that no tool writes like this.
pub(super) const FETCH: &str = "fetch the folder again, from a source that you trust";

/// A fault of a tokenizer.json.
#[derive(Debug)]
pub(super) struct Fault {
    /// The place in the JSON, such as `normalizer.normalizers[1]`.
    place: String,
    problem: String,
    help: &'static str,
}

impl Fault {
    /// A fault that only another file mends.
    pub(super) fn new(place: impl Into<String>, problem: impl Into<String>) -> Self {
        Fault { place: place.into(), problem: problem.into(), help: FETCH }
    }

    /// A fault that this mends.
    pub(super) fn mended_by(self, help: &'static str) -> Self {
        Fault { help, ..self }
    }

    /// The error about the file at `path`.
    pub(super) fn of(self, path: &Path) -> TokenizerError {
        TokenizerError::file(path, format!("{}: {}", self.place, self.problem), self.help)
    }
}

/// A fault unless `value` is at most `limit`.
pub(super) fn at_most(value: usize, limit: usize, place: &str, what: &str) -> Result<(), Fault> {
    if value <= limit {
        return Ok(());
    }
    Err(Fault::new(place, format!("{value} {what}, at most {limit} are accepted")))
}
