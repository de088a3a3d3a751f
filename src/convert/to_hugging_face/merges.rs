//! The merge list of a SentencePiece vocabulary, which itself has scores instead.
//!
//! SentencePiece joins the two neighbours whose joined text is the token with the greatest score. The
//! equivalent list of pairs is every way to split a token into two tokens, by descending score. Among equal
//! scores, the longer left part comes first, as in transformers' converters.

use std::cmp::Reverse;

use crate::tokenizer::Vocabulary;

/// The maximum length of a token in bytes: no vocabulary has a longer one, and splitting it everywhere would
/// take too long.
pub(super) const LONGEST: usize = 1 << 10;

/// The pairs in the order in which they are joined. No token may be longer than [`LONGEST`].
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
    // The sign of a zero does not count.
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
