//! JSON of an unknown origin, within bounds of memory.
//!
//! `[],` is three bytes, and a hundred in memory. So values are counted before they are made.

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
    Ok(serde_json::from_slice(bytes)?)
}

/// Counts what separates values, outside of strings.
fn marks(bytes: &[u8]) -> usize {
    let (mut marks, mut at) = (0, 0);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b',' | b'[' | b'{' => marks += 1,
            b':' => marks += 2,
            b'"' => {
                at += 1;
                while bytes.get(at).is_some_and(|&byte| byte != b'"') {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
            }
            _ => {}
        }
        at += 1;
    }
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
}
