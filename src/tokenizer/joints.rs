//! Where a long text can be cut without changing its tokens.
//!
//! A token never reaches over two characters that are neighbours in no token. A text cut between such two has
//! the same tokens in its parts as in the whole. So what takes much memory for a byte of text gets a part at
//! a time.

use std::collections::HashSet;

use super::error::TokenizerError;

/// The pairs of characters that are neighbours within a token.
#[derive(Debug)]
pub(super) struct Joints(HashSet<(char, char)>);

impl Joints {
    /// The pairs within these tokens.
    pub(super) fn new<'a>(tokens: impl IntoIterator<Item = &'a str>) -> Self {
        let pairs = tokens.into_iter().flat_map(|token| token.chars().zip(token.chars().skip(1)));
        Joints(pairs.collect())
    }

    /// The parts of a text, each of at most about `limit` bytes. `may_cut` says whether two characters may be
    /// parted that are neighbours in no token.
    ///
    /// # Errors
    /// [`TokenizerError::LongWord`]: `limit` bytes without a place to cut.
    pub(super) fn parts<'a>(
        &self,
        text: &'a str,
        limit: usize,
        may_cut: impl Fn(char, char) -> bool,
    ) -> Result<Vec<&'a str>, TokenizerError> {
        let mut parts = Vec::new();
        let (mut start, mut place) = (0, 0);
        for ((_, left), (at, right)) in text.char_indices().zip(text.char_indices().skip(1)) {
            if !self.0.contains(&(left, right)) && may_cut(left, right) {
                place = at;
            }
            if at - start >= limit {
                if place == start {
                    return Err(TokenizerError::LongWord { limit });
                }
                parts.push(&text[start..place]);
                start = place;
            }
        }
        parts.push(&text[start..]);
        Ok(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_where_no_token_reaches() {
        let joints = Joints::new(["ab", "bé", "x"]);
        let parts = |text, limit| joints.parts(text, limit, |_, _| true);
        assert_eq!(parts("abéabéab", 5).unwrap(), ["abé", "abé", "ab"]);
        assert_eq!(parts("abé", 9).unwrap(), ["abé"]);
        assert_eq!(parts("", 9).unwrap(), [""]);
        assert_eq!(parts("xxxx", 2).unwrap(), ["xx", "xx"]);
        assert!(parts("xabéx", 2).is_err());
        assert!(joints.parts("xxxx", 2, |_, _| false).unwrap_err().to_string().contains("place to cut"));
    }
}
