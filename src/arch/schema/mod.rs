//! The types that the description of a model family is made of.

mod architecture;
mod converter;
mod forward;
mod gguf;
mod hugging_face;
mod joined_experts;
mod joined_rows;
mod onnx;
mod tensors;

pub use architecture::Architecture;
pub use converter::{Converter, Key, RopeType, SpacePrefix, TokenizerOverride, VocabularySource};
pub use forward::{Activation, Forward, Gating, NormKind, Positions, Unrotated};
pub use gguf::{Gguf, SharedExpertWidth, WindowScaling, Windows};
pub use hugging_face::{ActivationKey, ChosenBy, ClassOption, HeadKeys, HuggingFace, WindowedLayers};
pub use joined_experts::{JoinedExperts, JoinedKind};
pub use joined_rows::JoinedRows;
pub use onnx::Onnx;
pub use tensors::{
    BlockKind, BlockNorms, Blocks, Endings, HeadKind, MixerKind, Presence, RowGroups, Size, TensorNames,
    Tensors,
};
