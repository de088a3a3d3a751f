//! What opening a container gives, before its tensors are checked against the configuration.

use std::collections::BTreeMap;

use super::config::Config;
use super::tensor::BaseTensor;
use crate::arch::Architecture;

/// A container whose tensors are in `F`.
pub(super) struct Opened<F> {
    pub(super) files: F,
    pub(super) architecture: &'static Architecture,
    /// The architecture by GGUF's name, or by the container's if it is not known.
    pub(super) architecture_name: String,
    pub(super) config: Config,
    /// By canonical name, or by the container's name if the architecture has none.
    pub(super) tensors: BTreeMap<String, BaseTensor>,
    /// The key of a setting that asks for arithmetic that is not known, and the problem.
    pub(super) uncomputed: Option<(String, String)>,
    /// What a user should know, one line each.
    pub(super) notes: Vec<String>,
}
