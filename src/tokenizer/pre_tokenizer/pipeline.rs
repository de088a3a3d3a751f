//! A pre-tokenizer: the stages of one family, compiled.

use regex::Regex;

use super::families::{FAMILIES, Family, GEMMA4, Stage};
use super::library::LibraryStep;
use super::split::split;
use crate::tokenizer::error::TokenizerError;

/// The Unicode version of llama.cpp's categories. A letter added later is not a letter to llama.cpp.
const UNICODE: &str = "15.1";

/// A compiled pre-tokenizer.
#[derive(Debug)]
pub(in crate::tokenizer) struct PreTokenizer {
    stages: Vec<(Regex, Stage)>,
    /// Whether a word that is a token is taken whole, whatever the merges say.
    pub(in crate::tokenizer) ignore_merges: bool,
    /// Whether a text begins with BOS unless the file says otherwise.
    pub(in crate::tokenizer) adds_bos: bool,
}

impl PreTokenizer {
    /// The pre-tokenizer that `tokenizer.ggml.pre` names.
    ///
    /// # Errors
    /// If the name is unknown.
    pub(in crate::tokenizer) fn named(name: &str) -> Result<Self, TokenizerError> {
        let unknown = || TokenizerError::UnknownPreTokenizer {
            name: name.chars().take(40).collect(),
            known: FAMILIES.iter().map(|family| family.names.len()).sum(),
        };
        let family = FAMILIES.iter().find(|f| f.names.contains(&name)).ok_or_else(unknown)?;
        Self::of(family).ok_or_else(unknown)
    }

    /// Gemma 4's pre-tokenizer, which `tokenizer.ggml.model` names.
    ///
    /// # Errors
    /// If its pattern does not compile, which a test rules out.
    pub(in crate::tokenizer) fn gemma4() -> Result<Self, TokenizerError> {
        Self::of(&GEMMA4).ok_or_else(|| TokenizerError::UnknownModel { name: "gemma4".into() })
    }

    fn of(family: &Family) -> Option<Self> {
        let compile = |&stage: &Stage| Some((Regex::new(&with_old_categories(stage.0)).ok()?, stage));
        let stages = family.stages.iter().map(compile).collect::<Option<_>>()?;
        Some(PreTokenizer { stages, ignore_merges: family.ignore_merges, adds_bos: family.adds_bos })
    }

    /// The steps for a `tokenizer.json`, in order.
    pub(in crate::tokenizer) fn library_steps(&self) -> Vec<LibraryStep> {
        self.stages.iter().map(|&(_, stage)| LibraryStep::of(stage)).collect()
    }

    /// The words of `text` in order; joined they are the text.
    pub(in crate::tokenizer) fn split<'a>(&self, text: &'a str) -> Vec<&'a str> {
        let mut pieces = vec![text];
        for (regex, (_, rule)) in &self.stages {
            let mut finer = Vec::with_capacity(pieces.len() * 2);
            for piece in pieces {
                split(piece, regex, *rule, &mut finer);
            }
            pieces = finer;
        }
        pieces
    }
}

/// Every pre-tokenizer: its name, whether a word that is a token is taken whole, and its steps.
pub(crate) fn pre_tokenizers() -> impl Iterator<Item = (&'static str, bool, Vec<LibraryStep>)> {
    FAMILIES.iter().filter_map(|family| {
        let name = *family.names.first()?;
        Some((name, family.ignore_merges, PreTokenizer::of(family)?.library_steps()))
    })
}

/// The pattern with the categories of llama.cpp's Unicode version.
fn with_old_categories(pattern: &str) -> String {
    ["L", "M", "N", "P", "S"].iter().fold(pattern.to_owned(), |text, category| {
        let class = format!(r"\p{{{category}}}");
        text.replace(&class, &format!(r"[{class}&&\p{{age={UNICODE}}}]"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts that may be slow for a pattern when repeated.
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
        // As in llama.cpp: the first group stays with the text before.
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
    fn letters_newer_than_llama_cpps_unicode_are_not_letters() {
        assert_eq!(words("gpt-2", "a\u{1c89}b"), ["a", "\u{1c89}", "b"]);
        assert_eq!(words("gpt-2", "a\u{2ebf0}b"), ["a\u{2ebf0}b"]);
    }

    #[test]
    fn a_hostile_megabyte_takes_moderate_time() {
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
