//! Cuts a text into words before byte-level BPE, as the pre-tokenizer that a GGUF file names asks for.
//!
//! The patterns are those of llama.cpp's `llama-vocab.cpp` (`tokenizer.ggml.pre`), each applied to the pieces that the
//! one before has left; matches and the gaps between them both become pieces. Two things are written differently, with
//! the same result and linear time: what looks ahead becomes a [`Rule`] (`\s+(?!\S)|\s+` is `\s+` with one character
//! given back before a word), and a look-ahead that narrows a class a class difference.

mod families;

use regex::Regex;

use super::TokenizerError;
use families::{DIGIT, FAMILIES, Family, GEMMA4, GPT2, Stage};

/// One step of a pre-tokenizer as the `tokenizers` library has it: its own where it has one, else a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// GPT-2's words, the pattern within the library's `ByteLevel`.
    Gpt2Words,
    /// Every digit on its own, the library's `Digits`.
    Digits,
    /// This pattern, in the dialect of both of the library's engines (Oniguruma and fancy-regex).
    Pattern(String),
}

/// What is done with the matches of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// Each is a word.
    Plain,
    /// A run of white space leaves its last character to the word behind it.
    Give,
    /// The same, but a run that ends in a line break is complete.
    GiveUnlessNewline,
    /// And what is not left to the word is cut into powers of two, of 512 characters at most.
    CascadeUnlessNewline,
    /// A run of digits is cut into thousands from the right; what is left over goes with the text before the run.
    Thousands,
    /// The same, but in a run that divides evenly the first three digits go with the text before.
    ThousandsGlued,
}

/// llama.cpp's categories are those of this version of Unicode; a later letter is no letter to it.
const UNICODE: &str = "15.1";

/// A pre-tokenizer, ready for use.
#[derive(Debug)]
pub(super) struct PreTokenizer {
    stages: Vec<(Regex, Stage)>,
    /// A word that is a token is taken whole, whatever the merges say.
    pub(super) ignore_merges: bool,
    /// A text begins with BOS unless the file says otherwise.
    pub(super) adds_bos: bool,
}

impl PreTokenizer {
    /// The pre-tokenizer that `tokenizer.ggml.pre` names.
    pub(super) fn named(name: &str) -> Result<Self, TokenizerError> {
        let unknown = || TokenizerError::UnknownPre {
            name: name.chars().take(40).collect(),
            known: FAMILIES.iter().map(|family| family.names.len()).sum(),
        };
        let family = FAMILIES.iter().find(|f| f.names.contains(&name)).ok_or_else(unknown)?;
        Self::of(family).ok_or_else(unknown)
    }

    /// Gemma 4's, which `tokenizer.ggml.model` names.
    pub(super) fn gemma4() -> Result<Self, TokenizerError> {
        Self::of(&GEMMA4).ok_or_else(|| TokenizerError::UnknownModel { name: "gemma4".into() })
    }

    fn of(family: &Family) -> Option<Self> {
        let compile = |&stage: &Stage| Some((Regex::new(&with_old_categories(stage.0)).ok()?, stage));
        let stages = family.stages.iter().map(compile).collect::<Option<_>>()?;
        Some(PreTokenizer { stages, ignore_merges: family.ignore_merges, adds_bos: family.adds_bos })
    }

    /// The stages in order, for a `tokenizer.json`.
    pub(super) fn cuts(&self) -> Vec<Cut> {
        let cut = |&(_, stage): &(Regex, Stage)| match stage {
            stage if stage == GPT2 => Cut::Gpt2Words,
            stage if stage == DIGIT => Cut::Digits,
            (pattern, rule) => Cut::Pattern(library_pattern(pattern, rule)),
        };
        self.stages.iter().map(cut).collect()
    }

    /// The words of `text` in order; joined they are the text again.
    pub(super) fn split<'a>(&self, text: &'a str) -> Vec<&'a str> {
        let mut pieces = vec![text];
        for (regex, (_, rule)) in &self.stages {
            let mut finer = Vec::with_capacity(pieces.len() * 2);
            for piece in pieces {
                cut(piece, regex, *rule, &mut finer);
            }
            pieces = finer;
        }
        pieces
    }
}

/// Every pre-tokenizer: a name, whether a word that is a token is taken whole, and the steps.
pub(crate) fn all() -> impl Iterator<Item = (&'static str, bool, Vec<Cut>)> {
    FAMILIES.iter().filter_map(|family| {
        let name = *family.names.first()?;
        Some((name, family.ignore_merges, PreTokenizer::of(family)?.cuts()))
    })
}

/// The pattern with its categories as llama.cpp's Unicode has them.
fn with_old_categories(pattern: &str) -> String {
    ["L", "M", "N", "P", "S"].iter().fold(pattern.to_owned(), |text, category| {
        let class = format!(r"\p{{{category}}}");
        text.replace(&class, &format!(r"[{class}&&\p{{age={UNICODE}}}]"))
    })
}

/// The pattern as the library's engines take it: with look-around, of which this crate has none.
fn library_pattern(pattern: &str, rule: Rule) -> String {
    match rule {
        Rule::Thousands => return r"(?=(?:[0-9]{3})+(?![0-9]))".into(),
        Rule::ThousandsGlued => return r"[^\p{N}]*\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))".into(),
        _ => {}
    }
    let pattern = without_differences(pattern);
    match (pattern.strip_suffix(r"|\s+"), rule) {
        (Some(before), Rule::Give | Rule::GiveUnlessNewline) => format!(r"{before}|\s+(?!\S)|\s+"),
        (Some(before), Rule::CascadeUnlessNewline) => {
            let runs: String = (2..=9).rev().map(|power| format!(r"|\s{{{}}}(?!\S)", 1 << power)).collect();
            format!(r"{before}{runs}|\s{{1,2}}(?!\S)|\s")
        }
        _ => pattern,
    }
}

/// The pattern with a look-ahead for each class difference, `[A--[B]]` or `[[A]--[B]]`: Oniguruma knows none.
fn without_differences(pattern: &str) -> String {
    let mut out = pattern.to_owned();
    while let Some((head, tail)) = out.split_once("--") {
        let open = head.rfind('[').unwrap_or(0);
        let (start, class) = match head.strip_suffix(']') {
            Some(_) => (open - 1, head[open..].to_owned()),
            None => (open, format!("{}]", &head[open..])),
        };
        let end = if tail.starts_with('[') { tail.find(']').map_or(tail.len(), |at| at + 1) } else { 2 };
        let (without, rest) = tail.split_at(end);
        out = format!("{}(?:(?!{without}){class}){}", &head[..start], rest.strip_prefix(']').unwrap_or(rest));
    }
    out
}

/// Appends the matches of `regex` in `piece`, and the gaps between them.
fn cut<'a>(piece: &'a str, regex: &Regex, rule: Rule, out: &mut Vec<&'a str>) {
    let (mut done, mut from) = (0, 0);
    let mut take = |done: &mut usize, until: usize| {
        if until > *done {
            out.push(&piece[*done..until]);
            *done = until;
        }
    };
    while let Some(found) = regex.find_at(piece, from).filter(|found| !found.is_empty()) {
        if matches!(rule, Rule::Thousands | Rule::ThousandsGlued) {
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
        if rule == Rule::CascadeUnlessNewline && is_blank(found.as_str()) {
            for at in powers_of_two(&found.as_str()[..kept]) {
                take(&mut done, found.start() + at);
            }
        }
        take(&mut done, found.start() + kept);
        from = done;
    }
    take(&mut done, piece.len());
}

/// How many bytes at the end of a match belong to the word behind it.
fn given_back(found: &str, rule: Rule) -> usize {
    let Some(last) = found.chars().next_back() else { return 0 };
    let complete = rule != Rule::Give && matches!(last, '\r' | '\n');
    // Only a run of white space can end in white space: no other case of the patterns does, but for line breaks.
    if rule == Rule::Plain || !last.is_whitespace() || complete || !found.starts_with(char::is_whitespace) {
        return 0;
    }
    if found.len() == last.len_utf8() { 0 } else { last.len_utf8() }
}

/// Whether a match is white space without a line break at its end.
fn is_blank(found: &str) -> bool {
    found.ends_with(char::is_whitespace) && !found.ends_with(['\r', '\n'])
}

/// Where a run of digits is cut, in bytes.
fn thousands(digits: &str, rule: Rule) -> impl Iterator<Item = usize> + '_ {
    let count = digits.chars().count();
    let ends = digits.char_indices().map(|(at, _)| at).chain([digits.len()]).enumerate();
    ends.filter(move |&(before, _)| {
        let edge = if rule == Rule::Thousands { count } else { 0 };
        (count - before).is_multiple_of(3) && before != edge
    })
    .map(|(_, at)| at)
}

/// Where a run of characters is cut so that each part is the longest power of two, of 512 at most; in bytes.
fn powers_of_two(run: &str) -> Vec<usize> {
    let ends: Vec<usize> = run.char_indices().skip(1).map(|(at, _)| at).chain([run.len()]).collect();
    let (mut cuts, mut done) = (Vec::new(), 0);
    while done < ends.len() {
        done += 1 << (ends.len() - done).ilog2().min(9);
        cuts.push(ends[done - 1]);
    }
    cuts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a pattern may be slow at, to be repeated.
    const HOSTILE: &[&str] = &[
        "a", "A", "aA", " ", "\t", "\n", " \n", "\r", "1", "!", "/", "'", "e\u{301}", "\u{301}", "東", "a ",
        "\u{a0}",
    ];

    fn words<'a>(pre: &str, text: &'a str) -> Vec<&'a str> {
        PreTokenizer::named(pre).unwrap().split(text)
    }

    #[test]
    fn every_pattern_compiles_and_loses_nothing() {
        let text = "I'll pay 12345\u{a0}€ —  don't\r\n\r\n  WAIT…\tnaïve 東京2024 ~~x~~\n";
        for name in FAMILIES.iter().flat_map(|f| f.names) {
            assert_eq!(words(name, text).concat(), text, "{name}");
            assert!(words(name, "").concat().is_empty());
        }
    }

    #[test]
    fn a_run_of_spaces_leaves_one_to_the_word() {
        assert_eq!(words("gpt-2", "a   b"), ["a", "  ", " b"]);
        assert_eq!(words("gpt-2", "a \n\nb  "), ["a", " \n", "\n", "b", "  "]);
        assert_eq!(words("llama3", "a \n\n  b"), ["a", " \n\n", " ", " b"]);
        assert_eq!(words("qwen2", "x!\n\ny"), ["x", "!\n\n", "y"]);
    }

    #[test]
    fn digits_are_cut_as_each_family_wants() {
        assert_eq!(words("gpt-2", " 1234"), [" 1234"]);
        assert_eq!(words("smollm", "x 1234"), ["x", " ", "1", "2", "3", "4"]);
        assert_eq!(words("llama-bpe", "1234"), ["123", "4"]);
        assert_eq!(words("qwen2", "12"), ["1", "2"]);
        assert_eq!(words("default", "1234567"), ["123", "456", "7"]);
    }

    #[test]
    fn thousands_are_counted_from_the_right() {
        // As llama.cpp has it: the first of them goes with the text before.
        assert_eq!(words("tiny_aya", "a1234567"), ["a", "1", "234", "567"]);
        assert_eq!(words("afmoe", "\n 123456"), ["\n", " ", "123", "456"]);
        assert_eq!(words("superbpe", "by 1234567 or 123"), ["by ", "1", "234", "567", " or ", "123"]);
        assert_eq!(words("superbpe", "٣1234"), ["٣1", "234"]);
    }

    #[test]
    fn long_runs_of_spaces_are_cut_into_powers_of_two() {
        let lengths = |text: &str| words("jais-2", text).iter().map(|word| word.len()).collect::<Vec<_>>();
        assert_eq!(lengths(&(" ".repeat(1000) + "x")), [512, 256, 128, 64, 32, 4, 2, 1, 2]);
        assert_eq!(lengths(&(" ".repeat(1000) + "1")), [512, 256, 128, 64, 32, 4, 2, 1, 1, 1]);
        assert_eq!(lengths(&" ".repeat(1000)), [512, 256, 128, 64, 32, 8]);
        assert_eq!(lengths("   \n  x"), [4, 1, 2]);
    }

    #[test]
    fn letters_later_than_llama_cpps_unicode_are_no_letters() {
        assert_eq!(words("gpt-2", "a\u{1c89}b"), ["a", "\u{1c89}", "b"]);
        assert_eq!(words("gpt-2", "a\u{2ebf0}b"), ["a\u{2ebf0}b"]);
    }

    #[test]
    fn class_differences_become_look_ahead() {
        assert_eq!(without_differences(r"a[\p{L}--[a-z]]*|b"), r"a(?:(?![a-z])[\p{L}])*|b");
        assert_eq!(without_differences(r"[[x-z\p{L}]--\s]+"), r"(?:(?!\s)[x-z\p{L}])+");
        assert_eq!(without_differences(r"\s+"), r"\s+");
    }

    #[test]
    fn a_hostile_megabyte_takes_no_time() {
        let mega = 1 << 20;
        let start = std::time::Instant::now();
        for name in FAMILIES.iter().map(|family| family.names[0]) {
            let pre = PreTokenizer::named(name).unwrap();
            for pattern in HOSTILE {
                let text = pattern.repeat(mega / pattern.len());
                let words = pre.split(&text);
                assert_eq!(words.iter().map(|word| word.len()).sum::<usize>(), text.len());
            }
        }
        // A quadratic pattern takes hours.
        assert!(start.elapsed().as_secs() < 300, "{:?}", start.elapsed());
    }

    #[test]
    fn capitals_and_contractions() {
        assert_eq!(words("tekken", "HelloWorld ABCdef"), ["Hello", "World", " ABCdef"]);
        assert_eq!(words("gpt-4o", "It'S"), ["It'S"]);
        assert_eq!(words("llama3", "It'S"), ["It", "'S"]);
        assert_eq!(words("gpt-2", "It's"), ["It", "'s"]);
    }

    #[test]
    fn an_unknown_name_is_an_error() {
        let error = PreTokenizer::named("kimi-k9").unwrap_err().to_string();
        assert!(error.contains("\"kimi-k9\""), "{error}");
    }
}
