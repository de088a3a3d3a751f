//! The steps of a pre-tokenizer in the form of the `tokenizers` library.

use super::families::{DIGIT, GPT2, Stage};
use super::split::SplitRule;

/// One step of a pre-tokenizer in a `tokenizer.json`: the library's own step if it has one, else a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LibraryStep {
    /// GPT-2's words: the pattern within the library's `ByteLevel`.
    Gpt2Words,
    /// Every digit by itself: the library's `Digits`.
    Digits,
    /// This pattern, valid in both engines of the library (Oniguruma and fancy-regex).
    Pattern(String),
}

impl LibraryStep {
    /// The step that does what the stage does.
    pub(super) fn of(stage: Stage) -> Self {
        match stage {
            stage if stage == GPT2 => LibraryStep::Gpt2Words,
            stage if stage == DIGIT => LibraryStep::Digits,
            (pattern, rule) => LibraryStep::Pattern(library_pattern(pattern, rule)),
        }
    }
}

/// The pattern for the library's engines: with look-ahead, which the `regex` crate does not support.
fn library_pattern(pattern: &str, rule: SplitRule) -> String {
    match rule {
        SplitRule::Thousands => return r"(?=(?:[0-9]{3})+(?![0-9]))".into(),
        SplitRule::ThousandsWithFirst => return r"[^\p{N}]*\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))".into(),
        _ => {}
    }
    let pattern = without_differences(pattern);
    match (pattern.strip_suffix(r"|\s+"), rule) {
        (Some(before), SplitRule::GiveBack | SplitRule::GiveBackUnlessNewline) => {
            format!(r"{before}|\s+(?!\S)|\s+")
        }
        (Some(before), SplitRule::GiveBackAndSplitPowersOfTwo) => {
            let runs: String = (2..=9).rev().map(|power| format!(r"|\s{{{}}}(?!\S)", 1 << power)).collect();
            format!(r"{before}{runs}|\s{{1,2}}(?!\S)|\s")
        }
        _ => pattern,
    }
}

/// The pattern with a look-ahead for each class difference, `[A--[B]]` or `[[A]--[B]]`, which Oniguruma does
/// not support.
fn without_differences(pattern: &str) -> String {
    let mut out = pattern.to_owned();
    while let Some((head, tail)) = out.split_once("--") {
        let open = head.rfind('[').unwrap_or(0);
        let (start, class) = match head.strip_suffix(']') {
            Some(_) => (open - 1, head[open..].to_owned()),
            None => (open, format!("{}]", &head[open..])),
        };
        let end = if tail.starts_with('[') { tail.find(']').map_or(tail.len(), |at| at + 1) } else { 2 };
        let (without, rest) = tail.split_at(end);
        out = format!("{}(?:(?!{without}){class}){}", &head[..start], rest.strip_prefix(']').unwrap_or(rest));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn class_differences_become_look_ahead() {
        assert_eq!(without_differences(r"a[\p{L}--[a-z]]*|b"), r"a(?:(?![a-z])[\p{L}])*|b");
        assert_eq!(without_differences(r"[[x-z\p{L}]--\s]+"), r"(?:(?!\s)[x-z\p{L}])+");
        assert_eq!(without_differences(r"\s+"), r"\s+");
    }
}
