//! A cache of what the [frozen blocks](crate::model::Transformer::frozen_blocks) compute for each example.
//!
//! Training never changes those blocks, so their output is computed in the first epoch and kept in an unnamed
//! file, which the operating system holds in memory while there is room.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use ndarray::{Array2, s};

use super::batches::MicroBatch;
use crate::model::Transformer;
use crate::{Error, Result};

/// The hidden states of a data set's examples.
#[derive(Debug)]
pub struct FrozenCache {
    file: File,
    /// The folder of the file, for errors.
    folder: PathBuf,
    /// Numbers a token: `d_model`.
    width: usize,
    /// Byte offset of each example's first token, once it is cached.
    offsets: Vec<Option<u64>>,
    end: u64,
}

impl FrozenCache {
    /// An empty cache for `examples` examples, in a file in `folder`. `None` if no block is
    /// frozen.
    pub fn new(model: &Transformer<'_, f32>, examples: usize, folder: &Path) -> Result<Option<Self>> {
        if model.frozen_blocks() == 0 {
            return Ok(None);
        }
        let file = tempfile::tempfile_in(folder).map_err(|e| Error::io(folder, "create a file in", e))?;
        let (width, offsets) = (model.config().d_model, vec![None; examples]);
        Ok(Some(Self { file, folder: folder.into(), width, offsets, end: 0 }))
    }

    /// The hidden states `[tokens, d_model]` that the first block above the frozen ones takes as input for a micro-batch.
    /// Its examples must not share prefixes.
    pub fn hidden_states(
        &mut self,
        model: &Transformer<'_, f32>,
        micro_batch: &MicroBatch,
    ) -> Result<Array2<f32>> {
        self.read_or_compute(model, micro_batch)
            .map_err(|e| Error::io(&self.folder, "cache hidden states in", e))
    }

    fn read_or_compute(
        &mut self,
        model: &Transformer<'_, f32>,
        MicroBatch { batch, examples }: &MicroBatch,
    ) -> std::io::Result<Array2<f32>> {
        let offsets: Vec<Option<u64>> = examples.iter().map(|&example| self.offsets[example]).collect();
        if offsets.contains(&None) {
            let x = model.forward_frozen(batch);
            for (&example, rows) in examples.iter().zip(batch.sequences()) {
                if self.offsets[example].is_none() {
                    let values = x.slice(s![rows.clone(), ..]);
                    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                    self.file.seek(SeekFrom::Start(self.end))?;
                    self.file.write_all(&bytes)?;
                    self.offsets[example] = Some(self.end);
                    self.end += bytes.len() as u64;
                }
            }
            return Ok(x);
        }
        let mut values = Vec::with_capacity(batch.tokens().len() * self.width);
        for (offset, rows) in offsets.into_iter().flatten().zip(batch.sequences()) {
            let mut bytes = vec![0; rows.len() * self.width * size_of::<f32>()];
            self.file.seek(SeekFrom::Start(offset))?;
            self.file.read_exact(&mut bytes)?;
            values.extend(bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
        }
        Ok(Array2::from_shape_vec((batch.tokens().len(), self.width), values)
            .expect("sequences fill the rows of a micro-batch"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Base;
    use crate::cur::{self, Selection};
    use crate::train::batches;
    use crate::train::data::Example;

    #[test]
    fn cached_states_equal_computed_ones_in_any_company() {
        let base =
            Base::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/demo/model.gguf")).unwrap();
        let mut model = Transformer::<f32>::new(&base).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let attach = |model: &mut Transformer<'_, f32>, layers| {
            let names = base.targets("q,down", Some(layers)).unwrap();
            model.attach(&cur::new_targets(&base, &names, 4, Selection::Reference, 0).unwrap(), 1.0).unwrap();
        };
        let mut from_below = model.clone();
        attach(&mut from_below, 0..=0);
        assert!(FrozenCache::new(&from_below, 3, folder.path()).unwrap().is_none());

        attach(&mut model, 2..=2);
        assert_eq!(model.frozen_blocks(), 2);
        let example = |length: u32| Example {
            tokens: (5..5 + length).collect(),
            loss_mask: vec![true; length as usize],
        };
        let examples = [example(40), example(7), example(23), example(64)];
        let micro_batch = |indices: &[usize]| {
            let examples = indices.iter().map(|&i| (i, &examples[i]));
            batches::micro_batches(examples, batches::BatchLimits { max_tokens: 1000, share_prefixes: false })
                .remove(0)
        };
        let mut cache = FrozenCache::new(&model, examples.len(), folder.path()).unwrap().unwrap();
        for indices in [&[1, 3][..], &[0, 3, 2], &[3, 2, 1, 0], &[2]] {
            let micro_batch = micro_batch(indices);
            let right = model.forward_frozen(&micro_batch.batch);
            assert_eq!(cache.hidden_states(&model, &micro_batch).unwrap(), right, "{indices:?}");
            let from = model.gradients_from(right, &micro_batch.batch, 0.1);
            assert_eq!(model.gradients(&micro_batch.batch, 0.1), from);
        }
        // The file has no name.
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
