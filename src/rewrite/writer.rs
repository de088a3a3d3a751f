//! The files of an output, one after another, while their new tensors are computed.

use std::collections::BTreeMap;
use std::ops::Range;

use curmerge_formats::output::{OutputFile, Piece, Pieces, Queue, write_behind};

use super::tensors::{ComputedTensor, ComputedTensors};
use crate::Result;

/// What a caller is told while a model is written.
pub struct Hooks<'h, T: ComputedTensor> {
    /// Called once, before the first tensor is computed and while unchanged bytes are already being copied.
    /// An error ends the writing.
    pub confirm: Option<&'h dyn Fn() -> Result<()>>,
    /// Called after each tensor, with what computing it returned, in the order of the files.
    pub done: &'h mut dyn FnMut(&T, T::Outcome),
}

/// Writes the files of an output. A tensor is computed for the first file that holds one of its parts; parts
/// that belong to later files wait in memory.
pub struct Writer<'w, 'h, T: ComputedTensor> {
    /// Tensors still to be computed, with the indices of their parts.
    pending: Vec<(&'w T, Range<usize>)>,
    /// Computed parts of files to come, by index.
    waiting: BTreeMap<usize, Vec<u8>>,
    hooks: Hooks<'h, T>,
}

impl<'w, 'h, T: ComputedTensor> Writer<'w, 'h, T> {
    /// A writer of an output that these tensors belong to.
    pub fn new(tensors: &'w ComputedTensors<'_, T>, hooks: Hooks<'h, T>) -> Self {
        Self { pending: tensors.iter().collect(), waiting: BTreeMap::new(), hooks }
    }

    /// Writes the pieces of one file, which is still to be committed.
    ///
    /// # Errors
    /// Those of the hooks, of the tensors, and of writing.
    pub fn write(&mut self, pieces: &Pieces<'_>, file: &OutputFile) -> Result<()> {
        let offsets: BTreeMap<usize, u64> = pieces
            .placed()
            .filter_map(|(offset, piece)| match piece {
                Piece::Computed { index, .. } => Some((*index, offset)),
                _ => None,
            })
            .collect();
        write_behind(file, pieces, |queue| {
            if let Some(confirm) = self.hooks.confirm.take() {
                confirm()?;
            }
            for (index, offset) in &offsets {
                if let Some(bytes) = self.waiting.remove(index) {
                    queue.write_at(*offset, bytes)?;
                }
            }
            let first = |parts: &Range<usize>| parts.clone().filter_map(|index| offsets.get(&index)).min();
            let pending = std::mem::take(&mut self.pending);
            let (mut here, later): (Vec<_>, Vec<_>) =
                pending.into_iter().partition(|(_, parts)| first(parts).is_some());
            self.pending = later;
            // In the order in which they lie in the file.
            here.sort_by_key(|(_, parts)| first(parts));
            for (tensor, parts) in here {
                let outcome = self.compute(tensor, &parts, &offsets, queue)?;
                (self.hooks.done)(tensor, outcome);
            }
            Ok(())
        })
    }

    /// Computes a tensor and queues its parts, but for those of other files.
    fn compute(
        &mut self,
        tensor: &T,
        parts: &Range<usize>,
        offsets: &BTreeMap<usize, u64>,
        queue: &Queue<'_>,
    ) -> Result<T::Outcome> {
        let mut written = vec![0u64; parts.len()];
        tensor.compute(&mut |part, bytes| {
            let index = parts.start + part;
            match offsets.get(&index) {
                Some(offset) => {
                    let at = offset + written[part];
                    written[part] += bytes.len() as u64;
                    Ok(queue.write_at(at, bytes)?)
                }
                None => {
                    self.waiting.entry(index).or_default().extend(bytes);
                    Ok(())
                }
            }
        })
    }
}
