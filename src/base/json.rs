//! JSON of an unknown origin, within bounds of memory.
//!
//! `[],` is three bytes, and a hundred in memory. So values are counted before they are made.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;
use serde::de::DeserializeOwned;

/// How many commas and colons and opening brackets a file may have, a colon counted twice: a member of an
/// object takes the room of several items of a list. The largest tokenizer.json in use, Gemma 3's, has 2.3
/// million.
const MAX_MARKS: usize = 5_000_000;

/// Why a JSON text was not read.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    /// It has more values than is accepted.
    #[error("more values than any such file has")]
    TooMany,
    /// It is no JSON, or has other values than expected.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

/// The value of a JSON text.
///
/// # Errors
/// Too many values; a text that is no JSON, or not of this type.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Unread> {
    if marks(bytes) > MAX_MARKS {
        return Err(Unread::TooMany);
    }
    let bytes = without_bare_words(bytes);
    // Words became objects.
    if marks(&bytes) > MAX_MARKS {
        return Err(Unread::TooMany);
    }
    Ok(serde_json::from_slice(&bytes)?)
}

/// Python's `Infinity` and `NaN`, which are no JSON, as the objects that transformers 5 writes in their place:
/// `{"__float__": "Infinity"}`.
fn without_bare_words(bytes: &[u8]) -> Cow<'_, [u8]> {
    let words: [&[u8]; 3] = [b"-Infinity", b"Infinity", b"NaN"];
    let (mut text, mut copied) = (Vec::new(), 0);
    outside_of_strings(bytes, |at| {
        let may = at >= copied && matches!(bytes[at], b'-' | b'I' | b'N');
        let Some(word) = words.iter().find(|word| may && bytes[at..].starts_with(word)) else { return };
        text.extend_from_slice(&bytes[copied..at]);
        text.extend_from_slice(br#"{"__float__":""#);
        text.extend_from_slice(word);
        text.extend_from_slice(br#""}"#);
        copied = at + word.len();
    });
    if copied == 0 {
        return Cow::Borrowed(bytes);
    }
    text.extend_from_slice(&bytes[copied..]);
    Cow::Owned(text)
}

/// The text of a value, indented, with a final newline. What [`without_bare_words`] made becomes Python's words again,
/// which programs other than transformers 5 need.
pub fn text(json: &serde_json::Value) -> String {
    static WORD: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r#"\{\s*"__float__":\s*"(-?Infinity|NaN)"\s*\}"#).expect("a regular expression")
    });
    // Quotes within a string are escaped, so no string has this.
    format!("{}\n", WORD.replace_all(&format!("{json:#}"), "$1"))
}

/// Calls `visit` with the place of each byte that is in no string.
fn outside_of_strings(bytes: &[u8], mut visit: impl FnMut(usize)) {
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at += 1;
                while bytes.get(at).is_some_and(|&byte| byte != b'"') {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
            }
            _ => visit(at),
        }
        at += 1;
    }
}

/// Counts what separates values, outside of strings.
fn marks(bytes: &[u8]) -> usize {
    let mut marks = 0;
    outside_of_strings(bytes, |at| match bytes[at] {
        b',' | b'[' | b'{' => marks += 1,
        b':' => marks += 2,
        _ => {}
    });
    marks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_counted_outside_of_strings() {
        assert_eq!(marks(br#"{"a,\":": [1, 2, {}], "b": "[["}"#), 10);
        assert_eq!(marks(br#""\"#), 0);
        let many = format!("[{}0]", "0,".repeat(MAX_MARKS));
        assert!(parse::<serde_json::Value>(many.as_bytes()).unwrap_err().to_string().contains("more values"));
        assert_eq!(parse::<Vec<u8>>(b"[1, 2]").unwrap(), [1, 2]);
    }

    #[test]
    fn numbers_of_python_are_objects() {
        let parsed: serde_json::Value =
            parse(br#"{"a": [0.0, Infinity], "b": [-Infinity,NaN, -1], "NaN": "NaN"}"#).unwrap();
        let word = |word: &str| serde_json::json!({ "__float__": word });
        let right = serde_json::json!({
            "a": [0.0, word("Infinity")], "b": [word("-Infinity"), word("NaN"), -1], "NaN": "NaN"
        });
        assert_eq!(parsed, right);
        let text = text(&parsed);
        assert!(text.contains("0.0,\n    Infinity\n") && text.contains(r#""NaN": "NaN""#), "{text}");
        assert_eq!(parse::<serde_json::Value>(text.as_bytes()).unwrap(), right);
        let many = format!("[{}0]", "NaN,".repeat(MAX_MARKS / 2));
        assert!(parse::<serde_json::Value>(many.as_bytes()).unwrap_err().to_string().contains("more values"));
        assert!(parse::<serde_json::Value>(b"[Infinit]").is_err());
    }
}
