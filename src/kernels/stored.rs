//! Activations that are kept for later, in half the room where products round them anyway.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use ndarray::Array2;
use rayon::prelude::*;

use super::{Precision, Real, elementwise};

/// Numbers that one thread rounds at a time.
const CHUNK: usize = 1 << 14;
/// Memory of arrays that are done with is kept in pieces of a multiple of this, to fit others of nearly the same size.
const GRAIN: usize = 1 << 14;
/// Numbers that are kept so, at most.
const MOST_SPARE: usize = 1 << 29;

const CONTIGUOUS: &str = "activations are row-major";

/// An array `[rows, columns]` as it was, or rounded to bfloat16.
#[derive(Debug)]
pub enum Stored<T> {
    /// As it was.
    Whole(Array2<T>),
    /// The upper halves of f32, rounded to the nearest.
    Rounded {
        /// Row by row, and whatever behind.
        numbers: Vec<u16>,
        /// How many there are.
        length: usize,
    },
}

impl<T: Real> Stored<T> {
    /// Keep an array, rounded where products of this precision are.
    pub fn keep(x: Array2<T>, precision: Precision) -> Self {
        if !T::keeps_rounded(precision) {
            return Self::Whole(x);
        }
        let values = x.as_slice().expect(CONTIGUOUS);
        let mut numbers = take(values.len());
        let chunks = numbers.par_chunks_mut(CHUNK).zip(values.par_chunks(CHUNK));
        chunks.for_each(|(numbers, values)| elementwise::round(values, &mut numbers[..values.len()]));
        Self::Rounded { numbers, length: values.len() }
    }

    /// Bytes of a kept number.
    pub fn bytes_a_number(precision: Precision) -> u64 {
        if T::keeps_rounded(precision) { size_of::<u16>() as u64 } else { size_of::<T>() as u64 }
    }

    /// Numbers that are kept.
    pub fn len(&self) -> usize {
        match self {
            Self::Whole(x) => x.len(),
            Self::Rounded { length, .. } => *length,
        }
    }

    /// These numbers, counted row by row: where they are, or in `space`.
    pub fn get<'s>(&'s self, range: Range<usize>, space: &'s mut Vec<T>) -> &'s [T] {
        match self {
            Self::Whole(x) => &x.as_slice().expect(CONTIGUOUS)[range],
            Self::Rounded { numbers, .. } => {
                space.resize(range.len(), T::zero());
                elementwise::unround(&numbers[range], space);
                space
            }
        }
    }
}

impl<T> Drop for Stored<T> {
    fn drop(&mut self) {
        if let Self::Rounded { numbers, .. } = self {
            give(std::mem::take(numbers));
        }
    }
}

/// Arrays that are done with: each step keeps as many again, and new memory must first be emptied by the system.
static SPARE: Mutex<Vec<Vec<u16>>> = Mutex::new(Vec::new());

/// At least so many numbers, of any value.
fn take(length: usize) -> Vec<u16> {
    let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
    let fits = |numbers: &Vec<u16>| numbers.len() >= length && numbers.len() <= 2 * length.max(GRAIN);
    let found = (0..spare.len()).filter(|&i| fits(&spare[i])).min_by_key(|&i| spare[i].len());
    if let Some(found) = found {
        return spare.swap_remove(found);
    }
    // Steps differ in their tokens: what is too small now will not be wanted soon.
    spare.pop();
    vec![0; length.next_multiple_of(GRAIN)]
}

fn give(numbers: Vec<u16>) {
    let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
    if spare.iter().map(Vec::len).sum::<usize>() + numbers.len() <= MOST_SPARE {
        spare.push(numbers);
    }
}
