//! Granite 4 without state spaces, as its folders are: the class can have them. GGUF calls it a Granite.

use super::granite_hybrid::GRANITE_HYBRID;
use super::groups::{ENDS, NORMS_BEFORE, PERMUTED, TARGETS};
use super::schema::*;

pub(super) const GRANITE4: Architecture = Architecture {
    models: "Granite 4 without state spaces (folders)",
    name: "granite",
    tensors: Tensors {
        groups: &[ENDS, NORMS_BEFORE, PERMUTED, GRANITE_HYBRID.tensors.groups[3]],
        targets: TARGETS,
        ..GRANITE_HYBRID.tensors
    },
    hugging_face: HuggingFace { chosen_by: Some(ChosenBy::OnlyAttention), ..GRANITE_HYBRID.hugging_face },
    ..GRANITE_HYBRID
};
