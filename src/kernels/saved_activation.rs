//! Activations saved for the backward pass, in half the memory where products round them anyway.

use std::ops::Range;

use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

use super::bf16;
use super::pool::SharedPool;
use super::precision::Precision;
use super::real::Real;

/// Numbers that one thread rounds at a time.
const CHUNK: usize = 1 << 14;
/// Memory of what earlier steps saved: at most 1 GiB.
static POOL: SharedPool<u16> = SharedPool::new(1 << 29);

/// Frees the memory of what earlier steps saved.
pub fn clear_pool() {
    POOL.clear();
}

const CONTIGUOUS: &str = "activations are row-major";

/// An array `[rows, columns]` as it was, or rounded to bfloat16. Positions in it count row by row.
#[derive(Debug)]
pub enum SavedActivation<T: Real> {
    /// As it was.
    Full(Array2<T>),
    /// Rounded to bfloat16.
    Bf16(Vec<u16>),
}

impl<T: Real> SavedActivation<T> {
    /// Saves an array, rounded where products of this precision round it.
    pub fn save(x: Array2<T>, precision: Precision) -> Self {
        if !T::saves_bf16(precision) {
            return Self::Full(x);
        }
        let saved = Self::save_copy(x.view(), precision);
        T::recycle(x);
        saved
    }

    /// [`Self::save`] of a copy.
    pub fn save_copy(x: ArrayView2<T>, precision: Precision) -> Self {
        if !T::saves_bf16(precision) {
            let mut copy = T::pooled(x.dim());
            copy.assign(&x);
            return Self::Full(copy);
        }
        let values = x.to_slice().expect(CONTIGUOUS);
        let mut rounded = POOL.take(values.len());
        let chunks = rounded.par_chunks_mut(CHUNK).zip(values.par_chunks(CHUNK));
        chunks.for_each(|(rounded, values)| bf16::to_bf16(values, rounded));
        Self::Bf16(rounded)
    }

    /// The bytes that it takes.
    #[cfg(test)]
    pub fn bytes(&self) -> u64 {
        let bytes = match self {
            Self::Full(x) => x.len() * size_of::<T>(),
            Self::Bf16(rounded) => rounded.len() * size_of::<u16>(),
        };
        bytes as u64
    }

    /// Bytes of a saved number.
    pub fn bytes_per_value(precision: Precision) -> u64 {
        if T::saves_bf16(precision) { size_of::<u16>() as u64 } else { size_of::<T>() as u64 }
    }

    /// Writes the numbers from position `first` on to `out`.
    pub fn read(&self, first: usize, out: &mut [T]) {
        let range = first..first + out.len();
        match self {
            Self::Full(x) => out.copy_from_slice(&x.as_slice().expect(CONTIGUOUS)[range]),
            Self::Bf16(rounded) => bf16::from_bf16(&rounded[range], out),
        }
    }

    /// A copy as an array of rows of this width.
    pub fn to_array(&self, width: usize) -> Array2<T> {
        let numbers = match self {
            Self::Full(x) => x.len(),
            Self::Bf16(rounded) => rounded.len(),
        };
        let mut copy = T::pooled((numbers / width, width));
        let chunks = copy.as_slice_mut().expect(CONTIGUOUS).par_chunks_mut(CHUNK);
        chunks.enumerate().for_each(|(i, chunk)| self.read(i * CHUNK, chunk));
        copy
    }

    /// The numbers at these positions: where they are, or widened into `space`.
    pub fn get<'s>(&'s self, range: Range<usize>, space: &'s mut Vec<T>) -> &'s [T] {
        match self {
            Self::Full(x) => &x.as_slice().expect(CONTIGUOUS)[range],
            Self::Bf16(rounded) => {
                space.resize(range.len(), T::zero());
                bf16::from_bf16(&rounded[range], space);
                space
            }
        }
    }
}

impl<T: Real> Drop for SavedActivation<T> {
    fn drop(&mut self) {
        match self {
            Self::Full(x) => T::recycle(std::mem::take(x)),
            Self::Bf16(rounded) => POOL.give(std::mem::take(rounded)),
        }
    }
}
