//! One changed matrix as a stream: a few blocks of rows at a time are decoded, changed, rounded and appended.

use std::ops::Range;
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

    /// The matrix as [`Self::write_at`] has it, block by block.
    pub(super) fn each_block(
        &self,
        path: &Path,
        mut take: impl FnMut(Vec<u8>) -> Result<()>,
    ) -> Result<TensorReport> {
        let (stored, transposed) = self.weight.as_stored();
        let sum = Sum::of(self.terms, transposed, path)?;
        let mut sums = Sums::default();
        in_blocks(
            &stored,
            |rows| self.block(path, &sum, rows),
            |(bytes, block_sums)| {
                block_sums.iter().for_each(|s| sums.add(s));
                take(bytes)
            },
        )?;
        Ok(TensorReport::new(self.name, terms::parts(self.terms), self.dtype.name(), &sums))
    }

    /// The bytes of some rows in the container's order, and each row's sums.
    fn block(&self, path: &Path, sum: &Sum, rows: Range<usize>) -> Result<(Vec<u8>, Vec<Sums>)> {
        let (stored, transposed) = self.weight.as_stored();
        let (cols, stored_bytes) = (stored.cols(), stored.row_bytes());
        let row_bytes = self.output_bytes() as usize / stored.rows();
        // Each expert has its own weights.
        let experts = self.weights.map_or(1, |weights| weights.len() / cols);
        let rows_an_expert = stored.rows() / experts;
        let (mut w, mut d) = (vec![0.0; cols], vec![0.0; cols]);
        let mut bytes = vec![0; rows.len() * row_bytes];
        let mut sums = Vec::with_capacity(rows.len());
        for (stored_row, out) in rows.zip(bytes.chunks_exact_mut(row_bytes)) {
            stored.decode_row(stored_row, &mut w);
            sum.of_row(stored_row, &mut d);
            let weights = self.weights.map(|weights| &weights[stored_row / rows_an_expert * cols..][..cols]);
            let types = Types { stored: stored.dtype(), output: self.dtype, weights };
            let bytes = &stored.stored_bytes()[stored_row * stored_bytes..][..stored_bytes];
            let rounded = requantize::row(types, bytes, &w, &d, out).map_err(|e| {
                // Of a transpose no row is moved.
                let row = if transposed { stored_row } else { self.weight.canonical_row(stored_row) };
                let place = format!("tensor '{}', row {row}", self.name);
                Error::input(path, place, e.to_string(), "or train with a lower --lr")
            })?;
            sums.push(rounded);
        }
        Ok((bytes, sums))
    }
}

/// What `work` makes of blocks of the rows of a stored matrix, in parallel, to `take` in their order.
pub(super) fn in_blocks<T: Send>(
    stored: &Weight<'_>,
    work: impl Fn(Range<usize>) -> Result<T> + Sync,
    mut take: impl FnMut(T) -> Result<()>,
) -> Result<()> {
    let (rows, block) = (stored.rows(), (BLOCK_VALUES / stored.cols()).max(1));
    let starts: Vec<usize> = (0..rows).step_by(block).collect();
    // Only so many blocks are in memory at a time.
    for batch in starts.chunks(2 * rayon::current_num_threads()) {
        let done: Vec<Result<T>> =
            batch.par_iter().map(|&start| work(start..(start + block).min(rows))).collect();
        done.into_iter().try_for_each(|block| take(block?))?;
    }
    Ok(())
}
