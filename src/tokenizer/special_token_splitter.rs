//! Finds special tokens in raw text, before any merging looks at it.
//!
//! llama.cpp goes through the special tokens longest first, and cuts each occurrence out of what text is left. Taking
//! all occurrences at once, sorted by (longest token, leftmost), and keeping those that overlap none kept before gives
//! the same cut in one pass over the text, however many special tokens a file declares.

use std::collections::BTreeMap;

use aho_corasick::{AhoCorasick, AhoCorasickKind};

use super::TokenizerError;

/// A stretch of a text: ordinary, or one special token.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    /// Text to be split into tokens by the model's algorithm; never empty.
    Text(&'a str),
    /// A special token that stood in the text.
    Token(u32),
}

/// The special tokens of a vocabulary, ready to be looked for.
#[derive(Debug)]
pub(super) struct Specials {
    automaton: AhoCorasick,
    /// Of each pattern, the longest first: the token, and whether it swallows the white space behind it.
    tokens: Vec<(u32, bool)>,
}

impl Specials {
    /// `tokens` are (id, text, whether white space behind the token is dropped).
    pub(super) fn new<'a>(
        tokens: impl IntoIterator<Item = (u32, &'a str, bool)>,
    ) -> Result<Self, TokenizerError> {
        let mut tokens: Vec<_> = tokens.into_iter().filter(|(_, text, _)| !text.is_empty()).collect();
        tokens.sort_by_key(|(id, text, _)| (std::cmp::Reverse(text.len()), *id));
        let automaton = AhoCorasick::builder()
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(tokens.iter().map(|(_, text, _)| text))
            .map_err(|error| {
                TokenizerError::bad(
                    "tokenizer.ggml.token_type",
                    format!("too many special tokens: {error}"),
                    "the file is damaged: fetch or convert it again",
                )
            })?;
        Ok(Specials { automaton, tokens: tokens.into_iter().map(|(id, _, strip)| (id, strip)).collect() })
    }

    /// The parts of `text` in order.
    pub(super) fn split<'a>(&self, text: &'a str) -> Vec<Part<'a>> {
        let mut found: Vec<(usize, usize, usize)> = self
            .automaton
            .find_overlapping_iter(text)
            .map(|hit| (hit.pattern().as_usize(), hit.start(), hit.end()))
            .collect();
        found.sort_unstable();

        // Stretches taken so far: start -> (end, token).
        let mut taken: BTreeMap<usize, (usize, u32)> = BTreeMap::new();
        for (pattern, start, mut end) in found {
            let before = taken.range(..end).next_back();
            if before.is_some_and(|(_, &(taken_end, _))| taken_end > start) {
                continue;
            }
            let (id, strip) = self.tokens[pattern];
            if strip {
                let limit = taken.range(end..).next().map_or(text.len(), |(&next, _)| next);
                end += text.as_bytes()[end..limit].iter().take_while(|b| is_c_space(**b)).count();
            }
            taken.insert(start, (end, id));
        }

        let mut parts = Vec::with_capacity(2 * taken.len() + 1);
        let mut done = 0;
        for (start, (end, id)) in taken {
            if start > done {
                parts.push(Part::Text(&text[done..start]));
            }
            parts.push(Part::Token(id));
            done = end;
        }
        if done < text.len() {
            parts.push(Part::Text(&text[done..]));
        }
        parts
    }
}

/// C's `isspace` in the C locale, which also counts the vertical tab.
fn is_c_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_token_wins_even_from_the_right() {
        let specials = Specials::new([(1, "<a>", false), (2, "a><bbb", false), (3, "", false)]).unwrap();
        assert_eq!(specials.split("<a><bbb<a>"), [Part::Text("<"), Part::Token(2), Part::Token(1)]);
        assert_eq!(specials.split("x<a>é"), [Part::Text("x"), Part::Token(1), Part::Text("é")]);
        assert_eq!(specials.split(""), []);
    }

    #[test]
    fn white_space_is_swallowed_up_to_the_next_token() {
        let specials = Specials::new([(1, "<|end|>", true), (2, " \n", false)]).unwrap();
        assert_eq!(specials.split("<|end|> \n x"), [Part::Token(1), Part::Text("x")]);
        let none = Specials::new([]).unwrap();
        assert_eq!(none.split("abc"), [Part::Text("abc")]);
    }
}
