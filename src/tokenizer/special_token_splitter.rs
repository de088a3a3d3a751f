//! Cuts special tokens out of raw text, before the algorithm encodes the rest.
//!
//! llama.cpp takes the special tokens longest first, and cuts each occurrence out of the remaining text. This
//! file finds all occurrences at once, sorts them by (longest token, leftmost), and keeps those that overlap
//! none kept before. That gives the same cuts in one pass over the text, however many special tokens a file
//! declares.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::OnceLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind};

use super::error::TokenizerError;
use super::joints::Joints;

/// The longest text that is searched at once, in bytes.
const MAX_TEXT: usize = 1 << 20;
/// How many occurrences a text searched at once may have. Runs of spaces, each a token, have 31 a space.
const MAX_FOUND: usize = 1 << 23;

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
    /// Their texts.
    texts: Vec<String>,
    /// The joints of the texts; found on the first long text.
    joints: OnceLock<Joints>,
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
            texts: tokens.iter().map(|(_, text, _)| (*text).to_owned()).collect(),
            tokens: tokens.into_iter().map(|(id, _, strip)| (id, strip)).collect(),
            joints: OnceLock::new(),
        })
    }

    /// Calls `visit` with the fragments of `text` in order. No two texts follow each other.
    ///
    /// # Errors
    /// Those of `visit`; [`TokenizerError::LongWord`].
    pub(super) fn visit<'a>(
        &self,
        text: &'a str,
        mut visit: impl FnMut(Fragment<'a>) -> Result<(), TokenizerError>,
    ) -> Result<(), TokenizerError> {
        let parts = if text.len() <= MAX_TEXT {
            vec![text]
        } else {
            let joints = self.joints.get_or_init(|| Joints::new(self.texts.iter().map(String::as_str)));
            // A token may absorb the white space after it.
            joints.parts(text, MAX_TEXT, |_, right| !right.is_whitespace())?
        };
        // The text since the last token, which parts may have cut.
        let (mut start, mut end) = (0, 0);
        for part in parts {
            for (id, tokens) in self.find(part)? {
                let at = end + tokens.start;
                if at > start {
                    visit(Fragment::Text(&text[start..at]))?;
                }
                visit(Fragment::Token(id))?;
                start = end + tokens.end;
            }
            end += part.len();
        }
        if end > start {
            visit(Fragment::Text(&text[start..end]))?;
        }
        Ok(())
    }

    /// The tokens in `text`, with the bytes that each takes.
    fn find(&self, text: &str) -> Result<Vec<(u32, Range<usize>)>, TokenizerError> {
        let hits = self.automaton.find_overlapping_iter(text);
        let mut found: Vec<(usize, usize, usize)> =
            hits.map(|hit| (hit.pattern().as_usize(), hit.start(), hit.end())).take(MAX_FOUND + 1).collect();
        if found.len() > MAX_FOUND {
            return Err(TokenizerError::LongWord { limit: MAX_TEXT });
        }
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

        Ok(kept.into_iter().map(|(start, (end, id))| (id, start..end)).collect())
    }
}

/// C's `isspace` in the C locale, which also counts the vertical tab.
fn is_c_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split<'a>(splitter: &SpecialTokenSplitter, text: &'a str) -> Vec<Fragment<'a>> {
        let mut fragments = Vec::new();
        let visited = splitter.visit(text, |fragment| {
            fragments.push(fragment);
            Ok(())
        });
        visited.unwrap();
        fragments
    }

    #[test]
    fn a_long_text_is_searched_in_parts() {
        let splitter = SpecialTokenSplitter::new([(1, "<a>", true), (2, "<ab>", false)]).unwrap();
        let text = "xy<a>  <ab>z".repeat(MAX_TEXT / 5);
        let fragments = split(&splitter, &text);
        let texts = |text: &Fragment<'_>| matches!(text, Fragment::Text("xy" | "z" | "zxy"));
        assert!(fragments.iter().filter(|f| texts(f)).count() == MAX_TEXT / 5 + 1);
        assert_eq!(fragments.len(), 3 * (MAX_TEXT / 5) + 1);
        let nested: Vec<String> = (1..100).map(|length| "a".repeat(length)).collect();
        let nested = nested.iter().map(|text| (1, text.as_str(), false));
        let splitter = SpecialTokenSplitter::new(nested).unwrap();
        let long = |length| splitter.visit(&"a".repeat(length), |_| Ok(()));
        assert!(long(1000).is_ok() && long(100_000).is_err() && long(MAX_TEXT + 1).is_err());
    }

    #[test]
    fn the_longest_token_wins_even_from_the_right() {
        let splitter =
            SpecialTokenSplitter::new([(1, "<a>", false), (2, "a><bbb", false), (3, "", false)]).unwrap();
        assert_eq!(
            split(&splitter, "<a><bbb<a>"),
            [Fragment::Text("<"), Fragment::Token(2), Fragment::Token(1)]
        );
        assert_eq!(split(&splitter, "x<a>é"), [Fragment::Text("x"), Fragment::Token(1), Fragment::Text("é")]);
        assert_eq!(split(&splitter, ""), []);
    }

    #[test]
    fn white_space_is_absorbed_up_to_the_next_token() {
        let splitter = SpecialTokenSplitter::new([(1, "<|end|>", true), (2, " \n", false)]).unwrap();
        assert_eq!(split(&splitter, "<|end|> \n x"), [Fragment::Token(1), Fragment::Text("x")]);
        let none = SpecialTokenSplitter::new([]).unwrap();
        assert_eq!(split(&none, "abc"), [Fragment::Text("abc")]);
    }
}
