//! A model that answers, with what it has computed of the conversation.

use crate::model::{Sampler, Sequence, Transformer};

/// A model, and its own state.
#[derive(Debug)]
pub(super) struct Voice<'a> {
    pub(super) model: Transformer<'a, f32>,
    /// What it has computed: only what differs is computed again.
    pub(super) sequence: Sequence<f32>,
    pub(super) sampler: Sampler,
}

impl<'a> Voice<'a> {
    pub(super) fn new(model: Transformer<'a, f32>, sampler: Sampler) -> Self {
        Self { sequence: Sequence::new(&model), model, sampler }
    }
}
