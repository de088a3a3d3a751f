//! Cuts special tokens out of raw text, before the algorithm encodes the rest.
//!
//! llama.cpp takes the special tokens longest first, and cuts each occurrence out of the remaining text. This
//! file finds all occurrences at once, sorts them by (longest token, leftmost), and keeps those that overlap
//! none kept before. That gives the same cuts in one pass over the text, however many special tokens a file
//! declares.

use std::collections::BTreeMap;

use aho_corasick::{AhoCorasick, AhoCorasickKind};

use super::error::TokenizerError;

/// A fragment of a text: ordinary text, or one special token.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fragment<'a> {
    /// Text for the algorithm to encode; never empty.
    Text(&'a str),
    /// A special token found in the text.
    Token(u32),
}

/// Finds the special tokens of a vocabulary.
#[derive(Debug)]
pub(super) struct SpecialTokenSplitter {
    automaton: AhoCorasick,
    /// Of each pattern, the longest first: the token, and whether it absorbs the white space after it.
    tokens: Vec<(u32, bool)>,
}

impl SpecialTokenSplitter {
    /// `tokens` are (id, text, whether the token absorbs the white space after it).
    ///
    /// # Errors
    /// If there are too many.
    pub(super) fn new<'a>(
        tokens: impl IntoIterator<Item = (u32, &'a str, bool)>,
    ) -> Result<Self, TokenizerError> {
        let mut tokens: Vec<_> = tokens.into_iter().filter(|(_, text, _)| !text.is_empty()).collect();
        tokens.sort_by_key(|(id, text, _)| (std::cmp::Reverse(text.len()), *id));
        let automaton = AhoCorasick::builder()
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(tokens.iter().map(|(_, text, _)| text))
            .map_err(|error| {
                TokenizerError::key(
                    "tokenizer.ggml.token_type",
                    format!("too many special tokens: {error}"),
                    "the file is damaged: fetch or convert it again",
                )
            })?;
        Ok(SpecialTokenSplitter {
            automaton,
            tokens: tokens.into_iter().map(|(id, _, strip)| (id, strip)).collect(),
        })
    }

    /// The fragments of `text` in order.
    pub(super) fn split<'a>(&self, text: &'a str) -> Vec<Fragment<'a>> {
        let mut found: Vec<(usize, usize, usize)> = self
            .automaton
            .find_overlapping_iter(text)
            .map(|hit| (hit.pattern().as_usize(), hit.start(), hit.end()))
            .collect();
        found.sort_unstable();

        // Occurrences kept so far: start -> (end, token).
        let mut kept: BTreeMap<usize, (usize, u32)> = BTreeMap::new();
        for (pattern, start, mut end) in found {
            let before = kept.range(..end).next_back();
            if before.is_some_and(|(_, &(kept_end, _))| kept_end > start) {
                continue;
            }
            let (id, strip) = self.tokens[pattern];
            if strip {
                let limit = kept.range(end..).next().map_or(text.len(), |(&next, _)| next);
                end += text.as_bytes()[end..limit].iter().take_while(|b| is_c_space(**b)).count();
            }
            kept.insert(start, (end, id));
        }

        let mut fragments = Vec::with_capacity(2 * kept.len() + 1);
        let mut done = 0;
        for (start, (end, id)) in kept {
            if start > done {
                fragments.push(Fragment::Text(&text[done..start]));
            }
            fragments.push(Fragment::Token(id));
            done = end;
        }
        if done < text.len() {
            fragments.push(Fragment::Text(&text[done..]));
        }
        fragments
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
        let splitter =
            SpecialTokenSplitter::new([(1, "<a>", false), (2, "a><bbb", false), (3, "", false)]).unwrap();
        assert_eq!(
            splitter.split("<a><bbb<a>"),
            [Fragment::Text("<"), Fragment::Token(2), Fragment::Token(1)]
        );
        assert_eq!(splitter.split("x<a>é"), [Fragment::Text("x"), Fragment::Token(1), Fragment::Text("é")]);
        assert_eq!(splitter.split(""), []);
    }

    #[test]
    fn white_space_is_absorbed_up_to_the_next_token() {
        let splitter = SpecialTokenSplitter::new([(1, "<|end|>", true), (2, " \n", false)]).unwrap();
        assert_eq!(splitter.split("<|end|> \n x"), [Fragment::Token(1), Fragment::Text("x")]);
        let none = SpecialTokenSplitter::new([]).unwrap();
        assert_eq!(none.split("abc"), [Fragment::Text("abc")]);
    }
}
