//! What the frozen blocks below the lowest adapted one give for each example: always the same, so it is computed in the
//! first epoch and kept in a file without a name, which the system holds in memory while there is room.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use ndarray::{Array2, s};

use super::batches::Pass;
use crate::model::Transformer;
use crate::{Error, Result};

/// The hidden states of a data set's examples.
#[derive(Debug)]
pub struct Prefix {
    file: File,
    /// The folder that it is in, for errors.
    folder: PathBuf,
    /// Numbers of a token.
    width: usize,
    /// Where each example's first token is, in bytes.
    places: Vec<Option<u64>>,
    end: u64,
}

impl Prefix {
    /// For so many examples, in a file in `folder`; `None` where the model adapts its first block.
    pub fn new(model: &Transformer<'_, f32>, examples: usize, folder: &Path) -> Result<Option<Self>> {
        if model.frozen_blocks() == 0 {
            return Ok(None);
        }
        let file = tempfile::tempfile_in(folder).map_err(|e| Error::io(folder, "create a file in", e))?;
        let (width, places) = (model.config().d_model, vec![None; examples]);
        Ok(Some(Self { file, folder: folder.into(), width, places, end: 0 }))
    }

    /// The hidden states `[tokens, d_model]` that the first adapted block takes for a pass of these examples, which share
    /// nothing.
    pub fn of(&mut self, model: &Transformer<'_, f32>, pass: &Pass) -> Result<Array2<f32>> {
        self.read_or_compute(model, pass).map_err(|e| Error::io(&self.folder, "keep hidden states in", e))
    }

    fn read_or_compute(&mut self, model: &Transformer<'_, f32>, pass: &Pass) -> std::io::Result<Array2<f32>> {
        let places: Vec<Option<u64>> = pass.examples.iter().map(|&example| self.places[example]).collect();
        let sequences = pass.batch.sequences();
        if places.contains(&None) {
            let x = model.forward_frozen(&pass.batch);
            for (&example, rows) in pass.examples.iter().zip(sequences) {
                if self.places[example].is_none() {
                    let values = x.slice(s![rows.clone(), ..]);
                    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                    self.file.seek(SeekFrom::Start(self.end))?;
                    self.file.write_all(&bytes)?;
                    self.places[example] = Some(self.end);
                    self.end += bytes.len() as u64;
                }
            }
            return Ok(x);
        }
        let mut values = Vec::with_capacity(pass.batch.tokens().len() * self.width);
        for (place, rows) in places.into_iter().flatten().zip(sequences) {
            let mut bytes = vec![0; rows.len() * self.width * size_of::<f32>()];
            self.file.seek(SeekFrom::Start(place))?;
            self.file.read_exact(&mut bytes)?;
            values.extend(bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
        }
        Ok(Array2::from_shape_vec((pass.batch.tokens().len(), self.width), values)
            .expect("sequences fill the rows of a pass"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Base;
    use crate::cur::{Selection, binding};
    use crate::train::batches;
    use crate::train::data::Example;

    #[test]
    fn what_was_kept_is_what_is_computed_in_any_company() {
        let base =
            Base::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/demo/model.gguf")).unwrap();
        let mut model = Transformer::<f32>::new(&base).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let attach = |model: &mut Transformer<'_, f32>, layers| {
            let names = base.targets("q,down", Some(layers)).unwrap();
            model.attach(&binding::prepare(&base, &names, 4, Selection::Reference, 0).unwrap(), 1.0).unwrap();
        };
        let mut from_below = model.clone();
        attach(&mut from_below, 0..=0);
        assert!(Prefix::new(&from_below, 3, folder.path()).unwrap().is_none());

        attach(&mut model, 2..=2);
        assert_eq!(model.frozen_blocks(), 2);
        let example =
            |length: u32| Example { tokens: (5..5 + length).collect(), targets: vec![true; length as usize] };
        let examples = [example(40), example(7), example(23), example(64)];
        let pass = |indices: &[usize]| {
            let examples = indices.iter().map(|&i| (i, &examples[i]));
            batches::passes(examples, batches::Cut { most: 1000, share: false }).remove(0)
        };
        let mut prefix = Prefix::new(&model, examples.len(), folder.path()).unwrap().unwrap();
        for indices in [&[1, 3][..], &[0, 3, 2], &[3, 2, 1, 0], &[2]] {
            let pass = pass(indices);
            let right = model.forward_frozen(&pass.batch);
            assert_eq!(prefix.of(&model, &pass).unwrap(), right, "{indices:?}");
            let from = model.gradients_from(right, &pass.batch, 0.1);
            assert_eq!(model.gradients(&pass.batch, 0.1), from);
        }
        // The file has no name.
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
