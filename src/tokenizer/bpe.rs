//! Byte-pair encoding by a list of merges (GPT-2's of bytes, Gemma 4's of characters), with the ids that
//! llama.cpp gives.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::OnceLock;

use super::byte_level;
use super::error::TokenizerError;
use super::joints::Joints;
use super::merge::merge_text;
use super::metaspace::{METASPACE, byte_token};
use super::pre_tokenizer::PreTokenizer;
use super::vocabulary::Vocabulary;

/// The longest word, in bytes, whose tokens are cached within one text. Longer words rarely repeat.
const MAX_CACHED_WORD: usize = 48;

/// How tokens are spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// As bytes, each by one character.
    Bytes,
    /// As characters, with `▁` for a space and byte-fallback tokens for what no token spells.
    Characters,
}

/// The merge list and the pre-tokenizer of a vocabulary.
#[derive(Debug)]
pub(super) struct Bpe {
    pre_tokenizer: PreTokenizer,
    pub(super) spelling: Spelling,
    /// The rank of each merge, by its line `left right`. Spelled text holds no space, so a line with a space
    /// elsewhere is never looked up and does no harm.
    ranks: HashMap<String, u32>,
    /// Of the tokens that merges make; found on the first long word.
    joints: OnceLock<Joints>,
}

impl Bpe {
    /// `merges` are the lines of `tokenizer.ggml.merges`; the first of equal lines counts.
    pub(super) fn new(pre_tokenizer: PreTokenizer, spelling: Spelling, merges: Vec<String>) -> Self {
        let mut ranks = HashMap::with_capacity(merges.len());
        for (rank, merge) in (0u32..).zip(merges) {
            ranks.entry(merge).or_insert(rank);
        }
        Bpe { pre_tokenizer, spelling, ranks, joints: OnceLock::new() }
    }

    /// The pre-tokenizer.
    pub(super) fn pre_tokenizer(&self) -> &PreTokenizer {
        &self.pre_tokenizer
    }

    /// The lines of the merge list, each once, in the order of their ranks.
    pub(super) fn merges(&self) -> Vec<&str> {
        let mut lines: Vec<(u32, &str)> = self.ranks.iter().map(|(line, &rank)| (rank, &**line)).collect();
        lines.sort_unstable();
        lines.into_iter().map(|(_, line)| line).collect()
    }

    /// Appends the tokens of `text`, which holds no special token.
    ///
    /// # Errors
    /// [`TokenizerError::LongWord`].
    pub(super) fn encode(
        &self,
        text: &str,
        vocabulary: &Vocabulary,
        out: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        match self.spelling {
            Spelling::Bytes => self.encode_words(text, vocabulary, out),
            Spelling::Characters => self.encode_words(&text.replace(' ', METASPACE), vocabulary, out),
        }
    }

    fn encode_words(
        &self,
        text: &str,
        vocabulary: &Vocabulary,
        out: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let mut cache: HashMap<&str, Vec<u32>> = HashMap::new();
        for word in self.pre_tokenizer.split(text) {
            if word.len() > MAX_CACHED_WORD {
                self.encode_word(word, vocabulary, out)?;
            } else if let Some(ids) = cache.get(word) {
                out.extend_from_slice(ids);
            } else {
                let start = out.len();
                self.encode_word(word, vocabulary, out)?;
                cache.insert(word, out[start..].to_vec());
            }
        }
        Ok(())
    }

    fn encode_word(
        &self,
        word: &str,
        vocabulary: &Vocabulary,
        out: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let (spelled, whole) = match self.spelling {
            Spelling::Bytes => (Cow::Owned(byte_level::spell(word)), self.pre_tokenizer.ignore_merges),
            Spelling::Characters => (Cow::Borrowed(word), word.starts_with('\n')),
        };
        if let (true, Some(id)) = (whole, vocabulary.id(&spelled)) {
            out.push(id);
            return Ok(());
        }
        let mut line = String::new();
        let joints = || {
            self.joints.get_or_init(|| {
                let made: Vec<String> = self.ranks.keys().map(|line| line.replace(' ', "")).collect();
                Joints::new(made.iter().map(String::as_str))
            })
        };
        let priority = |left: &str, right: &str| {
            line.clear();
            line.extend([left, " ", right]);
            self.ranks.get(&line).map(|&rank| Reverse(rank))
        };
        merge_text(&spelled, joints, priority, |piece| {
            match (vocabulary.id(piece), self.spelling) {
                (Some(id), _) => out.push(id),
                // As in llama.cpp, text that no token spells falls back to its ASCII characters; the rest is
                // lost.
                (None, Spelling::Bytes) => {
                    let ascii = piece.chars().filter(char::is_ascii);
                    out.extend(ascii.filter_map(|c| vocabulary.id(c.encode_utf8(&mut [0; 4]))));
                }
                (None, Spelling::Characters) => {
                    out.extend(piece.bytes().filter_map(|byte| vocabulary.id(&byte_token(byte))));
                }
            }
            Ok(())
        })
    }
}
