//! What a pre-tokenizer does with the matches of a pattern.

use regex::Regex;

/// How a match is split further, and what it leaves to the next word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SplitRule {
    /// Each match is a word.
    Whole,
    /// A run of white space gives its last character back to the next word.
    GiveBack,
    /// The same, except for a run that ends in a line break.
    GiveBackUnlessNewline,
    /// The same, and the rest of the run is split into powers of two, of at most 512 characters.
    GiveBackAndSplitPowersOfTwo,
    /// A run of digits is split into groups of three from the right. The remaining digits stay with the text
    /// before the run.
    Thousands,
    /// The same, but if nothing remains, the first three digits stay with the text before.
    ThousandsWithFirst,
}

/// Appends the matches of `regex` in `piece`, split by `rule`, and the gaps between them.
pub(super) fn split<'a>(piece: &'a str, regex: &Regex, rule: SplitRule, out: &mut Vec<&'a str>) {
    let (mut done, mut from) = (0, 0);
    let mut take = |done: &mut usize, until: usize| {
        if until > *done {
            out.push(&piece[*done..until]);
            *done = until;
        }
    };
    while let Some(found) = regex.find_at(piece, from).filter(|found| !found.is_empty()) {
        if matches!(rule, SplitRule::Thousands | SplitRule::ThousandsWithFirst) {
            for at in thousands(found.as_str(), rule) {
                take(&mut done, found.start() + at);
            }
            from = found.end();
            continue;
        }
        take(&mut done, found.start());
        let kept = match found.end() < piece.len() {
            true => found.len() - given_back(found.as_str(), rule),
            false => found.len(),
        };
        if rule == SplitRule::GiveBackAndSplitPowersOfTwo && is_blank(found.as_str()) {
            for at in powers_of_two(&found.as_str()[..kept]) {
                take(&mut done, found.start() + at);
            }
        }
        take(&mut done, found.start() + kept);
        from = done;
    }
    take(&mut done, piece.len());
}

/// How many bytes at the end of a match belong to the next word.
fn given_back(found: &str, rule: SplitRule) -> usize {
    let Some(last) = found.chars().next_back() else { return 0 };
    let complete = rule != SplitRule::GiveBack && matches!(last, '\r' | '\n');
    // Only a run of white space can end in white space: no other case of the patterns does, except for line
    // breaks.
    if rule == SplitRule::Whole
        || !last.is_whitespace()
        || complete
        || !found.starts_with(char::is_whitespace)
    {
        return 0;
    }
    if found.len() == last.len_utf8() { 0 } else { last.len_utf8() }
}

/// Whether a match is white space without a line break at its end.
fn is_blank(found: &str) -> bool {
    found.ends_with(char::is_whitespace) && !found.ends_with(['\r', '\n'])
}

/// The byte offsets at which a run of digits is split.
fn thousands(digits: &str, rule: SplitRule) -> impl Iterator<Item = usize> + '_ {
    let count = digits.chars().count();
    let ends = digits.char_indices().map(|(at, _)| at).chain([digits.len()]).enumerate();
    ends.filter(move |&(before, _)| {
        let edge = if rule == SplitRule::Thousands { count } else { 0 };
        (count - before).is_multiple_of(3) && before != edge
    })
    .map(|(_, at)| at)
}

/// The byte offsets that split a run of characters so that each part is the longest possible power of two, at
/// most 512.
fn powers_of_two(run: &str) -> Vec<usize> {
    let ends: Vec<usize> = run.char_indices().skip(1).map(|(at, _)| at).chain([run.len()]).collect();
    let (mut cuts, mut done) = (Vec::new(), 0);
    while done < ends.len() {
        done += 1 << (ends.len() - done).ilog2().min(9);
        cuts.push(ends[done - 1]);
    }
    cuts
}
