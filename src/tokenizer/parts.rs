//! The parts of a GGUF file's tokenizer, for writing it in another form.

use super::pre_tokenizer::LibraryStep;
use super::vocabulary::Vocabulary;

/// A GGUF file's tokenizer in parts.
#[derive(Debug)]
pub(crate) struct TokenizerParts<'a> {
    /// The tokens.
    pub(crate) vocabulary: &'a Vocabulary,
    /// How ordinary text is encoded.
    pub(crate) algorithm: Algorithm<'a>,
    /// The special tokens that absorb the white space after them (`rstrip` in `tokenizer.json`).
    pub(super) right_stripping: RightStripping,
}

impl TokenizerParts<'_> {
    /// Whether this special token absorbs the white space after it.
    pub(crate) fn strips_right(&self, text: &str) -> bool {
        self.right_stripping.applies_to(text)
    }
}

/// How ordinary text is encoded.
#[derive(Debug)]
pub(crate) enum Algorithm<'a> {
    /// Byte-level byte-pair encoding.
    ByteLevel {
        /// The pre-tokenizer.
        pre_tokenizer: Vec<LibraryStep>,
        /// A word that is a token is taken whole.
        ignore_merges: bool,
        /// Lines `left right`, each once, in the order of their ranks.
        merges: Vec<&'a str>,
    },
    /// Byte-pair encoding of characters, with bytes for those that no token spells, as in Gemma 4.
    Characters {
        /// The pre-tokenizer.
        pre_tokenizer: Vec<LibraryStep>,
        /// Lines `left right`, each once, in the order of their ranks.
        merges: Vec<&'a str>,
    },
    /// SentencePiece's byte-pair encoding, by the scores of the vocabulary.
    SentencePiece {
        /// A space is added before a text at the start and after special tokens.
        add_space_prefix: bool,
        /// Stands for what the vocabulary cannot spell.
        unknown: Option<u32>,
    },
}

/// Which special tokens absorb the white space after them. Phi-3 is trained so; GGUF has no key for it, and
/// llama.cpp recognizes the model by its name.
#[derive(Clone, Copy, Debug)]
pub(super) struct RightStripping {
    is_phi3: bool,
}

impl RightStripping {
    /// That of the model with this `general.name`.
    pub(super) fn of_model(name: &str) -> Self {
        let name = name.to_lowercase();
        RightStripping { is_phi3: name.contains("phi-3") || name.contains("phi3") }
    }

    /// Whether the special token with this text absorbs the white space after it.
    pub(super) fn applies_to(self, text: &str) -> bool {
        self.is_phi3 && !["<unk>", "<s>", "<|endoftext|>"].contains(&text)
    }
}
