//! Byte-pair encoding by a list of merges, GPT-2's over bytes and Gemma 4's over characters, with the ids that llama.cpp
//! gives.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::HashMap;

use super::byte_level;
use super::merge::merge_characters;
use super::pretokenizer::PreTokenizer;
use super::spm::SPACE;
use super::vocabulary::{Vocabulary, byte_token};

/// Longest word, in bytes, whose tokens are remembered within one text: words repeat, long ones hardly.
const REMEMBERED: usize = 48;

/// How tokens are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// As bytes, each by a character of its own.
    Bytes,
    /// As characters, a space as `▁`; what no token spells, as its bytes `<0xAB>`.
    Characters,
}

/// The merge list and the pre-tokenizer of a vocabulary.
#[derive(Debug)]
pub(super) struct Bpe {
    pre: PreTokenizer,
    pub(super) spelling: Spelling,
    /// Rank of a merge by its line in the file, `left right`. Spelled text holds no space, so a line that has one
    /// elsewhere is never looked up, and does no harm.
    ranks: HashMap<String, u32>,
}

impl Bpe {
    /// `merges` are the lines of `tokenizer.ggml.merges`; of equal lines the first counts.
    pub(super) fn new(pre: PreTokenizer, spelling: Spelling, merges: Vec<String>) -> Self {
        let mut ranks = HashMap::with_capacity(merges.len());
        for (rank, merge) in (0u32..).zip(merges) {
            ranks.entry(merge).or_insert(rank);
        }
        Bpe { pre, spelling, ranks }
    }

    /// The pre-tokenizer.
    pub(super) fn pre(&self) -> &PreTokenizer {
        &self.pre
    }

    /// The lines of the merge list, each once, in the order of their ranks.
    pub(super) fn merges(&self) -> Vec<&str> {
        let mut lines: Vec<(u32, &str)> = self.ranks.iter().map(|(line, &rank)| (rank, &**line)).collect();
        lines.sort_unstable();
        lines.into_iter().map(|(_, line)| line).collect()
    }

    /// Appends the tokens of `text`, which holds no special token.
    pub(super) fn encode(&self, text: &str, vocabulary: &Vocabulary, out: &mut Vec<u32>) {
        match self.spelling {
            Spelling::Bytes => self.encode_words(text, vocabulary, out),
            Spelling::Characters => self.encode_words(&text.replace(' ', SPACE), vocabulary, out),
        }
    }

    fn encode_words(&self, text: &str, vocabulary: &Vocabulary, out: &mut Vec<u32>) {
        let mut seen: HashMap<&str, Vec<u32>> = HashMap::new();
        for word in self.pre.split(text) {
            if word.len() > REMEMBERED {
                self.encode_word(word, vocabulary, out);
                continue;
            }
            let ids = seen.entry(word).or_insert_with(|| {
                let mut ids = Vec::new();
                self.encode_word(word, vocabulary, &mut ids);
                ids
            });
            out.extend_from_slice(ids);
        }
    }

    fn encode_word(&self, word: &str, vocabulary: &Vocabulary, out: &mut Vec<u32>) {
        let (spelled, whole) = match self.spelling {
            Spelling::Bytes => (Cow::Owned(byte_level::spell(word)), self.pre.ignore_merges),
            Spelling::Characters => (Cow::Borrowed(word), word.starts_with('\n')),
        };
        if let (true, Some(id)) = (whole, vocabulary.id(&spelled)) {
            out.push(id);
            return;
        }
        let mut line = String::new();
        let pieces = merge_characters(&spelled, |left, right| {
            line.clear();
            line.extend([left, " ", right]);
            self.ranks.get(&line).map(|&rank| Reverse(rank))
        });
        for piece in pieces {
            match (vocabulary.id(piece), self.spelling) {
                (Some(id), _) => out.push(id),
                // As llama.cpp: what the vocabulary cannot spell falls back to its ASCII characters, else is lost.
                (None, Spelling::Bytes) => {
                    let ascii = piece.chars().filter(char::is_ascii);
                    out.extend(ascii.filter_map(|c| vocabulary.id(c.encode_utf8(&mut [0; 4]))));
                }
                (None, Spelling::Characters) => {
                    out.extend(piece.bytes().filter_map(|byte| vocabulary.id(&byte_token(byte))));
                }
            }
        }
    }
}
