//! A matrix that adapters change, as a stream: a few blocks of rows at a time are decoded, changed and
//! rounded.

use std::ops::Range;

use curmerge_formats::dtype::DType;

use super::adapted::Adapted;
use super::deltas::{self, DeltaSum};
use super::nbits;
use super::report::{Sums, TensorReport};
use super::requantize::{self, Types};
use crate::error::CallerOption;
use crate::rewrite::{ComputedTensor, in_blocks};
use crate::{Error, Result};

/// About how many numbers of factors are in memory at a time.
const FACTORS: usize = 1 << 20;

impl ComputedTensor for Adapted<'_> {
    type Outcome = TensorReport;

    fn dtype(&self) -> DType {
        self.dtype
    }

    /// The merged matrix as the container stores it: its order of rows, or its transpose. Every stored row is
    /// rounded by itself, so the result depends neither on blocks nor on threads.
    fn compute(&self, put: &mut dyn FnMut(usize, Vec<u8>) -> Result<()>) -> Result<TensorReport> {
        if let Some(nbits) = self.weight.nbits() {
            return nbits::compute(self, nbits, put);
        }
        let (stored, transposed) = self.weight.as_stored();
        let mut sums = Sums::default();
        for (range, deltas) in deltas::by_rows(self.deltas, stored.rows(), transposed, FACTORS) {
            let sum = DeltaSum::new(&deltas, transposed, self.path)?;
            in_blocks(
                [range.len(), stored.cols()],
                |rows| self.block(&sum, range.start + rows.start..range.start + rows.end),
                |(bytes, row_sums)| {
                    row_sums.iter().for_each(|row| sums.add(row));
                    put(0, bytes)
                },
            )?;
        }
        Ok(self.report(self.dtype.name(), &sums))
    }
}

impl Adapted<'_> {
    /// What [`ComputedTensor::compute`] would report.
    pub(super) fn measure(&self) -> Result<TensorReport> {
        self.compute(&mut |_, _| Ok(()))
    }

    /// The bytes of some stored rows, and the sums of each row.
    fn block(&self, sum: &DeltaSum, rows: Range<usize>) -> Result<(Vec<u8>, Vec<Sums>)> {
        let (stored, transposed) = self.weight.as_stored();
        let (cols, stored_bytes) = (stored.cols(), stored.row_bytes());
        // `storage` checked that rows are whole blocks of the type.
        let row_bytes = self.dtype.bytes_for(cols as u64).unwrap_or(0) as usize;
        let experts = self.importance.map_or(1, |importance| importance.len() / cols);
        let rows_per_expert = stored.rows() / experts;
        let (mut w, mut d) = (vec![0.0; cols], vec![0.0; cols]);
        let mut bytes = vec![0; rows.len() * row_bytes];
        let mut sums = Vec::with_capacity(rows.len());
        for (stored_row, out) in rows.zip(bytes.chunks_exact_mut(row_bytes)) {
            stored.decode_row(stored_row, &mut w);
            sum.of_row(stored_row, &mut d);
            let importance = self.importance.map(|all| &all[stored_row / rows_per_expert * cols..][..cols]);
            let types = Types { stored: stored.dtype(), output: self.dtype, importance };
            let bytes = &stored.stored_bytes()[stored_row * stored_bytes..][..stored_bytes];
            let rounded = requantize::row(types, bytes, &w, &d, out).map_err(|e| {
                // The rows of a transpose are never permuted.
                let row = if transposed { stored_row } else { self.weight.canonical_row(stored_row) };
                let place = format!("tensor '{}', row {row}", self.name);
                let help = "or train with a lower learning rate";
                Error::input(self.path, place, e.to_string(), help).avoidable(CallerOption::LearningRate)
            })?;
            sums.push(rounded);
        }
        Ok((bytes, sums))
    }
}
