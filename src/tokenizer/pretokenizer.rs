//! Cuts a text into words before byte-level BPE, as the pre-tokenizer that a GGUF file names asks for.
//!
//! The patterns are those of llama.cpp's `llama-vocab.cpp` (`tokenizer.ggml.pre`), each applied to the pieces that the
//! one before has left; matches and the gaps between them both become pieces. Two things are written differently, with
//! the same result and linear time: `\s+(?!\S)|\s+` becomes `\s+` with one character given back before a word
//! ([`Spaces`]), and a look-ahead that narrows a class becomes a class difference.

use regex::Regex;

use super::TokenizerError;

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

/// What is to be done about white space in front of a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spaces {
    /// Nothing: the pattern has no such case.
    Plain,
    /// A run of white space leaves its last character to the word behind it.
    Give,
    /// The same, but a run that ends in a line break is complete.
    GiveUnlessNewline,
}

/// Letters but for ASCII's small ones, as TEKKEN and GPT4O write them.
const LETTER_NOT_LOWER: &str = r"[\p{L}--[a-z]]";
/// And but for ASCII's capitals.
const LETTER_NOT_UPPER: &str = r"[\p{L}--[A-Z]]";
/// East Asian characters but for white space, as deepseek-coder's stage writes them.
const EAST_ASIAN: &str = r"[[\u{0800}-\u{9FA5}\u{AC00}-\u{D7FF}]--\s]";

/// One pattern and its rule for white space.
type Stage = (&'static str, Spaces);

const GPT2: Stage = (r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+", Spaces::Give);
const DIGIT: Stage = (r"\p{N}", Spaces::Plain);
const THREE_DIGITS: Stage = (r"[0-9][0-9][0-9]", Spaces::Plain);
const LLAMA3: Stage = (
    concat!(
        r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
    ),
    Spaces::GiveUnlessNewline,
);
const QWEN2: Stage = (
    concat!(
        r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
    ),
    Spaces::GiveUnlessNewline,
);
const QWEN35: Stage = (
    concat!(
        r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}",
        r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
    ),
    Spaces::GiveUnlessNewline,
);
const TEKKEN: Stage = (
    concat!(
        r"[^\r\n\p{L}\p{N}]?[\p{L}--[a-z]]*[\p{L}--[A-Z]]+|[^\r\n\p{L}\p{N}]?[\p{L}--[a-z]]+[\p{L}--[A-Z]]*",
        r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+"
    ),
    Spaces::GiveUnlessNewline,
);
const GPT4O: Stage = (
    concat!(
        r"[^\r\n\p{L}\p{N}]?[\p{L}--[a-z]]*[\p{L}--[A-Z]]+",
        r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?",
        r"|[^\r\n\p{L}\p{N}]?[\p{L}--[a-z]]+[\p{L}--[A-Z]]*",
        r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?",
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+"
    ),
    Spaces::GiveUnlessNewline,
);
const BAILING: Stage = (
    concat!(
        r"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+"
    ),
    Spaces::GiveUnlessNewline,
);
const SEED: Stage = (
    concat!(
        r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
        r"| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+"
    ),
    Spaces::GiveUnlessNewline,
);
const BLOOM: Stage = (r" ?[^(\s|.,!?…。，、।۔،)]+", Spaces::Plain);

/// One family of pre-tokenizers.
struct Family {
    /// The values of `tokenizer.ggml.pre` that mean it.
    names: &'static [&'static str],
    stages: &'static [Stage],
    /// A word that is a token is taken whole, whatever the merges say.
    ignore_merges: bool,
    /// A text begins with BOS unless the file says otherwise.
    adds_bos: bool,
}

const fn family(names: &'static [&'static str], stages: &'static [Stage]) -> Family {
    Family { names, stages, ignore_merges: false, adds_bos: false }
}

const fn whole_words(names: &'static [&'static str], stages: &'static [Stage]) -> Family {
    Family { names, stages, ignore_merges: true, adds_bos: true }
}

const FAMILIES: &[Family] = &[
    family(
        &[
            "gpt-2",
            "phi-2",
            "mpt",
            "olmo",
            "jais",
            "trillion",
            "granite-docling",
            "exaone4",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "modern-bert",
        ],
        &[GPT2],
    ),
    family(
        &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"],
        &[DIGIT, GPT2],
    ),
    whole_words(
        &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"],
        &[LLAMA3],
    ),
    family(&["dbrx", "smaug-bpe", "chatglm-bpe", "glm4"], &[LLAMA3]),
    family(
        &["qwen2", "deepseek-r1-qwen", "kormo", "megrez", "stablelm2", "hunyuan", "solar-open", "grok-2"],
        &[QWEN2],
    ),
    family(&["qwen35"], &[QWEN35]),
    whole_words(&["tekken"], &[TEKKEN]),
    family(&["gpt-4o", "llama4", "kanana2", "minimax-m2"], &[GPT4O]),
    family(&["bailingmoe", "bailingmoe2", "llada-moe"], &[BAILING]),
    family(&["seed-coder"], &[SEED]),
    family(
        &["deepseek-coder"],
        &[
            (r"[\r\n]", Spaces::Plain),
            (r"\s?\p{L}+", Spaces::Plain),
            (r"\s?\p{P}+", Spaces::Plain),
            // llama.cpp turns white space into a tab before a pattern without categories sees it.
            (r"[[\u{0800}-\u{9FA5}\u{AC00}-\u{D7FF}]--\s]+", Spaces::Plain),
            DIGIT,
        ],
    ),
    family(&["falcon"], &[(r"[\p{P}$+<=>^~|`]+", Spaces::Plain), GPT2, THREE_DIGITS]),
    family(
        &["default"],
        &[(r"[\p{P}$+<=>^~|]+", Spaces::Plain), GPT2, (r"\p{N}+", Spaces::Plain), THREE_DIGITS],
    ),
    family(&["bloom", "poro-chat", "gpt3-finnish"], &[BLOOM]),
    family(&["viking"], &[BLOOM, DIGIT]),
];

/// A pre-tokenizer, ready for use.
#[derive(Debug)]
pub(super) struct PreTokenizer {
    stages: Vec<(Regex, Spaces)>,
    /// A word that is a token is taken whole, whatever the merges say.
    pub(super) ignore_merges: bool,
    /// A text begins with BOS unless the file says otherwise.
    pub(super) adds_bos: bool,
}

impl PreTokenizer {
    /// The pre-tokenizer that `tokenizer.ggml.pre` names.
    pub(super) fn named(name: &str) -> Result<Self, TokenizerError> {
        let unknown = || {
            let mut known: Vec<&str> = FAMILIES.iter().flat_map(|f| f.names.iter().copied()).collect();
            known.sort_unstable();
            TokenizerError::UnknownPre { name: name.chars().take(40).collect(), known: known.join(", ") }
        };
        let family = FAMILIES.iter().find(|f| f.names.contains(&name)).ok_or_else(unknown)?;
        let compile = |&(pattern, spaces): &Stage| Regex::new(pattern).map(|regex| (regex, spaces));
        let stages = family.stages.iter().map(compile).collect::<Result<_, _>>().map_err(|_| unknown())?;
        Ok(PreTokenizer { stages, ignore_merges: family.ignore_merges, adds_bos: family.adds_bos })
    }

    /// The stages in order, for a `tokenizer.json`.
    pub(super) fn cuts(&self) -> Vec<Cut> {
        let cut = |(regex, spaces): &(Regex, Spaces)| match (regex.as_str(), *spaces) {
            stage if stage == GPT2 => Cut::Gpt2Words,
            stage if stage == DIGIT => Cut::Digits,
            (pattern, spaces) => Cut::Pattern(library_pattern(pattern, spaces)),
        };
        self.stages.iter().map(cut).collect()
    }

    /// The words of `text` in order; joined they are the text again.
    pub(super) fn split<'a>(&self, text: &'a str) -> Vec<&'a str> {
        let mut pieces = vec![text];
        for (regex, spaces) in &self.stages {
            let mut finer = Vec::with_capacity(pieces.len() * 2);
            for piece in pieces {
                cut(piece, regex, *spaces, &mut finer);
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
        Some((name, family.ignore_merges, PreTokenizer::named(name).ok()?.cuts()))
    })
}

/// The pattern with look-around where this crate has none: Oniguruma knows no class differences.
fn library_pattern(pattern: &str, spaces: Spaces) -> String {
    const DIFFERENCES: [(&str, &str); 3] = [
        (LETTER_NOT_LOWER, r"(?:(?![a-z])\p{L})"),
        (LETTER_NOT_UPPER, r"(?:(?![A-Z])\p{L})"),
        (EAST_ASIAN, "(?:(?!\\s)[\u{0800}-\u{9FA5}\u{AC00}-\u{D7FF}])"),
    ];
    let plain =
        DIFFERENCES.iter().fold(pattern.to_owned(), |text, (class, group)| text.replace(class, group));
    match plain.strip_suffix(r"|\s+") {
        Some(before) if spaces != Spaces::Plain => format!(r"{before}|\s+(?!\S)|\s+"),
        _ => plain,
    }
}

/// Appends the matches of `regex` in `piece`, and the gaps between them.
fn cut<'a>(piece: &'a str, regex: &Regex, spaces: Spaces, out: &mut Vec<&'a str>) {
    let mut done = 0;
    while let Some(found) = regex.find_at(piece, done) {
        let (start, mut end) = (found.start(), found.end());
        if end == start {
            break;
        }
        if spaces != Spaces::Plain && end < piece.len() {
            end -= given_back(found.as_str(), spaces);
        }
        if start > done {
            out.push(&piece[done..start]);
        }
        out.push(&piece[start..end]);
        done = end;
    }
    if done < piece.len() {
        out.push(&piece[done..]);
    }
}

/// How many bytes at the end of a match belong to the word behind it.
fn given_back(found: &str, spaces: Spaces) -> usize {
    let Some(last) = found.chars().next_back() else { return 0 };
    let complete = spaces == Spaces::GiveUnlessNewline && matches!(last, '\r' | '\n');
    // Only a run of white space can end in white space: no other case of the patterns does, but for line breaks.
    if !last.is_whitespace() || complete || !found.starts_with(char::is_whitespace) {
        return 0;
    }
    if found.len() == last.len_utf8() { 0 } else { last.len_utf8() }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn capitals_and_contractions() {
        assert_eq!(words("tekken", "HelloWorld ABCdef"), ["Hello", "World", " ABCdef"]);
        assert_eq!(words("gpt-4o", "It'S"), ["It'S"]);
        assert_eq!(words("llama3", "It'S"), ["It", "'S"]);
        assert_eq!(words("gpt-2", "It's"), ["It", "'s"]);
    }

    #[test]
    fn an_unknown_name_lists_the_known() {
        let error = PreTokenizer::named("kimi-k2").unwrap_err().to_string();
        assert!(error.contains("kimi-k2") && error.contains("smollm"), "{error}");
    }
}
