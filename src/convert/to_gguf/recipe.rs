//! What is particular to an architecture when its folders are converted: data, not code.
//!
//! Tensor names and row orders are in [`crate::arch`]; here is what llama.cpp's converter has a class for. To add an
//! architecture, add a table.

use super::vocabulary::Source;
use crate::arch::Architecture;

/// How the folders of one architecture become GGUF files.
#[derive(Debug)]
pub(super) struct Recipe {
    /// `general.architecture`.
    pub(super) architecture: &'static str,
    /// Where the vocabulary may be, the first that the folder has counts.
    pub(super) vocabularies: &'static [Source],
    /// When `tokenizer.ggml.add_space_prefix` is set.
    pub(super) space_prefix: SpacePrefix,
    /// What is set for vocabularies of one size, by which the converter knows some models.
    pub(super) by_vocabulary_size: &'static [(usize, Extra)],
    /// The keys of the dimensions.
    pub(super) keys: &'static [Key],
    /// How a stretching of the rotary frequencies is told.
    pub(super) stretching: &'static [Stretching],
    /// Stored experts come in this order of their canonical names after `blk.N.`.
    pub(super) experts: &'static [&'static str],
    /// An output head in the folder is left out: llama.cpp always takes the embedding.
    pub(super) no_head: bool,
    /// Beginnings of the names of tensors that see or project what was seen, which are left out.
    pub(super) left_out: &'static [&'static str],
}

/// When `tokenizer.ggml.add_space_prefix` is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SpacePrefix {
    /// Never.
    Unsaid,
    /// First, to what tokenizer_config.json says, if it does.
    AsTheFolder,
    /// Last, to false, where the vocabulary is tokenizer.model's.
    No,
}

/// Keys of one model of an architecture.
#[derive(Clone, Copy, Debug)]
pub(super) enum Extra {
    /// `add_bos_token` is false, whatever the folder says.
    NoBos,
    /// Another end of a turn.
    EndOfTurn(u32),
}

/// How a stretching of the rotary frequencies can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stretching {
    /// All by the same number: two keys.
    Linear,
    /// Llama 3's: a tensor, `rope_freqs.weight`.
    Llama3,
    /// Two sets of factors: tensors, and a key for the amplitude.
    Long,
}

/// A key, or a few that belong together, under the architecture's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Blocks,
    Context,
    /// The context before rotary frequencies are stretched.
    OriginalContext,
    Width,
    FeedForward,
    Heads,
    /// Of keys and of values.
    HeadsOfKeys,
    /// Type and factor of a linear stretching.
    LinearScaling,
    RopeBase,
    /// The base of blocks with a window.
    LocalRopeBase,
    RmsEpsilon,
    LayerEpsilon,
    /// How many experts there are, and are used.
    Experts,
    ExpertFeedForward,
    /// Of keys and of values.
    HeadLengths,
    /// [`Self::HeadLengths`] where config.json says it, not where it follows from the rest.
    GivenHeadLengths,
    /// `general.file_type`.
    FileType,
    Vocabulary,
    /// Leading entries of a head that are rotated.
    RopeDimensions,
    AttentionCap,
    LogitCap,
    /// [`Self::LogitCap`] where there is one.
    GivenLogitCap,
    Window,
    /// [`Self::Window`], 0 where there is none.
    WindowOrNone,
    /// Attention's, embeddings', residual and logits' scales.
    Scales,
}

use Key::*;

/// The order of most of the converter's classes.
const USUAL: &[Key] = &[
    Blocks,
    Context,
    Width,
    FeedForward,
    Heads,
    HeadsOfKeys,
    LinearScaling,
    RopeBase,
    RmsEpsilon,
    GivenHeadLengths,
    FileType,
];

const BYTE_LEVEL: Recipe = Recipe {
    architecture: "",
    vocabularies: &[Source::ByteLevel],
    space_prefix: SpacePrefix::Unsaid,
    by_vocabulary_size: &[],
    keys: USUAL,
    stretching: &[Stretching::Linear],
    experts: &[],
    no_head: false,
    left_out: &[],
};

const LLAMA: Recipe = Recipe {
    architecture: "llama",
    vocabularies: &[Source::SentencePiece, Source::SentencePieceJson, Source::ByteLevel],
    space_prefix: SpacePrefix::AsTheFolder,
    // Granite's first small models, and CodeLlama.
    by_vocabulary_size: &[(32016, Extra::EndOfTurn(32010)), (49152, Extra::NoBos)],
    keys: &[
        Blocks,
        Context,
        Width,
        FeedForward,
        Heads,
        HeadsOfKeys,
        LinearScaling,
        RopeBase,
        RmsEpsilon,
        HeadLengths,
        FileType,
        Vocabulary,
        RopeDimensions,
    ],
    stretching: &[Stretching::Linear, Stretching::Llama3],
    ..BYTE_LEVEL
};

const GEMMA2: Recipe = Recipe {
    architecture: "gemma2",
    vocabularies: &[Source::SentencePiece],
    space_prefix: SpacePrefix::No,
    keys: &[
        Context,
        Width,
        Blocks,
        FeedForward,
        Heads,
        HeadsOfKeys,
        RmsEpsilon,
        HeadLengths,
        FileType,
        AttentionCap,
        LogitCap,
        Window,
    ],
    stretching: &[],
    no_head: true,
    ..BYTE_LEVEL
};

const RECIPES: &[Recipe] = &[
    LLAMA,
    // Mixtral.
    Recipe {
        keys: &[
            Blocks,
            Context,
            Width,
            FeedForward,
            Heads,
            HeadsOfKeys,
            LinearScaling,
            RopeBase,
            RmsEpsilon,
            Experts,
            GivenHeadLengths,
            FileType,
            Vocabulary,
            RopeDimensions,
        ],
        experts: &["ffn_gate_exps", "ffn_down_exps", "ffn_up_exps"],
        ..LLAMA
    },
    Recipe { architecture: "qwen2", vocabularies: &[Source::SentencePiece, Source::ByteLevel], ..BYTE_LEVEL },
    Recipe {
        architecture: "qwen3",
        vocabularies: &[Source::SentencePiece, Source::ByteLevel],
        keys: &[
            Blocks,
            Context,
            Width,
            FeedForward,
            Heads,
            HeadsOfKeys,
            LinearScaling,
            RopeBase,
            RmsEpsilon,
            HeadLengths,
            FileType,
        ],
        ..BYTE_LEVEL
    },
    Recipe {
        architecture: "qwen3moe",
        keys: &[
            Blocks,
            Context,
            Width,
            FeedForward,
            Heads,
            HeadsOfKeys,
            LinearScaling,
            RopeBase,
            RmsEpsilon,
            Experts,
            GivenHeadLengths,
            FileType,
            ExpertFeedForward,
        ],
        experts: &["ffn_down_exps", "ffn_gate_exps", "ffn_up_exps"],
        ..BYTE_LEVEL
    },
    GEMMA2,
    Recipe {
        architecture: "gemma3",
        vocabularies: &[Source::SentencePiece, Source::ByteLevel],
        keys: &[
            Blocks,
            Context,
            Width,
            FeedForward,
            Heads,
            HeadsOfKeys,
            LinearScaling,
            RopeBase,
            LocalRopeBase,
            RmsEpsilon,
            HeadLengths,
            FileType,
            GivenLogitCap,
            Window,
        ],
        stretching: &[Stretching::Linear],
        no_head: false,
        left_out: &[
            "vision_tower.",
            "model.vision_tower.",
            "multi_modal_projector.",
            "model.multi_modal_projector.",
        ],
        ..GEMMA2
    },
    Recipe {
        architecture: "phi3",
        vocabularies: &[Source::Phi3, Source::ByteLevel],
        keys: &[
            Context,
            OriginalContext,
            Width,
            FeedForward,
            Blocks,
            Heads,
            HeadsOfKeys,
            RmsEpsilon,
            RopeDimensions,
            RopeBase,
            FileType,
            WindowOrNone,
        ],
        stretching: &[Stretching::Long],
        ..BYTE_LEVEL
    },
    Recipe {
        architecture: "gpt2",
        keys: &[Blocks, Context, Width, FeedForward, Heads, LayerEpsilon, FileType],
        stretching: &[],
        ..BYTE_LEVEL
    },
    Recipe { architecture: "olmo2", ..BYTE_LEVEL },
    Recipe {
        architecture: "granite",
        keys: &[
            Blocks,
            Context,
            Width,
            FeedForward,
            Heads,
            HeadsOfKeys,
            LinearScaling,
            RopeBase,
            RmsEpsilon,
            FileType,
            Vocabulary,
            RopeDimensions,
            Scales,
        ],
        ..LLAMA
    },
];

/// The recipe of an architecture.
pub(super) fn of(architecture: &'static Architecture) -> Option<&'static Recipe> {
    let experts = architecture.has_experts();
    RECIPES.iter().find(|r| r.architecture == architecture.gguf && r.experts.is_empty() != experts)
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_architecture_has_a_recipe() {
        for architecture in crate::arch::ALL {
            assert!(super::of(architecture).is_some(), "{}", architecture.gguf);
        }
    }
}
