//! What a result follows from.

use std::collections::BTreeMap;

use curmerge_formats::sha256_hex;

use super::VERSION_NUMBER;

/// All that a result follows from: inputs by their digests, and every option. Two equal keys have the same
/// result.
#[derive(Clone, Debug)]
pub struct Key {
    kind: &'static str,
    of: String,
    parts: BTreeMap<&'static str, String>,
}

impl Key {
    /// A key of a kind of result, in lower-case letters. `of` says in words what the result is of; it is not
    /// part of the digest.
    pub fn new(kind: &'static str, of: String) -> Self {
        Self { kind, of, parts: BTreeMap::new() }.with("version", VERSION_NUMBER).with("program", PROGRAM)
    }

    /// The key with another part.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.parts.insert(name, value.to_string());
        self
    }

    /// What the result is of.
    pub(super) fn of(&self) -> &str {
        &self.of
    }

    /// The parts as JSON, which is stored with the result.
    pub(super) fn text(&self) -> String {
        serde_json::json!(self.parts).to_string()
    }

    /// `KIND-DIGEST.safetensors`.
    pub(super) fn file_name(&self) -> String {
        format!("{}-{}{SUFFIX}", self.kind, sha256_hex(self.text().as_bytes()))
    }
}

/// The ending of a cache file's name.
pub(super) const SUFFIX: &str = ".safetensors";

/// Another version of the program may round otherwise.
const PROGRAM: &str = env!("CARGO_PKG_VERSION");
