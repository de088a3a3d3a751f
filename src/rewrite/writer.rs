//! The files of an output, one after another, while their new tensors are computed.

use std::collections::BTreeMap;
use std::ops::Range;

use curmerge_formats::output::{OutputFile, Piece, Pieces, Queue, write_behind};

use super::tensors::{ComputedTensor, ComputedTensors};
use crate::Result;

/// Callbacks while a model is written.
#[expect(missing_debug_implementations, reason = "functions have nothing to print")]
pub struct Hooks<'h, T: ComputedTensor> {
    /// Called once, before the first tensor is computed and while unchanged bytes are already being copied.
    /// An error ends the writing.
    pub confirm: Option<&'h dyn Fn() -> Result<()>>,
    /// Called after each tensor, with what computing it returned, in the order of the files.
    pub done: &'h mut dyn FnMut(&T, T::Outcome),
}

/// Writes the files of an output. A tensor is computed for the first file that holds one of its parts; parts
/// that belong to later files wait in memory.
#[expect(missing_debug_implementations, reason = "it holds functions")]
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

    /// Computes a tensor and queues its parts, except those of other files.
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use curmerge_formats::dtype::DType;

    use super::*;

    /// A tensor whose parts are two bytes each.
    struct Letters(&'static str);

    impl ComputedTensor for Letters {
        type Outcome = usize;

        fn dtype(&self) -> DType {
            DType::U8
        }

        fn compute(&self, put: &mut dyn FnMut(usize, Vec<u8>) -> Result<()>) -> Result<usize> {
            for repeat in 0..2 {
                for (part, letter) in self.0.bytes().enumerate() {
                    put(part, vec![letter + repeat])?;
                }
            }
            Ok(self.0.len())
        }
    }

    #[test]
    fn a_part_waits_for_its_file_and_a_tensor_is_computed_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut tensors = ComputedTensors::default();
        for letters in ["a", "ko", "x"] {
            tensors.push(Letters(letters), letters.len());
        }
        // Parts by index: a, k, o, x. The second tensor has a part in each file.
        let new = |index| Piece::Computed { index, len: 2 };
        let files = [Pieces::laid_out(b"1", [(1, new(3)), (3, new(1))], 5), {
            let mut pieces = Pieces::default();
            pieces.extend([new(2), new(0)]);
            pieces
        }];
        let (confirmed, mut order) = (Cell::new(0), String::new());
        let confirm = || {
            confirmed.set(confirmed.get() + 1);
            Ok(())
        };
        let hooks = Hooks { confirm: Some(&confirm), done: &mut |tensor: &Letters, _| order += tensor.0 };
        let mut writer = Writer::new(&tensors, hooks);
        let mut written = Vec::new();
        for (number, pieces) in files.iter().enumerate() {
            let path = folder.path().join(number.to_string());
            let file = OutputFile::create(&path, &[]).unwrap();
            writer.write(pieces, &file).unwrap();
            file.commit().unwrap();
            written.push(std::fs::read(path).unwrap());
        }
        assert_eq!(written, [b"1xykl".to_vec(), b"opab".to_vec()]);
        assert_eq!((order.as_str(), confirmed.get()), ("xkoa", 1));
    }
}
