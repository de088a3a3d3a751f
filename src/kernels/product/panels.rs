//! The right operand: a stored matrix or its transpose, decoded straight into panels.

use std::ops::Range;

use ndarray::{ArrayView2, ArrayViewMut2, ArrayViewMut3, Axis};
use rayon::prelude::*;

use super::kernel::Kernel;
use super::spare;
use crate::kernels::{Cpu, Precision};

/// Rows of a matrix that one thread decodes at a time; even, so that two rows can share a slot.
const CHUNK: usize = 16;

const CONTIGUOUS: &str = "columns of a panel are contiguous";

/// A matrix whose rows can be had as f32, such as a stored tensor.
pub trait Matrix: Sync {
    /// Its rows.
    fn rows(&self) -> usize;
    /// Its columns.
    fn columns(&self) -> usize;
    /// Write one row to `out`, of length [`Self::columns`].
    fn row(&self, row: usize, out: &mut [f32]);
}

/// A right operand `[k, n]` as panels of a few columns: for each slot of the sum, one slot a column. The last panel is
/// filled up with columns of zero.
pub struct Panels {
    pub(super) kernel: &'static Kernel,
    /// Slots that a product sums over.
    pub(super) depth: usize,
    /// Columns that are not filling.
    pub(super) columns: usize,
    slots: Vec<u32>,
}

impl Panels {
    /// The transpose of these rows of a matrix, `[w.columns(), rows.len()]`, for `x W^T`.
    pub fn transposed(w: &impl Matrix, rows: Range<usize>, precision: Precision) -> Self {
        Self::transposed_with(Kernel::of(Cpu::current(), precision), w, rows)
    }

    /// These rows of a matrix, `[rows.len(), w.columns()]`, for `g W`.
    pub fn upright(w: &impl Matrix, rows: Range<usize>, precision: Precision) -> Self {
        Self::upright_with(Kernel::of(Cpu::current(), precision), w, rows)
    }

    pub(super) fn transposed_with(kernel: &'static Kernel, w: &impl Matrix, rows: Range<usize>) -> Self {
        let depth = w.columns().div_ceil(kernel.numbers);
        Self::filled(kernel, depth, rows.len(), |mut panels| {
            panels.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each(|(p, panel)| {
                let first = rows.start + p * kernel.columns;
                let mut row = vec![0.0; w.columns()];
                fill_columns(kernel, panel, rows.end - first, |column, slots| {
                    w.row(first + column, &mut row);
                    kernel.slots(&row, slots);
                });
            });
        })
    }

    pub(super) fn upright_with(kernel: &'static Kernel, w: &impl Matrix, rows: Range<usize>) -> Self {
        let numbers = kernel.numbers;
        let depth = rows.len().div_ceil(numbers);
        Self::filled(kernel, depth, w.columns(), |mut panels| {
            let chunks = panels.axis_chunks_iter_mut(Axis(1), CHUNK / numbers).into_par_iter();
            chunks.enumerate().for_each(|(c, mut chunk)| {
                let width = chunk.len_of(Axis(0)) * kernel.columns;
                let (mut first, mut second) = (vec![0.0; width], vec![0.0; width]);
                for (k, mut line) in chunk.axis_iter_mut(Axis(1)).enumerate() {
                    let row = rows.start + c * CHUNK + k * numbers;
                    w.row(row, &mut first[..w.columns()]);
                    let two = numbers == 2 && row + 1 < rows.end;
                    if two {
                        w.row(row + 1, &mut second[..w.columns()]);
                    }
                    for (p, mut slots) in line.rows_mut().into_iter().enumerate() {
                        let columns = p * kernel.columns..(p + 1) * kernel.columns;
                        let slots = slots.as_slice_mut().expect(CONTIGUOUS);
                        kernel.stacked(&first[columns.clone()], two.then_some(&second[columns]), slots);
                    }
                }
            });
        })
    }

    /// Activations `[k, n]`, whose rows are contiguous, as the right operand, on the calling thread alone.
    pub fn of(b: ArrayView2<f32>, precision: Precision) -> Self {
        Self::of_with(Kernel::of(Cpu::current(), precision), b)
    }

    pub(super) fn of_with(kernel: &'static Kernel, b: ArrayView2<f32>) -> Self {
        let (k, columns) = b.dim();
        let depth = k.div_ceil(kernel.numbers);
        let row = |k: usize, columns: Range<usize>| {
            &b.row(k).to_slice().expect("rows of activations are contiguous")[columns]
        };
        Self::filled(kernel, depth, columns, |mut panels| {
            for (p, mut panel) in panels.axis_iter_mut(Axis(0)).enumerate() {
                let source = p * kernel.columns..columns.min((p + 1) * kernel.columns);
                for (line, mut slots) in panel.rows_mut().into_iter().enumerate() {
                    let first = line * kernel.numbers;
                    let second =
                        (kernel.numbers == 2 && first + 1 < k).then(|| row(first + 1, source.clone()));
                    let slots = slots.as_slice_mut().expect(CONTIGUOUS);
                    let (used, filling) = slots.split_at_mut(source.len());
                    kernel.stacked(row(first, source.clone()), second, used);
                    filling.fill(0);
                }
            }
        })
    }

    /// The transpose of activations `[n, k]`, whose rows are contiguous, as the right operand, on the calling thread
    /// alone.
    pub fn across(b: ArrayView2<f32>, precision: Precision) -> Self {
        Self::across_with(Kernel::of(Cpu::current(), precision), b)
    }

    pub(super) fn across_with(kernel: &'static Kernel, b: ArrayView2<f32>) -> Self {
        let (columns, k) = b.dim();
        Self::filled(kernel, k.div_ceil(kernel.numbers), columns, |mut panels| {
            for (p, panel) in panels.axis_iter_mut(Axis(0)).enumerate() {
                let first = p * kernel.columns;
                fill_columns(kernel, panel, columns - first, |column, slots| {
                    let row = b.row(first + column);
                    kernel.slots(row.to_slice().expect("rows of activations are contiguous"), slots);
                });
            }
        })
    }

    /// The same in no more memory than they need, to be kept for long.
    pub fn kept(mut self) -> Self {
        self.slots.shrink_to_fit();
        self
    }

    /// Bytes that so many rows and columns take, in either role.
    pub fn bytes(rows: usize, columns: usize, precision: Precision) -> u64 {
        let kernel = Kernel::of(Cpu::current(), precision);
        let slots = rows.max(columns).next_multiple_of(kernel.columns).max(1);
        (rows.min(columns) * slots).div_ceil(kernel.numbers) as u64 * size_of::<u32>() as u64
    }

    /// Panels whose slots `[panels, depth, columns of one]` are all written by `fill`.
    fn filled(
        kernel: &'static Kernel,
        depth: usize,
        columns: usize,
        fill: impl FnOnce(ArrayViewMut3<u32>),
    ) -> Self {
        let count = columns.div_ceil(kernel.columns);
        let mut slots = spare::take(count * depth * kernel.columns);
        let shape = (count, depth, kernel.columns);
        fill(ArrayViewMut3::from_shape(shape, &mut slots).expect("the slots are as many"));
        Self { kernel, depth, columns, slots }
    }

    pub(super) fn panel(&self, panel: usize) -> &[u32] {
        let size = self.depth * self.kernel.columns;
        &self.slots[panel * size..(panel + 1) * size]
    }
}

/// Fill a panel `[depth, columns]` column by column: `column` writes the slots of one; those from `columns` on are zero.
fn fill_columns(
    kernel: &Kernel,
    mut panel: ArrayViewMut2<u32>,
    columns: usize,
    mut column: impl FnMut(usize, &mut [u32]),
) {
    let depth = panel.nrows();
    if depth == 0 {
        return;
    }
    let mut slots = vec![0; CHUNK * depth];
    for (c, mut part) in panel.axis_chunks_iter_mut(Axis(1), CHUNK).enumerate() {
        for (i, slots) in slots.chunks_exact_mut(depth).enumerate() {
            if c * CHUNK + i < columns {
                column(c * CHUNK + i, slots);
            } else {
                slots.fill(0);
            }
        }
        kernel.turn(&slots, part.view_mut());
    }
}

impl Drop for Panels {
    fn drop(&mut self) {
        spare::give(std::mem::take(&mut self.slots));
    }
}
