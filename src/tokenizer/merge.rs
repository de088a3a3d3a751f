//! The merge loop of byte-pair encoding, by merges and by scores.
//!
//! A text starts as one symbol per character. The loop merges the neighbouring pair of the highest priority
//! until no pair may be merged. BPE ranks pairs by the merge list, SentencePiece by the score of the merged
//! token; the leftmost of equal pairs is merged first. A heap of candidates keeps the loop at O(n log n), so
//! that a hostile text of a million letters without a space is no problem.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::error::TokenizerError;
use super::joints::Joints;

/// The longest text that goes through the loop at once, in bytes. The loop takes 100 bytes for one.
const MAX_TEXT: usize = 1 << 21;

/// No neighbour: the end of the linked list in either direction.
const NONE: usize = usize::MAX;

/// A part of the text, in bytes; `len` 0 means that it was merged into its left neighbour.
struct Symbol {
    start: usize,
    len: usize,
    previous: usize,
    next: usize,
}

/// Calls `visit` with the results of [`merge_characters`], of a text of any length. `joints` are those of the
/// tokens that merges make.
///
/// # Errors
/// Those of `visit`; [`TokenizerError::LongWord`]: 2 MiB that merges may join to one token.
pub(super) fn merge_text<'j, P: Ord>(
    text: &str,
    joints: impl FnOnce() -> &'j Joints,
    mut priority: impl FnMut(&str, &str) -> Option<P>,
    visit: impl FnMut(&str) -> Result<(), TokenizerError>,
) -> Result<(), TokenizerError> {
    let parts = match text.len() {
        0..=MAX_TEXT => vec![text],
        _ => joints().parts(text, MAX_TEXT, |_, _| true)?,
    };
    parts.into_iter().flat_map(|part| merge_characters(part, &mut priority)).try_for_each(visit)
}

/// Merges the characters of `text` pair by pair, and returns the merged symbols in order. The result of
/// `priority(left, right)` is the priority of a merge, the greatest first; `None` if the pair may not be
/// merged.
fn merge_characters<P: Ord>(text: &str, mut priority: impl FnMut(&str, &str) -> Option<P>) -> Vec<&str> {
    let mut symbols: Vec<Symbol> = text
        .char_indices()
        .enumerate()
        .map(|(i, (start, character))| Symbol {
            start,
            len: character.len_utf8(),
            previous: i.wrapping_sub(1),
            next: i + 1,
        })
        .collect();
    let Some(last) = symbols.last_mut() else { return Vec::new() };
    last.next = NONE;

    // A candidate is (priority, left, right, merged length). It is stale if the length no longer matches.
    let mut heap: BinaryHeap<(P, Reverse<usize>, usize, usize)> = BinaryHeap::new();
    let mut propose = |heap: &mut BinaryHeap<_>, symbols: &[Symbol], left: usize, right: usize| {
        if left == NONE || right == NONE {
            return;
        }
        let (a, b) = (&symbols[left], &symbols[right]);
        let end = b.start + b.len;
        if let Some(priority) = priority(&text[a.start..b.start], &text[b.start..end]) {
            heap.push((priority, Reverse(left), right, a.len + b.len));
        }
    };
    for right in 1..symbols.len() {
        propose(&mut heap, &symbols, right - 1, right);
    }
    while let Some((_, Reverse(left), right, merged)) = heap.pop() {
        let (a, b) = (symbols[left].len, symbols[right].len);
        if a == 0 || b == 0 || a + b != merged {
            continue;
        }
        symbols[left].len = merged;
        symbols[right].len = 0;
        let next = symbols[right].next;
        symbols[left].next = next;
        if next != NONE {
            symbols[next].previous = left;
        }
        propose(&mut heap, &symbols, symbols[left].previous, left);
        propose(&mut heap, &symbols, left, next);
    }
    symbols.iter().filter(|s| s.len > 0).map(|s| &text[s.start..s.start + s.len]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_priority_is_merged_first_and_ties_go_left() {
        let rank = |left: &str, right: &str| match (left, right) {
            ("b", "c") => Some(3),
            ("a", "b") => Some(2),
            ("x", "x") => Some(1),
            _ => None,
        };
        assert_eq!(merge_characters("abc", rank), ["a", "bc"]);
        assert_eq!(merge_characters("xxx", rank), ["xx", "x"]);
        assert_eq!(merge_characters("", rank), Vec::<&str>::new());
    }

    #[test]
    fn a_long_text_is_merged_in_parts() {
        let text = "ab cd".repeat(MAX_TEXT / 4);
        let joints = Joints::new(["ab", "cd"]);
        let priority = |left: &str, right: &str| {
            (left.len() + right.len() == 2 && left < right && left != " ").then_some(0)
        };
        let mut pieces = Vec::new();
        let visit = |piece: &str| {
            pieces.push(piece.to_owned());
            Ok(())
        };
        merge_text(&text, || &joints, priority, visit).unwrap();
        let whole = merge_characters(&text, priority);
        assert!(pieces == whole && whole.len() > MAX_TEXT / 2);
        let joints = Joints::new(["aa"]);
        let run = "a".repeat(MAX_TEXT + 1);
        assert!(merge_text(&run, || &joints, |_, _| None::<u8>, |_| Ok(())).is_err());
    }

    #[test]
    fn a_long_run_is_merged_in_moderate_time() {
        let text = "a".repeat(1 << 20);
        let pieces = merge_characters(&text, |l, r| (l.len() == r.len() && l.len() < 64).then_some(0));
        assert_eq!(pieces.len(), (1 << 20) / 64);
    }
}
