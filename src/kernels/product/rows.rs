//! The left operand: rows of activations.

use std::borrow::Cow;
use std::marker::PhantomData;
use std::ops::Range;

use ndarray::{ArrayView2, Axis};
use rayon::prelude::*;

use super::kernel::Kernel;
use super::spare;
use crate::kernels::{Cpu, Precision};

/// Rows that one thread rounds at a time.
const CHUNK: usize = 64;

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
    Rounded(Vec<u32>),
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
        let (rows, k) = x.dim();
        let depth = k.div_ceil(kernel.numbers);
        let slots = match kernel.numbers {
            1 => Slots::View(x),
            _ => {
                let mut rounded = spare::take(rows * depth);
                rounded
                    .par_chunks_mut((CHUNK * depth).max(1))
                    .zip(x.axis_chunks_iter(Axis(0), CHUNK).into_par_iter())
                    .for_each(|(rounded, rows)| {
                        for (slots, row) in rounded.chunks_exact_mut(depth).zip(rows.rows()) {
                            let row =
                                row.to_slice().map_or_else(|| row.iter().copied().collect(), Cow::Borrowed);
                            kernel.slots(&row, slots);
                        }
                    });
                Slots::Rounded(rounded)
            }
        };
        Self { kernel, rows, depth, slots }
    }

    /// These rows and slots, at least one of each.
    pub(super) fn corner(&self, rows: Range<usize>, slots: Range<usize>) -> Corner<'_> {
        assert!(rows.start < rows.end && rows.end <= self.rows);
        assert!(slots.start < slots.end && slots.end <= self.depth);
        let (first, stride, step) = match &self.slots {
            Slots::View(x) => (x.as_ptr().cast(), x.strides()[0], x.strides()[1]),
            Slots::Rounded(rounded) => (rounded.as_ptr(), self.depth as isize, 1),
        };
        let first = first.wrapping_offset(rows.start as isize * stride + slots.start as isize * step);
        Corner { first, stride, step, rows: rows.len(), depth: slots.len(), rows_of: PhantomData }
    }
}

impl Drop for Rows<'_> {
    fn drop(&mut self) {
        if let Slots::Rounded(slots) = &mut self.slots {
            spare::give(std::mem::take(slots));
        }
    }
}
