//! `hf:OWNER/NAME[:FILE-or-QUANT][@REVISION]`: a repository of the Hub, and what is wanted of it.

use std::fmt;
use std::path::{Component, Path};

use crate::{Error, Result};

/// What a name of the Hub begins with on the command line.
const PREFIX: &str = "hf:";
/// The branch that is meant where no revision is named.
const MAIN: &str = "main";
/// The longest part of a repository's name, as the Hub has it.
const MAX_PART: usize = 96;
/// The longest path of a file in a repository, in bytes.
const MAX_PATH: usize = 1024;

/// Repositories of models and of data sets have names of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Models and adapters.
    Model,
    /// Data sets.
    Dataset,
}

impl Kind {
    /// Its word in addresses and in names of folders.
    pub(super) fn word(self) -> &'static str {
        match self {
            Kind::Model => "models",
            Kind::Dataset => "datasets",
        }
    }
}

/// A repository of the Hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    pub(super) kind: Kind,
    /// `OWNER/NAME`, or of the oldest repositories `NAME`.
    pub(super) id: String,
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Model => f.write_str(&self.id),
            Kind::Dataset => write!(f, "datasets/{}", self.id),
        }
    }
}

/// A name of the Hub, as the command line has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    text: String,
    kind: Option<Kind>,
    id: String,
    part: Option<String>,
    revision: String,
}

impl Name {
    /// Whether a path is such a name.
    pub fn is_name(path: &Path) -> bool {
        path.to_str().is_some_and(|text| text.starts_with(PREFIX))
    }

    /// Reads a name. `datasets/` or `models/` before the owner says which kind of repository it is.
    ///
    /// # Errors
    /// It does not have this form.
    pub fn parse(text: &str) -> Result<Self> {
        let refuse = |problem: &str| {
            let help =
                "write hf:OWNER/NAME, with :FILE or :QUANT and @REVISION after it where they are needed";
            Err(Error::request(format!("'{}' is no name of the Hub: {problem}", text.escape_debug()), help))
        };
        let Some(rest) = text.strip_prefix(PREFIX) else { return refuse("it does not begin with hf:") };
        let (repository, part, revision) = match rest.split_once(':') {
            Some((repository, rest)) => {
                let (part, revision) = split_revision(rest);
                (repository, Some(part), revision)
            }
            None => {
                let (repository, revision) = split_revision(rest);
                (repository, None, revision)
            }
        };
        let (kind, id) = match (repository.strip_prefix("datasets/"), repository.strip_prefix("models/")) {
            (Some(id), _) => (Some(Kind::Dataset), id),
            (_, Some(id)) => (Some(Kind::Model), id),
            _ => (None, repository),
        };
        if id.split('/').count() > 2 || !id.split('/').all(is_part_of_id) {
            return refuse("that is not how repositories are called");
        }
        let part = part.map(|part| part.trim_end_matches('/'));
        if part.is_some_and(|part| !is_plain_path(part)) {
            return refuse("after the colon is no file or quantization");
        }
        if !is_plain_path(revision) {
            return refuse("after the @ is no revision");
        }
        Ok(Self {
            text: text.into(),
            kind,
            id: id.into(),
            part: part.map(Into::into),
            revision: revision.into(),
        })
    }

    /// The repository, of this kind if the name does not say.
    pub(super) fn repository(&self, kind: Kind) -> Repository {
        Repository { kind: self.kind.unwrap_or(kind), id: self.id.clone() }
    }

    /// The file, folder, quantization or split that is wanted.
    pub(super) fn part(&self) -> Option<&str> {
        self.part.as_deref()
    }

    /// The branch, tag or commit.
    pub(super) fn revision(&self) -> &str {
        &self.revision
    }

    /// An error about what the name stands for.
    pub(super) fn error(&self, problem: impl Into<String>, help: impl Into<String>) -> Error {
        Error::file(&self.text, problem, help)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What comes before an `@`, and the revision after it.
fn split_revision(text: &str) -> (&str, &str) {
    text.rsplit_once('@').unwrap_or((text, MAIN))
}

/// The Hub's rule for an owner and for a name.
fn is_part_of_id(part: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let outer = |c: char| matches!(c, '-' | '.');
    (1..=MAX_PART).contains(&part.len())
        && part.chars().all(inner)
        && !part.starts_with(outer)
        && !part.ends_with(outer)
        && !part.contains("--")
        && !part.contains("..")
}

/// Whether a path stays within its folder on every system: relative, by `/`, without `..` and what Windows reads as
/// more than a name.
pub(super) fn is_plain_path(path: &str) -> bool {
    let plain = |part: &str| {
        !part.is_empty()
            && part != "."
            && !part.contains(|c: char| c.is_control() || matches!(c, '\\' | ':'))
            && Path::new(part).components().eq([Component::Normal(part.as_ref())])
    };
    path.len() <= MAX_PATH && path.split('/').all(plain)
}

/// Whether this is the full hash of a commit.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_parts() {
        let cases = [
            ("hf:a/b", None, "a/b", None, "main"),
            ("hf:gpt2", None, "gpt2", None, "main"),
            ("hf:a/b:Q4_K_M", None, "a/b", Some("Q4_K_M"), "main"),
            ("hf:a/b@v1", None, "a/b", None, "v1"),
            ("hf:a/b.C_d:x/y@1.gguf@refs/pr/1", None, "a/b.C_d", Some("x/y@1.gguf"), "refs/pr/1"),
            ("hf:datasets/a/b:train", Some(Kind::Dataset), "a/b", Some("train"), "main"),
            ("hf:models/a/b:onnx/", Some(Kind::Model), "a/b", Some("onnx"), "main"),
        ];
        for (text, kind, id, part, revision) in cases {
            let name = Name::parse(text).unwrap();
            assert_eq!(
                (name.kind, &*name.id, name.part(), name.revision()),
                (kind, id, part, revision),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let wrong = [
            "hf:",
            "hf:/",
            "hf://a/b",
            "hf:a/",
            "hf:/b",
            "hf:a/b/c",
            "hf:../b",
            "hf:a/..",
            "hf:a/b:",
            "hf:a/b@",
            "hf:a/b:../c",
            "hf:a/b:/c",
            "hf:a/b:c//d",
            "hf:a/b:c\\d",
            "hf:a/b:c:d",
            "hf:a/b@../x",
            "hf:a/-b",
            "hf:a/b--c",
            "hf:a b/c",
            "hf:a/b:x\u{7}",
            "hf:a/b:./c",
        ];
        for text in wrong {
            let error = Name::parse(text).unwrap_err().to_string();
            assert!(
                error.contains("is no name of the Hub") && error.contains("write hf:"),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn paths_stay_within_their_folder() {
        for path in ["a", "a/b.gguf", ".gitattributes", "a..b", "größe"] {
            assert!(is_plain_path(path), "{path}");
        }
        for path in ["", "/", "a/", "/a", "..", "a/../b", "./a", "a\\b", "C:a", "a\nb", &"a".repeat(2000)] {
            assert!(!is_plain_path(path), "{path}");
        }
    }
}
