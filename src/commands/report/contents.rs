//! What a file holds, as text for a terminal and as JSON.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Map, Value as Json, json};

use super::terminal;

/// Upper limit of the characters of a metadata value that are shown.
const SHOWN: usize = 100;
/// Hexadecimal digits of a checksum that are shown by default.
const SHORT_DIGEST: usize = 16;

/// One key of the metadata.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The name of the value's type.
    pub kind: String,
    /// The value as JSON; for a long array its length and first values.
    pub value: Json,
}

/// One tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorLine {
    /// Its name in the file.
    pub name: String,
    /// The name of its type.
    pub dtype: String,
    /// Lengths, slowest first: `[out, in]` for a matrix.
    pub shape: Vec<u64>,
    /// Length in bytes.
    pub bytes: u64,
    /// SHA-256 of its stored bytes, hex, if it was taken.
    pub sha256: Option<String>,
}

/// What curmerge can do with a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Support {
    /// `full`; `by name` if only commands that take matrices by their names work; `none` if no command does.
    pub level: &'static str,
    /// The architecture, what works, and if not everything does, the reason.
    pub line: String,
}

/// What a file or folder holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Contents {
    /// The path that was given.
    pub path: PathBuf,
    /// What it is, such as `GGUF file, version 3`.
    pub kind: String,
    /// What curmerge can do with it, if it is a model.
    pub support: Option<Support>,
    /// Its metadata, in order.
    pub metadata: Vec<Entry>,
    /// How an adapter was trained, as lines of TOML, if it says so.
    pub recipe: Option<String>,
    /// Its tensors, in order.
    pub tensors: Vec<TensorLine>,
}

impl Contents {
    /// Lines for a terminal. Texts out of the file are escaped.
    pub fn text(&self, full_digests: bool) -> String {
        let mut text = format!("{}: {}\n", terminal::plain(&self.path.to_string_lossy()), self.kind);
        if let Some(support) = &self.support {
            text += &format!("architecture: {}\n", terminal::plain(&support.line));
        }
        text += &format!("\nmetadata ({})\n", self.metadata.len());
        let width = longest(self.metadata.iter().map(|e| terminal::plain(&e.key)));
        for e in &self.metadata {
            let key = terminal::plain(&e.key);
            text +=
                &format!("  {key:width$}  {}  {}\n", e.kind, terminal::shortened(&shown(&e.value), SHOWN));
        }
        if let Some(recipe) = &self.recipe {
            let lines = recipe.lines().map(|line| format!("  {}\n", terminal::plain(line)));
            text += &format!("\nrecipe, for --config\n{}", lines.collect::<String>());
        }
        text += &format!("\ntensors ({})\n", self.tensors.len());
        let width = longest(self.tensors.iter().map(|t| terminal::plain(&t.name)));
        let kinds = self.tensors.iter().map(|t| t.dtype.len()).max().unwrap_or(0).max(5);
        for t in &self.tensors {
            let (name, shape) = (terminal::plain(&t.name), format!("{:?}", t.shape));
            text += &format!("  {name:width$}  {:kinds$}  {shape:15}  {:>11}", t.dtype, t.bytes);
            if let Some(digest) = &t.sha256 {
                text += "  ";
                text += if full_digests { digest } else { &digest[..SHORT_DIGEST.min(digest.len())] };
            }
            text.push('\n');
        }
        text += "\ntypes\n";
        for (dtype, (count, bytes)) in self.totals() {
            text += &format!("  {dtype:kinds$}  {count:>5} tensors  {bytes:>13} bytes\n");
        }
        text
    }

    /// All of it as JSON.
    pub fn json(&self) -> Json {
        let metadata: Map<String, Json> = self
            .metadata
            .iter()
            .map(|e| (e.key.clone(), json!({ "type": e.kind, "value": e.value })))
            .collect();
        let tensors = self.tensors.iter().map(|t| {
            json!({ "name": t.name, "type": t.dtype, "shape": t.shape, "bytes": t.bytes, "sha256": t.sha256 })
        });
        let totals: Map<String, Json> = self
            .totals()
            .into_iter()
            .map(|(dtype, (tensors, bytes))| (dtype.into(), json!({ "tensors": tensors, "bytes": bytes })))
            .collect();
        json!({
            "file": self.path.to_string_lossy(),
            "kind": self.kind,
            "support": self.support.as_ref().map(|s| json!({ "level": s.level, "line": s.line })),
            "metadata": metadata,
            "recipe": self.recipe,
            "tensors": tensors.collect::<Vec<_>>(),
            "types": totals,
        })
    }

    /// Number of tensors and bytes of each type.
    fn totals(&self) -> BTreeMap<&str, (usize, u64)> {
        let mut totals: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
        for t in &self.tensors {
            let total = totals.entry(&t.dtype).or_default();
            *total = (total.0 + 1, total.1.saturating_add(t.bytes));
        }
        totals
    }
}

fn longest(texts: impl Iterator<Item = String>) -> usize {
    texts.map(|t| t.chars().count()).max().unwrap_or(0).min(SHOWN)
}

/// A value as one line: a text without quotes, a long array as its length and first values.
fn shown(value: &Json) -> String {
    if let Json::String(text) = value {
        return text.clone();
    }
    match (value.get("length"), value.get("first").and_then(Json::as_array)) {
        (Some(length), Some(first)) => {
            let first: Vec<String> = first.iter().map(Json::to_string).collect();
            format!("{length} values: {}, ...", first.join(", "))
        }
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_are_escaped_and_totals_add_up() {
        let tensor = |name: &str, bytes| TensorLine {
            name: name.into(),
            dtype: "Q4_0".into(),
            shape: vec![1, 32],
            bytes,
            sha256: Some("ab".repeat(32)),
        };
        let contents = Contents {
            path: "x.gguf".into(),
            kind: "GGUF file, version 3".into(),
            support: Some(Support { level: "none", line: "\u{1b}[2J".into() }),
            metadata: vec![Entry {
                key: "k\u{1b}[31m".into(),
                kind: "string".into(),
                value: json!("\u{7}bell\n"),
            }],
            recipe: Some("[build]\nx = \u{1b}[2J".into()),
            tensors: vec![tensor("t\u{1b}]0;owned\u{7}", 18), tensor("u", u64::MAX)],
        };
        let text = contents.text(false);
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
        assert!(text.contains("k\\u{1b}[31m") && text.contains("abababababababab\n"));
        assert_eq!(contents.json()["types"]["Q4_0"]["tensors"], 2);
    }
}
