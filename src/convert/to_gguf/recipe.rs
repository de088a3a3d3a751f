//! What is particular to an architecture when its folders are converted: data, not code.
//!
//! Tensor names and row orders are in [`crate::arch`]; here is what llama.cpp's converter has a class for. To add an
//! architecture, add a table.

use super::vocabulary::Source;

/// How the folders of one architecture become GGUF files.
#[derive(Debug)]
pub(super) struct Recipe {
    /// `general.architecture`.
    pub(super) architecture: &'static str,
    /// Where the vocabulary may be, the first that the folder has counts.
    pub(super) vocabularies: &'static [Source],
    /// `tokenizer.ggml.add_space_prefix` says what tokenizer_config.json says.
    pub(super) tells_space_prefix: bool,
    /// What is set for vocabularies of one size, by which the converter knows some models.
    pub(super) by_vocabulary_size: &'static [(usize, Extra)],
    /// Llama 3's stretching of rotary frequencies is a tensor, `rope_freqs.weight`.
    pub(super) rope_tensor: bool,
}

/// Keys of one model of an architecture.
#[derive(Clone, Copy, Debug)]
pub(super) enum Extra {
    /// `add_bos_token` is false, whatever the folder says.
    NoBos,
    /// Another end of a turn.
    EndOfTurn(u32),
}

const RECIPES: &[Recipe] = &[Recipe {
    architecture: "llama",
    vocabularies: &[Source::SentencePiece, Source::SentencePieceJson, Source::ByteLevel],
    tells_space_prefix: true,
    // Granite's first small models, and CodeLlama.
    by_vocabulary_size: &[(32016, Extra::EndOfTurn(32010)), (49152, Extra::NoBos)],
    rope_tensor: true,
}];

/// The recipe of an architecture, by GGUF's name.
pub(super) fn of(architecture: &str) -> Option<&'static Recipe> {
    RECIPES.iter().find(|recipe| recipe.architecture == architecture)
}
