//! Memory of operands that are done with, for those to come: to ask the system for megabytes anew for each product would
//! cost as much as to fill them.

use std::cell::RefCell;

/// Buffers that each thread keeps.
const KEPT: usize = 8;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u32>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer of this length that holds anything.
pub(super) fn take(length: usize) -> Vec<u32> {
    let mut buffer = SPARE.with_borrow_mut(|spare| {
        // The smallest that is large enough, else the largest.
        let fitting = (0..spare.len()).filter(|&i| spare[i].capacity() >= length);
        let best = fitting
            .min_by_key(|&i| spare[i].capacity())
            .or_else(|| (0..spare.len()).max_by_key(|&i| spare[i].capacity()));
        best.map_or_else(Vec::new, |i| spare.swap_remove(i))
    });
    if buffer.capacity() < length {
        buffer = Vec::new();
    }
    buffer.resize(length, 0);
    buffer
}

/// Keep a buffer for the next one who needs one.
pub(super) fn give(buffer: Vec<u32>) {
    // A thread that ends has nothing to come.
    let _ = SPARE.try_with(|spare| {
        let mut spare = spare.borrow_mut();
        if spare.len() < KEPT {
            spare.push(buffer);
        }
    });
}
