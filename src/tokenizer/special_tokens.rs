//! The special tokens with a role around a text.

use std::collections::BTreeSet;

/// The tokens that begin and end a text, and whether the model's settings add them.
#[derive(Debug)]
pub(super) struct SpecialTokens {
    /// Begins a text.
    pub(super) bos: Option<u32>,
    /// Ends a text.
    pub(super) eos: Option<u32>,
    /// Whether the settings ask for BOS before a text.
    pub(super) add_bos: bool,
    /// Whether the settings ask for EOS after a text.
    pub(super) add_eos: bool,
    /// The tokens at which generation stops: EOS, and every other end of a turn or text.
    pub(super) end_of_generation: BTreeSet<u32>,
}

impl SpecialTokens {
    /// BOS, if the settings add it.
    pub(super) fn added_bos(&self) -> Option<u32> {
        self.bos.filter(|_| self.add_bos)
    }

    /// EOS, if the settings add it.
    pub(super) fn added_eos(&self) -> Option<u32> {
        self.eos.filter(|_| self.add_eos)
    }

    /// `ids` with BOS and EOS around them, each if the settings add it.
    pub(super) fn around(&self, mut ids: Vec<u32>) -> Vec<u32> {
        if let Some(bos) = self.added_bos() {
            ids.insert(0, bos);
        }
        ids.extend(self.added_eos());
        ids
    }

    /// `ids` with BOS before them if the settings add it and they do not begin with it.
    pub(super) fn after_bos(&self, mut ids: Vec<u32>) -> Vec<u32> {
        if let Some(bos) = self.added_bos().filter(|bos| ids.first() != Some(bos)) {
            ids.insert(0, bos);
        }
        ids
    }
}
