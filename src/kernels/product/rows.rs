//! The left operand: rows of activations.

use std::borrow::Cow;

use ndarray::ArrayView2;
use rayon::prelude::*;

use super::kernel::{Format, Kernel};
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
    /// From one row to the next.
    pub(super) stride: usize,
    slots: Slots<'x>,
}

enum Slots<'x> {
    /// f32 as they lie.
    Borrowed(Cow<'x, [f32]>),
    Rounded(Vec<u32>),
}

impl<'x> Rows<'x> {
    /// Rows for products of this precision, on all threads.
    pub fn new(x: ArrayView2<'x, f32>, precision: Precision) -> Self {
        Self::with(Kernel::of(Cpu::current(), precision), x)
    }

    pub(super) fn with(kernel: &'static Kernel, x: ArrayView2<'x, f32>) -> Self {
        let (rows, k) = x.dim();
        let slots = match x.to_slice() {
            Some(slice) => Cow::Borrowed(slice),
            None => Cow::Owned(x.iter().copied().collect()),
        };
        let depth = k.div_ceil(kernel.numbers());
        let slots = match kernel.format {
            Format::F32 => Slots::Borrowed(slots),
            #[cfg(target_arch = "x86_64")]
            Format::Bf16 => {
                let mut rounded = spare::take(rows * depth);
                rounded
                    .par_chunks_mut((CHUNK * depth).max(1))
                    .zip(slots.par_chunks((CHUNK * k).max(1)))
                    .for_each(|(rounded, rows)| {
                        for (slots, row) in rounded.chunks_exact_mut(depth).zip(rows.chunks_exact(k)) {
                            kernel.slots(row, slots);
                        }
                    });
                Slots::Rounded(rounded)
            }
        };
        Self { kernel, rows, depth, stride: depth, slots }
    }

    pub(super) fn slots(&self) -> &[u32] {
        match &self.slots {
            Slots::Borrowed(numbers) => bits(numbers),
            Slots::Rounded(slots) => slots,
        }
    }
}

/// The bits of numbers.
#[allow(unsafe_code)]
fn bits(numbers: &[f32]) -> &[u32] {
    // SAFETY: f32 and u32 have one size and alignment, and every pattern of bits is a u32.
    unsafe { std::slice::from_raw_parts(numbers.as_ptr().cast(), numbers.len()) }
}

impl Drop for Rows<'_> {
    fn drop(&mut self) {
        if let Slots::Rounded(slots) = &mut self.slots {
            spare::give(std::mem::take(slots));
        }
    }
}
