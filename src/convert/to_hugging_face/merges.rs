//! The merge list of a SentencePiece vocabulary, which has scores instead.
//!
//! SentencePiece joins any two neighbours whose joined text is a token, that of the greatest score first. As a list of
//! pairs that is every way to cut a token into two tokens, by falling score; of equal scores the longer left part comes
//! first, as transformers' converters order them.

use std::cmp::Reverse;

use crate::tokenizer::Vocabulary;

/// Longer tokens, in bytes, are in no vocabulary, and cutting them everywhere would take for ever.
pub(super) const LONGEST: usize = 1 << 10;

/// The pairs, the first to be joined first. No token may be longer than [`LONGEST`].
pub(super) fn by_score(vocabulary: &Vocabulary) -> Vec<(&str, &str)> {
    let mut pairs = Vec::new();
    for id in 0..vocabulary.len() as u32 {
        let Some(text) = vocabulary.text(id).filter(|text| text.len() <= LONGEST) else { continue };
        for (at, _) in text.char_indices().skip(1) {
            let (left, right) = text.split_at(at);
            if vocabulary.id(left).is_some() && vocabulary.id(right).is_some() {
                pairs.push((vocabulary.score(id), id, left, right));
            }
        }
    }
    // Zero is zero, whatever its sign.
    pairs.sort_by(|a, b| {
        (b.0 + 0.0).total_cmp(&(a.0 + 0.0)).then_with(|| {
            let order = |&(_, id, left, right): &(f32, u32, &str, &str)| {
                (Reverse(left.chars().count()), Reverse(right.chars().count()), id)
            };
            order(a).cmp(&order(b))
        })
    });
    pairs.into_iter().map(|(_, _, left, right)| (left, right)).collect()
}
