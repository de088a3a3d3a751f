//! SentencePiece's byte-pair encoding by scores (Llama 2, TinyLlama, Mistral), with the ids that llama.cpp
//! gives.
//!
//! A space is spelled `▁`. Two neighbours may be merged if their joined text is a token; the pair whose token
//! has the greatest score is merged first. Text that no token spells becomes the byte-fallback tokens of its
//! UTF-8 bytes.

use std::cmp::Ordering;

use super::error::TokenizerError;
use super::merge::merge_text;
use super::metaspace::{METASPACE, byte_token};
use super::vocabulary::Vocabulary;

/// The settings of a SentencePiece vocabulary.
#[derive(Debug)]
pub(super) struct SentencePieceBpe {
    /// Whether a space is added before text at the start or after a special token.
    pub(super) add_space_prefix: bool,
    /// Stands for a byte that the vocabulary lacks.
    pub(super) unknown: Option<u32>,
}

/// A score with a total order, so that NaN or negative zero in a file cannot break the heap.
#[derive(PartialEq)]
struct Score(f32);

impl Eq for Score {}

impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Score {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.0 + 0.0).total_cmp(&(other.0 + 0.0))
    }
}

impl SentencePieceBpe {
    /// Appends the tokens of `text`, which holds no special token. `after_special` says that the text is at
    /// the start or follows a special token.
    ///
    /// # Errors
    /// If no token spells a byte, and the vocabulary has no unknown token; [`TokenizerError::LongWord`].
    pub(super) fn encode(
        &self,
        text: &str,
        after_special: bool,
        vocabulary: &Vocabulary,
        out: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let mut spelled =
            if self.add_space_prefix && after_special { METASPACE.to_owned() } else { String::new() };
        spelled.extend(
            text.split(' ').enumerate().flat_map(|(at, word)| [if at > 0 { METASPACE } else { "" }, word]),
        );
        let mut joined = String::new();
        let priority = |left: &str, right: &str| {
            joined.clear();
            joined.extend([left, right]);
            vocabulary.id(&joined).map(|id| Score(vocabulary.score(id)))
        };
        merge_text(
            &spelled,
            || vocabulary.joints(),
            priority,
            |piece| {
                match vocabulary.id(piece) {
                    Some(id) => out.push(id),
                    None => {
                        for byte in piece.bytes() {
                            out.push(self.byte_token(byte, vocabulary)?);
                        }
                    }
                }
                Ok(())
            },
        )
    }

    fn byte_token(&self, byte: u8, vocabulary: &Vocabulary) -> Result<u32, TokenizerError> {
        let bare = char::from(byte);
        vocabulary
            .id(&byte_token(byte))
            .or_else(|| bare.is_ascii().then(|| vocabulary.id(bare.encode_utf8(&mut [0; 4])))?)
            .or(self.unknown)
            .ok_or_else(|| {
                TokenizerError::key(
                    "tokenizer.ggml.tokens",
                    format!("no token spells the byte 0x{byte:02X}"),
                    "the vocabulary is incomplete: convert the model again",
                )
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vocabulary() -> Vocabulary {
        let tokens = ["<unk>", "▁", "a", "b", "ab", "▁a", "▁ab", "<0xC3>", "bb"];
        let scores = [0.0, -9.0, -8.0, -8.0, -1.0, -2.0, -3.0, 0.0, -1.0];
        Vocabulary::new(tokens.map(String::from).to_vec(), &[2, 1, 1, 1, 1, 1, 1, 6, 1], scores.to_vec())
            .unwrap()
    }

    fn encode(bpe: &SentencePieceBpe, text: &str, after_special: bool) -> Result<Vec<u32>, TokenizerError> {
        let mut out = Vec::new();
        bpe.encode(text, after_special, &vocabulary(), &mut out).map(|()| out)
    }

    #[test]
    fn the_greatest_score_is_joined_first_and_the_left_wins_a_tie() {
        let bpe = SentencePieceBpe { add_space_prefix: true, unknown: Some(0) };
        assert_eq!(encode(&bpe, "ab", true).unwrap(), [6]);
        assert_eq!(encode(&bpe, "ab", false).unwrap(), [4]);
        assert_eq!(encode(&bpe, "abb", false).unwrap(), [4, 3]);
        assert_eq!(encode(&bpe, "bbb", false).unwrap(), [8, 3]);
        assert!(encode(&bpe, "", false).unwrap().is_empty());
        assert_eq!(encode(&bpe, "", true).unwrap(), [1]);
    }

    #[test]
    fn missing_characters_become_bytes_then_unknown_then_an_error() {
        let bpe = SentencePieceBpe { add_space_prefix: false, unknown: Some(0) };
        assert_eq!(encode(&bpe, "é", true).unwrap(), [7, 0]);
        let bare = SentencePieceBpe { add_space_prefix: false, unknown: None };
        assert!(encode(&bare, "é", true).unwrap_err().to_string().contains("0xA9"));
    }

    #[test]
    fn odd_scores_are_ordered() {
        assert_eq!(Score(0.0).cmp(&Score(-0.0)), Ordering::Equal);
        assert_eq!(Score(f32::NAN).cmp(&Score(f32::NAN)), Ordering::Equal);
    }
}
