//! The left operand: rows of activations.

use std::borrow::Cow;
use std::marker::PhantomData;
use std::ops::Range;

use ndarray::ArrayView2;
use rayon::prelude::*;

use super::kernel::Kernel;
use super::spare;
use crate::kernels::{Cpu, Precision};

/// Rows that one thread makes at a time.
const CHUNK: usize = 32;

/// Rows `[m, k]` in the form that is multiplied.
pub struct Rows<'x> {
    pub(super) kernel: &'static Kernel,
    pub(super) rows: usize,
    /// Slots that a product sums over.
    pub(super) depth: usize,
    slots: Slots<'x>,
}

enum Slots<'x> {
    /// f32 as they lie, with any strides.
    View(ArrayView2<'x, f32>),
    /// Row by row.
    Packed(Vec<u32>),
    /// A line for each slot of the sum, with one slot a row.
    Across(Vec<u32>),
}

/// Some slots of some rows.
#[derive(Clone, Copy)]
pub(super) struct Corner<'x> {
    first: *const u32,
    /// From one row to the next.
    pub stride: isize,
    /// From one slot of a row to the next.
    pub step: isize,
    /// How many rows there are.
    pub rows: usize,
    /// How many slots a row has.
    pub depth: usize,
    rows_of: PhantomData<&'x u32>,
}

impl Corner<'_> {
    /// The first slot; the others are those that the strides lead to.
    pub fn first(&self) -> *const u32 {
        self.first
    }
}

impl<'x> Rows<'x> {
    /// Rows for products of this precision, on all threads.
    pub fn new(x: ArrayView2<'x, f32>, precision: Precision) -> Self {
        Self::with(Kernel::of(Cpu::current(), precision), x)
    }

    pub(super) fn with(kernel: &'static Kernel, x: ArrayView2<'x, f32>) -> Self {
        if kernel.numbers == 1 {
            let (rows, depth) = x.dim();
            return Self { kernel, rows, depth, slots: Slots::View(x) };
        }
        Self::packed(kernel, x.dim(), |first, chunk, depth| {
            for (i, slots) in chunk.chunks_exact_mut(depth).enumerate() {
                let row = x.row(first + i);
                let row = row.to_slice().map_or_else(|| row.iter().copied().collect(), Cow::Borrowed);
                kernel.slots(&row, slots);
            }
        })
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The transpose of `x` `[k, m]`, whose rows are contiguous, on the calling thread alone.
    pub fn across(x: ArrayView2<'x, f32>, precision: Precision) -> Self {
        Self::across_with(Kernel::of(Cpu::current(), precision), x)
    }

    pub(super) fn across_with(kernel: &'static Kernel, x: ArrayView2<'x, f32>) -> Self {
        let (k, rows) = x.dim();
        let depth = k.div_ceil(kernel.numbers);
        if kernel.numbers == 1 {
            return Self { kernel, rows, depth, slots: Slots::View(x.reversed_axes()) };
        }
        let mut slots = spare::take(depth * rows);
        for (line, slots) in slots.chunks_exact_mut(rows.max(1)).enumerate() {
            let row = |k| x.row(k).to_slice().expect("rows of activations are contiguous");
            let second = (line * 2 + 1 < k).then(|| row(line * 2 + 1));
            kernel.stacked(row(line * 2), second, slots);
        }
        Self { kernel, rows, depth, slots: Slots::Across(slots) }
    }

    fn packed(
        kernel: &'static Kernel,
        (rows, k): (usize, usize),
        fill: impl Fn(usize, &mut [u32], usize) + Sync,
    ) -> Self {
        let depth = k.div_ceil(kernel.numbers);
        let mut packed = spare::take(rows * depth);
        if depth > 0 {
            packed
                .par_chunks_mut(CHUNK * depth)
                .enumerate()
                .for_each(|(chunk, slots)| fill(chunk * CHUNK, slots, depth));
        }
        Self { kernel, rows, depth, slots: Slots::Packed(packed) }
    }

    /// These rows and slots, at least one of each.
    pub(super) fn corner(&self, rows: Range<usize>, slots: Range<usize>) -> Corner<'_> {
        assert!(rows.start < rows.end && rows.end <= self.rows);
        assert!(slots.start < slots.end && slots.end <= self.depth);
        let (first, stride, step) = match &self.slots {
            Slots::View(x) => (x.as_ptr().cast(), x.strides()[0], x.strides()[1]),
            Slots::Packed(packed) => (packed.as_ptr(), self.depth as isize, 1),
            Slots::Across(lines) => (lines.as_ptr(), 1, self.rows as isize),
        };
        let first = first.wrapping_offset(rows.start as isize * stride + slots.start as isize * step);
        Corner { first, stride, step, rows: rows.len(), depth: slots.len(), rows_of: PhantomData }
    }
}

impl Rows<'static> {
    /// `m` rows of `k` numbers that `make` writes, given which row it is, on all threads.
    pub fn made(
        (m, k): (usize, usize),
        precision: Precision,
        make: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Self {
        let kernel = Kernel::of(Cpu::current(), precision);
        Self::packed(kernel, (m, k), |first, chunk, depth| {
            let mut row = vec![0.0; k];
            for (i, slots) in chunk.chunks_exact_mut(depth).enumerate() {
                make(first + i, &mut row);
                kernel.slots(&row, slots);
            }
        })
    }
}

impl Drop for Rows<'_> {
    fn drop(&mut self) {
        if let Slots::Packed(slots) | Slots::Across(slots) = &mut self.slots {
            spare::give(std::mem::take(slots));
        }
    }
}
