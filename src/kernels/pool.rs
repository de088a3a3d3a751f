//! Buffers for reuse. Every training step needs the same large arrays again, and fresh memory from the system
//! costs a page fault for each page: as much as filling it.
//!
//! There are two pools, because their users differ. Whole activations are few and large, and are allocated
//! and freed on different threads: they share a [`SharedPool`] behind a lock. Packed operands are made by
//! thousands inside parallel loops: each thread has a pool of its own, without a lock.
//!
//! A buffer from a pool holds arbitrary numbers.

use std::cell::RefCell;
use std::sync::{Mutex, PoisonError};

/// Capacities are multiples of this many numbers, so that a buffer fits others of nearly the same size.
const GRAIN: usize = 1 << 14;
/// Buffers that each thread keeps for packed operands.
const LOCAL_BUFFERS: usize = 8;

/// Free buffers, shared by all threads.
#[derive(Debug)]
pub struct SharedPool<T> {
    buffers: Mutex<Vec<Vec<T>>>,
    /// The limit on the numbers in all free buffers together.
    max_numbers: usize,
}

impl<T: Clone + Default> SharedPool<T> {
    /// A pool that keeps at most this many numbers.
    pub const fn new(max_numbers: usize) -> Self {
        Self { buffers: Mutex::new(Vec::new()), max_numbers }
    }

    /// A buffer of this length.
    pub fn take(&self, length: usize) -> Vec<T> {
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |size: usize| size >= length && size <= 2 * length.max(GRAIN);
        let fitting = (0..buffers.len()).filter(|&i| fits(buffers[i].capacity()));
        let mut buffer = match fitting.min_by_key(|&i| buffers[i].capacity()) {
            Some(found) => buffers.swap_remove(found),
            None => {
                // Steps differ in their tokens: a buffer that does not fit now may not be wanted again soon.
                buffers.pop();
                vec![T::default(); length.next_multiple_of(GRAIN)]
            }
        };
        drop(buffers);
        buffer.resize(length, T::default());
        buffer
    }

    /// Returns a buffer for reuse.
    pub fn give(&self, buffer: Vec<T>) {
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        if buffers.iter().map(Vec::capacity).sum::<usize>() + buffer.capacity() <= self.max_numbers {
            buffers.push(buffer);
        }
    }

    /// Frees all buffers: what comes next needs others.
    pub fn clear(&self) {
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

thread_local! {
    static LOCAL: RefCell<Vec<Vec<u32>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer of this length from the calling thread's pool.
pub fn take_local(length: usize) -> Vec<u32> {
    let mut buffer = LOCAL.with_borrow_mut(|buffers| {
        // The smallest that is large enough, else the largest.
        let fitting = (0..buffers.len()).filter(|&i| buffers[i].capacity() >= length);
        let best = fitting
            .min_by_key(|&i| buffers[i].capacity())
            .or_else(|| (0..buffers.len()).max_by_key(|&i| buffers[i].capacity()));
        best.map_or_else(Vec::new, |i| buffers.swap_remove(i))
    });
    if buffer.capacity() < length {
        buffer = Vec::new();
    }
    buffer.resize(length, 0);
    buffer
}

/// Returns a buffer to the calling thread's pool.
pub fn give_local(buffer: Vec<u32>) {
    // A thread that is ending has no pool any more.
    let _ = LOCAL.try_with(|buffers| {
        let mut buffers = buffers.borrow_mut();
        if buffers.len() < LOCAL_BUFFERS {
            buffers.push(buffer);
        }
    });
}
