//! The right operand of a product: a matrix or its transpose, decoded straight into panels.

use std::ops::Range;

use ndarray::{ArrayView2, ArrayViewMut2, ArrayViewMut3, Axis};
use rayon::prelude::*;

use super::matrix::Matrix;
use super::micro_kernel::MicroKernel;
use super::select;
use crate::kernels::pool;
use crate::kernels::precision::Precision;

/// Rows of a matrix that one thread decodes at a time; even, so that two rows can share a slot.
const CHUNK: usize = 16;

const CONTIGUOUS: &str = "rows of activations, and lines of a panel, are contiguous";

/// A right operand `[k, n]`, packed for one micro-kernel as panels of `nr` columns: for each slot of k, one
/// slot for each column. The last panel is padded with columns of zeros.
#[expect(missing_debug_implementations, reason = "it is millions of numbers")]
pub struct PackedRhs {
    pub(super) kernel: &'static MicroKernel,
    /// k in slots.
    pub(super) depth: usize,
    /// n, without padding.
    pub(super) columns: usize,
    /// `[panels, depth, nr]`.
    slots: Vec<u32>,
}

impl PackedRhs {
    /// The transpose of these rows of a matrix, `[w.columns(), rows.len()]`, for `x W^T`; packed on all
    /// threads.
    pub fn from_matrix_transposed(w: &impl Matrix, rows: Range<usize>, precision: Precision) -> Self {
        Self::from_matrix_transposed_with(select::current(precision), w, rows)
    }

    pub(super) fn from_matrix_transposed_with(
        kernel: &'static MicroKernel,
        w: &impl Matrix,
        rows: Range<usize>,
    ) -> Self {
        let depth = w.columns().div_ceil(kernel.values_per_slot);
        Self::filled(kernel, depth, rows.len(), |mut panels| {
            panels.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each(|(p, panel)| {
                let first = rows.start + p * kernel.nr;
                let mut row = vec![0.0; w.columns()];
                fill_columns(kernel, panel, rows.end - first, |column, slots| {
                    w.row(first + column, &mut row);
                    kernel.pack(&row, slots);
                });
            });
        })
    }

    /// These rows of a matrix, `[rows.len(), w.columns()]`, for `g W`; packed on all threads.
    pub fn from_matrix(w: &impl Matrix, rows: Range<usize>, precision: Precision) -> Self {
        Self::from_matrix_with(select::current(precision), w, rows)
    }

    pub(super) fn from_matrix_with(
        kernel: &'static MicroKernel,
        w: &impl Matrix,
        rows: Range<usize>,
    ) -> Self {
        let per_slot = kernel.values_per_slot;
        let depth = rows.len().div_ceil(per_slot);
        Self::filled(kernel, depth, w.columns(), |mut panels| {
            let chunks = panels.axis_chunks_iter_mut(Axis(1), CHUNK / per_slot).into_par_iter();
            chunks.enumerate().for_each(|(c, mut chunk)| {
                let width = chunk.len_of(Axis(0)) * kernel.nr;
                let (mut first, mut second) = (vec![0.0; width], vec![0.0; width]);
                for (k, mut line) in chunk.axis_iter_mut(Axis(1)).enumerate() {
                    let row = rows.start + c * CHUNK + k * per_slot;
                    w.row(row, &mut first[..w.columns()]);
                    let two = per_slot == 2 && row + 1 < rows.end;
                    if two {
                        w.row(row + 1, &mut second[..w.columns()]);
                    }
                    for (p, mut slots) in line.rows_mut().into_iter().enumerate() {
                        let columns = p * kernel.nr..(p + 1) * kernel.nr;
                        let slots = slots.as_slice_mut().expect(CONTIGUOUS);
                        kernel.interleave(&first[columns.clone()], two.then_some(&second[columns]), slots);
                    }
                }
            });
        })
    }

    /// Activations `[k, n]`, whose rows are contiguous, packed on the calling thread alone.
    pub fn pack(b: ArrayView2<f32>, precision: Precision) -> Self {
        Self::pack_with(select::current(precision), b)
    }

    pub(super) fn pack_with(kernel: &'static MicroKernel, b: ArrayView2<f32>) -> Self {
        let (k, columns) = b.dim();
        let depth = k.div_ceil(kernel.values_per_slot);
        let row = |k: usize, columns: Range<usize>| &b.row(k).to_slice().expect(CONTIGUOUS)[columns];
        Self::filled(kernel, depth, columns, |mut panels| {
            for (p, mut panel) in panels.axis_iter_mut(Axis(0)).enumerate() {
                let source = p * kernel.nr..columns.min((p + 1) * kernel.nr);
                for (line, mut slots) in panel.rows_mut().into_iter().enumerate() {
                    let first = line * kernel.values_per_slot;
                    let second = (kernel.values_per_slot == 2 && first + 1 < k)
                        .then(|| row(first + 1, source.clone()));
                    let slots = slots.as_slice_mut().expect(CONTIGUOUS);
                    let (used, padding) = slots.split_at_mut(source.len());
                    kernel.interleave(row(first, source.clone()), second, used);
                    padding.fill(0);
                }
            }
        })
    }

    /// The transpose of activations `[n, k]`, whose rows are contiguous, packed on the calling thread alone.
    pub fn pack_transposed(b: ArrayView2<f32>, precision: Precision) -> Self {
        Self::pack_transposed_with(select::current(precision), b)
    }

    pub(super) fn pack_transposed_with(kernel: &'static MicroKernel, b: ArrayView2<f32>) -> Self {
        let (columns, k) = b.dim();
        Self::filled(kernel, k.div_ceil(kernel.values_per_slot), columns, |mut panels| {
            for (p, panel) in panels.axis_iter_mut(Axis(0)).enumerate() {
                let first = p * kernel.nr;
                fill_columns(kernel, panel, columns - first, |column, slots| {
                    kernel.pack(b.row(first + column).to_slice().expect(CONTIGUOUS), slots);
                });
            }
        })
    }

    /// The same operand in no more memory than it needs, to be kept for long: a pooled buffer may be larger.
    pub fn shrink_to_fit(mut self) -> Self {
        self.slots.shrink_to_fit();
        self
    }

    /// Bytes that a packed matrix `[rows, columns]` takes in either role, not counting padding along its
    /// shorter side.
    pub fn bytes(rows: usize, columns: usize, precision: Precision) -> u64 {
        let kernel = select::current(precision);
        let slots = rows.max(columns).next_multiple_of(kernel.nr).max(1);
        (rows.min(columns) * slots).div_ceil(kernel.values_per_slot) as u64 * size_of::<u32>() as u64
    }

    /// An operand whose slots `[panels, depth, nr]` are all written by `fill`.
    fn filled(
        kernel: &'static MicroKernel,
        depth: usize,
        columns: usize,
        fill: impl FnOnce(ArrayViewMut3<u32>),
    ) -> Self {
        let count = columns.div_ceil(kernel.nr);
        let mut slots = pool::take_local(count * depth * kernel.nr);
        let shape = (count, depth, kernel.nr);
        fill(ArrayViewMut3::from_shape(shape, &mut slots).expect("the slots are as many"));
        Self { kernel, depth, columns, slots }
    }

    /// One panel, `[depth, nr]`.
    pub(super) fn panel(&self, panel: usize) -> &[u32] {
        let size = self.depth * self.kernel.nr;
        &self.slots[panel * size..(panel + 1) * size]
    }
}

/// Fills a panel `[depth, nr]` column by column: `pack` writes the slots of one; columns from `columns` on
/// become zero.
fn fill_columns(
    kernel: &MicroKernel,
    mut panel: ArrayViewMut2<u32>,
    columns: usize,
    mut pack: impl FnMut(usize, &mut [u32]),
) {
    let depth = panel.nrows();
    if depth == 0 {
        return;
    }
    let mut slots = pool::take_local(CHUNK * depth);
    for (c, mut part) in panel.axis_chunks_iter_mut(Axis(1), CHUNK).enumerate() {
        for (i, slots) in slots.chunks_exact_mut(depth).enumerate() {
            if c * CHUNK + i < columns {
                pack(c * CHUNK + i, slots);
            } else {
                slots.fill(0);
            }
        }
        kernel.transpose(&slots, part.view_mut());
    }
    pool::give_local(slots);
}

impl Drop for PackedRhs {
    fn drop(&mut self) {
        pool::give_local(std::mem::take(&mut self.slots));
    }
}
