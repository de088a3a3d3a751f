//! Activations that are kept for later, in half the room where products round them anyway.

use std::ops::Range;

use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

use super::spare::Spare;
use super::{Precision, Real, elementwise};

/// Numbers that one thread rounds at a time.
const CHUNK: usize = 1 << 14;
/// What was kept in earlier steps.
static SPARE: Spare<u16> = Spare::new(1 << 29);

const CONTIGUOUS: &str = "activations are row-major";

/// An array `[rows, columns]` as it was, or rounded to bfloat16.
#[derive(Debug)]
pub enum Stored<T: Real> {
    /// As it was.
    Whole(Array2<T>),
    /// The upper halves of f32, rounded to the nearest.
    Rounded(Vec<u16>),
}

impl<T: Real> Stored<T> {
    /// Keep an array, rounded where products of this precision are.
    pub fn keep(x: Array2<T>, precision: Precision) -> Self {
        if !T::keeps_rounded(precision) {
            return Self::Whole(x);
        }
        let kept = Self::copy(x.view(), precision);
        T::done(x);
        kept
    }

    /// [`Self::keep`] of a copy.
    pub fn copy(x: ArrayView2<T>, precision: Precision) -> Self {
        if !T::keeps_rounded(precision) {
            let mut copy = T::space(x.dim());
            copy.assign(&x);
            return Self::Whole(copy);
        }
        let values = x.to_slice().expect(CONTIGUOUS);
        let mut numbers = SPARE.take(values.len());
        let chunks = numbers.par_chunks_mut(CHUNK).zip(values.par_chunks(CHUNK));
        chunks.for_each(|(numbers, values)| elementwise::round(values, numbers));
        Self::Rounded(numbers)
    }

    /// Bytes that it takes.
    #[cfg(test)]
    pub fn bytes(&self) -> u64 {
        let bytes = match self {
            Self::Whole(x) => x.len() * size_of::<T>(),
            Self::Rounded(numbers) => numbers.len() * size_of::<u16>(),
        };
        bytes as u64
    }

    /// Bytes of a kept number.
    pub fn bytes_a_number(precision: Precision) -> u64 {
        if T::keeps_rounded(precision) { size_of::<u16>() as u64 } else { size_of::<T>() as u64 }
    }

    /// Write the numbers from `first` on, counted row by row, to `out`.
    pub fn read(&self, first: usize, out: &mut [T]) {
        let range = first..first + out.len();
        match self {
            Self::Whole(x) => out.copy_from_slice(&x.as_slice().expect(CONTIGUOUS)[range]),
            Self::Rounded(numbers) => elementwise::unround(&numbers[range], out),
        }
    }

    /// These numbers, counted row by row: where they are, or in `space`.
    pub fn get<'s>(&'s self, range: Range<usize>, space: &'s mut Vec<T>) -> &'s [T] {
        match self {
            Self::Whole(x) => &x.as_slice().expect(CONTIGUOUS)[range],
            Self::Rounded(numbers) => {
                space.resize(range.len(), T::zero());
                elementwise::unround(&numbers[range], space);
                space
            }
        }
    }
}

impl<T: Real> Drop for Stored<T> {
    fn drop(&mut self) {
        match self {
            Self::Whole(x) => T::done(std::mem::take(x)),
            Self::Rounded(numbers) => SPARE.give(std::mem::take(numbers)),
        }
    }
}
