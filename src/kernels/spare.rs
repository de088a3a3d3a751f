//! Memory of arrays that are done with: each step makes as many again, and what the system gives must first be emptied,
//! page by page.

use std::sync::{Mutex, PoisonError};

/// Buffers are of a multiple of so many numbers, to fit others of nearly the same size.
const GRAIN: usize = 1 << 14;

/// Buffers between uses.
#[derive(Debug)]
pub struct Spare<T> {
    buffers: Mutex<Vec<Vec<T>>>,
    /// Numbers that are kept, at most.
    most: usize,
}

impl<T: Clone + Default> Spare<T> {
    /// Keeps at most so many numbers.
    pub const fn new(most: usize) -> Self {
        Self { buffers: Mutex::new(Vec::new()), most }
    }

    /// A buffer of this length that holds anything.
    pub fn take(&self, length: usize) -> Vec<T> {
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |size: usize| size >= length && size <= 2 * length.max(GRAIN);
        let fitting = (0..buffers.len()).filter(|&i| fits(buffers[i].capacity()));
        let mut buffer = match fitting.min_by_key(|&i| buffers[i].capacity()) {
            Some(found) => buffers.swap_remove(found),
            None => {
                // Steps differ in their tokens: what does not fit now may not be wanted soon.
                buffers.pop();
                vec![T::default(); length.next_multiple_of(GRAIN)]
            }
        };
        drop(buffers);
        buffer.resize(length, T::default());
        buffer
    }

    /// Keep a buffer for the next who needs one.
    pub fn give(&self, buffer: Vec<T>) {
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        if buffers.iter().map(Vec::capacity).sum::<usize>() + buffer.capacity() <= self.most {
            buffers.push(buffer);
        }
    }
}
