//! One changed matrix as a stream: a few blocks of rows at a time are decoded, changed, rounded and appended.

use std::path::Path;

use curmerge_formats::adapter::AdapterTarget;
use curmerge_formats::dtype::DType;
use curmerge_formats::output::Queue;
use rayon::prelude::*;

use super::report::{Sums, TensorReport};
use super::requantize::{self, Types};
use crate::base::Weight;
use crate::cur::Factors;
use crate::lora::Lora;
use crate::{Error, Result};

/// Numbers of one block, which one thread does; at least a row.
const BLOCK_VALUES: usize = 1 << 16;

/// One adapter's change of one matrix.
#[derive(Clone, Copy, Debug)]
pub(super) enum Term<'a> {
    /// `scale C U R`
    Cur { target: &'a AdapterTarget, scale: f32 },
    /// `scale` times the LoRA's own change.
    Lora { lora: &'a Lora, scale: f32 },
}

/// A matrix of the base that adapters change.
#[derive(Clone, Copy, Debug)]
pub(super) struct Adapted<'a> {
    /// Canonical name.
    pub(super) name: &'a str,
    /// What is added.
    pub(super) terms: &'a [Term<'a>],
    /// The base's matrix.
    pub(super) weight: Weight<'a>,
    /// How much a rounding error in each column counts, where the type changes.
    pub(super) weights: Option<&'a [f32]>,
    /// The type it will be written in.
    pub(super) dtype: DType,
}

impl Adapted<'_> {
    /// Length of the matrix in the output.
    pub(super) fn output_bytes(&self) -> u64 {
        // `merge` checked that rows are whole blocks of the type.
        self.dtype.bytes_for((self.weight.rows() * self.weight.cols()) as u64).unwrap_or(0)
    }

    /// Write the merged matrix at `offset`, rows in the container's order; `path` is the base that errors name. Every row
    /// is rounded by itself, so neither blocks nor threads show in the result.
    pub(super) fn write_at(&self, mut offset: u64, out: &Queue<'_>, path: &Path) -> Result<TensorReport> {
        self.each_block(path, |bytes| {
            let place = offset;
            offset += bytes.len() as u64;
            Ok(out.write_at(place, bytes)?)
        })
    }

    /// What [`Self::write_at`] would tell.
    pub(super) fn measure(&self, path: &Path) -> Result<TensorReport> {
        self.each_block(path, |_| Ok(()))
    }

    fn each_block(&self, path: &Path, mut take: impl FnMut(Vec<u8>) -> Result<()>) -> Result<TensorReport> {
        let factors = self.factors(path)?;
        let (rows, cols) = (self.weight.rows(), self.weight.cols());
        let block = (BLOCK_VALUES / cols).max(1);
        let starts: Vec<usize> = (0..rows).step_by(block).collect();
        let mut sums = Sums::default();
        // Only so many blocks are in memory at a time.
        for batch in starts.chunks(2 * rayon::current_num_threads()) {
            let done: Vec<Result<(Vec<u8>, Vec<Sums>)>> = batch
                .par_iter()
                .map(|&start| self.block(path, &factors, start..(start + block).min(rows)))
                .collect();
            for block in done {
                let (bytes, block_sums) = block?;
                take(bytes)?;
                block_sums.iter().for_each(|s| sums.add(s));
            }
        }
        Ok(TensorReport::new(self.name, self.dtype.name(), &sums))
    }

    fn factors(&self, path: &Path) -> Result<Factors> {
        let terms = self.terms.iter().map(|term| match *term {
            Term::Cur { target, scale } => Factors::of_target(path, &self.weight, target, scale),
            Term::Lora { lora, scale } => lora.factors(self.name, &self.weight, scale),
        });
        Ok(Factors::joined(terms.collect::<Result<_>>()?))
    }

    /// The bytes of some rows in the container's order, and each row's sums.
    fn block(
        &self,
        path: &Path,
        factors: &Factors,
        rows: std::ops::Range<usize>,
    ) -> Result<(Vec<u8>, Vec<Sums>)> {
        let (cols, stored_bytes) = (self.weight.cols(), self.weight.row_bytes());
        let types = Types { stored: self.weight.dtype(), output: self.dtype, weights: self.weights };
        let row_bytes = self.output_bytes() as usize / self.weight.rows();
        let (mut w, mut d) = (vec![0.0; cols], vec![0.0; cols]);
        let mut bytes = vec![0; rows.len() * row_bytes];
        let mut sums = Vec::with_capacity(rows.len());
        for (stored_row, out) in rows.zip(bytes.chunks_exact_mut(row_bytes)) {
            let row = self.weight.canonical_row(stored_row);
            self.weight.decode_row(row, &mut w);
            factors.change_of_row(row, &mut d);
            let stored = &self.weight.stored_bytes()[stored_row * stored_bytes..][..stored_bytes];
            let rounded = requantize::row(types, stored, &w, &d, out).map_err(|e| {
                let place = format!("tensor '{}', row {row}", self.name);
                Error::input(path, place, e.to_string(), "or train with a lower --lr")
            })?;
            sums.push(rounded);
        }
        Ok((bytes, sums))
    }
}
