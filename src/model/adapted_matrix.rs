//! The matrices that have a term: their shapes, and which of them read the same input.

use super::block::Block;
use super::transformer::Transformer;
use crate::kernels::Real;

/// A matrix that has a term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdaptedMatrix {
    /// A number for its input, the same for matrices that read the same one, such as q, k and v of a block.
    pub input: usize,
    /// `[m, n]`.
    pub shape: (usize, usize),
}

impl<T: Real> Transformer<'_, T> {
    /// The matrices that have a term, in the order of the terms' slots.
    pub fn adapted_matrices(&self) -> Vec<AdaptedMatrix> {
        let inputs = self.blocks.iter().flat_map(Block::by_input);
        let mut found: Vec<(usize, AdaptedMatrix)> = Vec::new();
        for (input, linears) in inputs.enumerate() {
            for linear in linears {
                let shape = (linear.weight().rows(), linear.weight().cols());
                let slot = linear.term.as_ref().map(|term| term.first_slot());
                found.extend(slot.map(|slot| (slot, AdaptedMatrix { input, shape })));
            }
        }
        found.sort_unstable_by_key(|(slot, _)| *slot);
        found.into_iter().map(|(_, matrix)| matrix).collect()
    }
}
