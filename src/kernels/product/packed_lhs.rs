//! The left operand of a product: rows of activations.

use std::borrow::Cow;
use std::ops::Range;

use ndarray::ArrayView2;
use rayon::prelude::*;

use super::micro_kernel::{LhsBlock, MicroKernel};
use super::select;
use crate::kernels::pool;
use crate::kernels::precision::Precision;

/// Rows that one thread packs at a time.
const CHUNK: usize = 32;

const CONTIGUOUS: &str = "rows of activations are contiguous";

/// A left operand `[m, k]`, packed for one micro-kernel.
#[expect(missing_debug_implementations, reason = "it is millions of numbers")]
pub struct PackedLhs<'x> {
    pub(super) kernel: &'static MicroKernel,
    /// m.
    pub(super) rows: usize,
    /// k in slots.
    pub(super) depth: usize,
    slots: Slots<'x>,
}

enum Slots<'x> {
    /// f32 where they are, with any strides.
    View(ArrayView2<'x, f32>),
    /// `[m, depth]`.
    RowMajor(Vec<u32>),
    /// `[depth, m]`.
    ColumnMajor(Vec<u32>),
}

impl<'x> PackedLhs<'x> {
    /// `x` `[m, k]`, packed on all threads.
    pub fn pack(x: ArrayView2<'x, f32>, precision: Precision) -> Self {
        Self::pack_with(select::current(precision), x)
    }

    pub(super) fn pack_with(kernel: &'static MicroKernel, x: ArrayView2<'x, f32>) -> Self {
        if kernel.values_per_slot == 1 {
            let (rows, depth) = x.dim();
            return Self { kernel, rows, depth, slots: Slots::View(x) };
        }
        Self::row_major(kernel, x.dim(), |first, chunk, depth| {
            for (i, slots) in chunk.chunks_exact_mut(depth).enumerate() {
                let row = x.row(first + i);
                let row = row.to_slice().map_or_else(|| row.iter().copied().collect(), Cow::Borrowed);
                kernel.pack(&row, slots);
            }
        })
    }

    /// The transpose of `x` `[k, m]`, whose rows are contiguous, packed on the calling thread alone.
    pub fn pack_transposed(x: ArrayView2<'x, f32>, precision: Precision) -> Self {
        Self::pack_transposed_with(select::current(precision), x)
    }

    pub(super) fn pack_transposed_with(kernel: &'static MicroKernel, x: ArrayView2<'x, f32>) -> Self {
        let (k, rows) = x.dim();
        let depth = k.div_ceil(kernel.values_per_slot);
        if kernel.values_per_slot == 1 {
            return Self { kernel, rows, depth, slots: Slots::View(x.reversed_axes()) };
        }
        let mut slots = pool::take_local(depth * rows);
        for (line, slots) in slots.chunks_exact_mut(rows.max(1)).enumerate() {
            let row = |k| x.row(k).to_slice().expect(CONTIGUOUS);
            let second = (line * 2 + 1 < k).then(|| row(line * 2 + 1));
            kernel.interleave(row(line * 2), second, slots);
        }
        Self { kernel, rows, depth, slots: Slots::ColumnMajor(slots) }
    }

    /// The values of a left operand of one row that is not rounded.
    pub fn single_row(&self) -> Option<Vec<f32>> {
        let exact = self.rows == 1 && self.kernel.values_per_slot == 1;
        exact.then(|| match &self.slots {
            Slots::View(x) => x.iter().copied().collect(),
            Slots::RowMajor(slots) | Slots::ColumnMajor(slots) => {
                slots[..self.depth].iter().map(|&slot| f32::from_bits(slot)).collect()
            }
        })
    }

    /// The number of rows, m.
    pub fn rows(&self) -> usize {
        self.rows
    }

    fn row_major(
        kernel: &'static MicroKernel,
        (rows, k): (usize, usize),
        fill: impl Fn(usize, &mut [u32], usize) + Sync,
    ) -> Self {
        let depth = k.div_ceil(kernel.values_per_slot);
        let mut packed = pool::take_local(rows * depth);
        if depth > 0 {
            packed
                .par_chunks_mut(CHUNK * depth)
                .enumerate()
                .for_each(|(chunk, slots)| fill(chunk * CHUNK, slots, depth));
        }
        Self { kernel, rows, depth, slots: Slots::RowMajor(packed) }
    }

    /// These rows and slots, at least one of each.
    ///
    /// # Panics
    /// When the operand does not have them.
    #[allow(unsafe_code)]
    pub(super) fn block(&self, rows: Range<usize>, slots: Range<usize>) -> LhsBlock<'_> {
        assert!(rows.start < rows.end && rows.end <= self.rows);
        assert!(slots.start < slots.end && slots.end <= self.depth);
        let (first, row_stride, slot_stride) = match &self.slots {
            Slots::View(x) => (x.as_ptr().cast(), x.strides()[0], x.strides()[1]),
            Slots::RowMajor(packed) => (packed.as_ptr(), self.depth as isize, 1),
            Slots::ColumnMajor(packed) => (packed.as_ptr(), 1, self.rows as isize),
        };
        let first =
            first.wrapping_offset(rows.start as isize * row_stride + slots.start as isize * slot_stride);
        // SAFETY: the rows and slots were just checked to be in this operand, whose strides these are, and
        // the block borrows it.
        unsafe { LhsBlock::new(first, [row_stride, slot_stride], [rows.len(), slots.len()]) }
    }
}

impl PackedLhs<'static> {
    /// `m` rows of `k` values, packed on all threads while `write` writes them, given the row's index.
    pub fn from_fn(
        (m, k): (usize, usize),
        precision: Precision,
        write: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Self {
        let kernel = select::current(precision);
        Self::row_major(kernel, (m, k), |first, chunk, depth| {
            let mut row = vec![0.0; k];
            for (i, slots) in chunk.chunks_exact_mut(depth).enumerate() {
                write(first + i, &mut row);
                kernel.pack(&row, slots);
            }
        })
    }
}

impl Drop for PackedLhs<'_> {
    fn drop(&mut self) {
        if let Slots::RowMajor(slots) | Slots::ColumnMajor(slots) = &mut self.slots {
            pool::give_local(std::mem::take(slots));
        }
    }
}
