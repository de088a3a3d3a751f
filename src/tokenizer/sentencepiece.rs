//! SentencePiece's byte-pair encoding by scores (Llama 2, TinyLlama, Mistral), with the ids that llama.cpp gives.
//!
//! A space is written `▁`; of two neighbours whose joined text is a token, the pair with the greatest score is joined
//! first. What no token spells is written as its UTF-8 bytes, `<0xAB>`.

use std::cmp::Ordering;

use super::TokenizerError;
use super::merge::merge_characters;
use super::vocabulary::{Vocabulary, byte_token};

/// How SentencePiece writes a space.
pub(crate) const SPACE: &str = "\u{2581}";

/// The settings of a SentencePiece vocabulary.
#[derive(Debug)]
pub(super) struct Spm {
    /// Text at the start, or behind a special token, is given a space in front.
    pub(super) adds_space: bool,
    /// Stands for a byte that the vocabulary lacks.
    pub(super) unknown: Option<u32>,
}

/// A score as an order: no file's NaN or negative zero can upset the heap.
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

impl Spm {
    /// Appends the tokens of `text`, which holds no special token. `after_special` says that it stands at the start
    /// or behind a special token.
    pub(super) fn encode(
        &self,
        text: &str,
        after_special: bool,
        vocabulary: &Vocabulary,
        out: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let mut written = if self.adds_space && after_special { SPACE.to_owned() } else { String::new() };
        written.push_str(&text.replace(' ', SPACE));
        let mut joined = String::new();
        let pieces = merge_characters(&written, |left, right| {
            joined.clear();
            joined.extend([left, right]);
            vocabulary.id(&joined).map(|id| Score(vocabulary.score(id)))
        });
        for piece in pieces {
            match vocabulary.id(piece) {
                Some(id) => out.push(id),
                None => {
                    for byte in piece.bytes() {
                        out.push(self.byte_token(byte, vocabulary)?);
                    }
                }
            }
        }
        Ok(())
    }

    fn byte_token(&self, byte: u8, vocabulary: &Vocabulary) -> Result<u32, TokenizerError> {
        let bare = char::from(byte);
        vocabulary
            .id(&byte_token(byte))
            .or_else(|| bare.is_ascii().then(|| vocabulary.id(bare.encode_utf8(&mut [0; 4])))?)
            .or(self.unknown)
            .ok_or_else(|| {
                TokenizerError::bad(
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

    fn encode(spm: &Spm, text: &str, after_special: bool) -> Result<Vec<u32>, TokenizerError> {
        let mut out = Vec::new();
        spm.encode(text, after_special, &vocabulary(), &mut out).map(|()| out)
    }

    #[test]
    fn the_greatest_score_is_joined_first_and_the_left_wins_a_tie() {
        let spm = Spm { adds_space: true, unknown: Some(0) };
        assert_eq!(encode(&spm, "ab", true).unwrap(), [6]);
        assert_eq!(encode(&spm, "ab", false).unwrap(), [4]);
        assert_eq!(encode(&spm, "abb", false).unwrap(), [4, 3]);
        assert_eq!(encode(&spm, "bbb", false).unwrap(), [8, 3]);
        assert!(encode(&spm, "", false).unwrap().is_empty());
        assert_eq!(encode(&spm, "", true).unwrap(), [1]);
    }

    #[test]
    fn missing_characters_become_bytes_then_unknown_then_an_error() {
        let spm = Spm { adds_space: false, unknown: Some(0) };
        assert_eq!(encode(&spm, "é", true).unwrap(), [7, 0]);
        let bare = Spm { adds_space: false, unknown: None };
        assert!(encode(&bare, "é", true).unwrap_err().to_string().contains("0xA9"));
    }

    #[test]
    fn odd_scores_are_ordered() {
        assert_eq!(Score(0.0).cmp(&Score(-0.0)), Ordering::Equal);
        assert_eq!(Score(f32::NAN).cmp(&Score(f32::NAN)), Ordering::Equal);
    }
}
