//! One changed matrix as a stream: a few blocks of rows at a time are decoded, changed, rounded and appended.

use std::path::Path;

use curmerge_formats::dtype::DType;
use curmerge_formats::output::Queue;
use rayon::prelude::*;

use super::report::{Sums, TensorReport};
use super::requantize::{self, Types};
use super::terms::{self, Sum, Term};
use crate::base::Weight;
use crate::{Error, Result};

/// Numbers of one block, which one thread does; at least a row.
const BLOCK_VALUES: usize = 1 << 16;

/// A tensor of the base that adapters change.
#[derive(Clone, Copy, Debug)]
pub(super) struct Adapted<'a> {
    /// Canonical name.
    pub(super) name: &'a str,
    /// What is added.
    pub(super) terms: &'a [Term<'a>],
    /// The whole of it.
    pub(super) weight: Weight<'a>,
    /// How much a rounding error in each column counts, where the type changes; for each expert.
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

    /// Write the merged matrix at `offset` as the container stores it: rows in its order, or the transpose's. `path` is the
    /// base that errors name. Every stored row is rounded by itself, so neither blocks nor threads show in the result.
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
        let (stored, transposed) = self.weight.as_stored();
        let sum = Sum::of(self.terms, transposed, path)?;
        let (rows, cols) = (stored.rows(), stored.cols());
        let block = (BLOCK_VALUES / cols).max(1);
        let starts: Vec<usize> = (0..rows).step_by(block).collect();
        let mut sums = Sums::default();
        // Only so many blocks are in memory at a time.
        for batch in starts.chunks(2 * rayon::current_num_threads()) {
            let done: Vec<Result<(Vec<u8>, Vec<Sums>)>> = batch
                .par_iter()
                .map(|&start| self.block(path, &sum, start..(start + block).min(rows)))
                .collect();
            for block in done {
                let (bytes, block_sums) = block?;
                take(bytes)?;
                block_sums.iter().for_each(|s| sums.add(s));
            }
        }
        Ok(TensorReport::new(self.name, terms::parts(self.terms), self.dtype.name(), &sums))
    }

    /// The bytes of some rows in the container's order, and each row's sums.
    fn block(&self, path: &Path, sum: &Sum, rows: std::ops::Range<usize>) -> Result<(Vec<u8>, Vec<Sums>)> {
        let (stored, _) = self.weight.as_stored();
        let (cols, stored_bytes) = (stored.cols(), stored.row_bytes());
        let row_bytes = self.output_bytes() as usize / stored.rows();
        // Each expert has its own weights.
        let experts = self.weights.map_or(1, |weights| weights.len() / cols);
        let rows_an_expert = stored.rows() / experts;
        let (mut w, mut d) = (vec![0.0; cols], vec![0.0; cols]);
        let mut bytes = vec![0; rows.len() * row_bytes];
        let mut sums = Vec::with_capacity(rows.len());
        for (stored_row, out) in rows.zip(bytes.chunks_exact_mut(row_bytes)) {
            // Of a transpose no row is moved.
            let row = self.weight.canonical_row(stored_row);
            stored.decode_row(stored_row, &mut w);
            sum.of_row(row, &mut d);
            let weights = self.weights.map(|weights| &weights[stored_row / rows_an_expert * cols..][..cols]);
            let types = Types { stored: stored.dtype(), output: self.dtype, weights };
            let bytes = &stored.stored_bytes()[stored_row * stored_bytes..][..stored_bytes];
            let rounded = requantize::row(types, bytes, &w, &d, out).map_err(|e| {
                let place = format!("tensor '{}', row {row}", self.name);
                Error::input(path, place, e.to_string(), "or train with a lower --lr")
            })?;
            sums.push(rounded);
        }
        Ok((bytes, sums))
    }
}
