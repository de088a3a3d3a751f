//! The right operand: a stored matrix or its transpose, decoded straight into panels.

use std::ops::Range;

use ndarray::{ArrayView2, ArrayViewMut3, Axis};
use rayon::prelude::*;

use super::kernel::Kernel;
use super::spare;
use crate::kernels::{Cpu, Precision};

/// Rows of a matrix that one thread decodes at a time; even, so that two rows can share a slot.
const CHUNK: usize = 16;

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
            panels.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each(|(p, mut panel)| {
                let first = rows.start + p * kernel.columns;
                let mut row = vec![0.0; w.columns()];
                let mut slots = vec![0; CHUNK * depth];
                for (c, mut columns) in panel.axis_chunks_iter_mut(Axis(1), CHUNK).enumerate() {
                    for (i, slots) in slots.chunks_exact_mut(depth.max(1)).enumerate() {
                        let at = first + c * CHUNK + i;
                        if at < rows.end && i < columns.ncols() {
                            w.row(at, &mut row);
                            kernel.slots(&row, slots);
                        } else {
                            slots.fill(0);
                        }
                    }
                    for (k, mut line) in columns.rows_mut().into_iter().enumerate() {
                        let line = line.as_slice_mut().expect("columns of a panel are contiguous");
                        line.iter_mut().enumerate().for_each(|(i, slot)| *slot = slots[i * depth + k]);
                    }
                }
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
                        let slots = slots.as_slice_mut().expect("columns of a panel are contiguous");
                        kernel.stacked(&first[columns.clone()], two.then_some(&second[columns]), slots);
                    }
                }
            });
        })
    }

    /// Activations `[k, n]` with any strides as the right operand of f32 products, on the calling thread alone.
    pub fn of(b: ArrayView2<f32>) -> Self {
        Self::of_with(Kernel::of(Cpu::current(), Precision::F32), b)
    }

    pub(super) fn of_with(kernel: &'static Kernel, b: ArrayView2<f32>) -> Self {
        let (depth, columns) = b.dim();
        assert_eq!(kernel.numbers, 1, "activations are multiplied as f32");
        Self::filled(kernel, depth, columns, |mut panels| {
            let sources = b.axis_chunks_iter(Axis(1), kernel.columns);
            for (mut panel, source) in panels.axis_iter_mut(Axis(0)).zip(sources) {
                let (mut used, mut filling) = panel.view_mut().split_at(Axis(1), source.ncols());
                filling.fill(0);
                // ndarray goes through both in the order that suits their strides.
                used.zip_mut_with(&source, |slot, x| *slot = x.to_bits());
            }
        })
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

impl Drop for Panels {
    fn drop(&mut self) {
        spare::give(std::mem::take(&mut self.slots));
    }
}
