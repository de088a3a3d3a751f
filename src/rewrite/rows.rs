//! The rows of a matrix in blocks: computed in parallel, handed on in order.

use std::ops::Range;

use rayon::prelude::*;

use crate::Result;

/// Values that one thread computes at a time; at least a row.
const BLOCK_VALUES: usize = 1 << 16;
/// Blocks in memory at a time, for each thread.
const BLOCKS_PER_THREAD: usize = 8;

/// Computes blocks of the rows of a `[rows, cols]` matrix with `compute`, in parallel, and passes each result
/// to `take` in the order of the rows. The blocks do not depend on the number of threads.
///
/// # Errors
/// The first error in the order of the rows, of `compute` or of `take`.
pub fn in_blocks<T: Send>(
    [rows, cols]: [usize; 2],
    compute: impl Fn(Range<usize>) -> Result<T> + Sync,
    mut take: impl FnMut(T) -> Result<()>,
) -> Result<()> {
    let block = (BLOCK_VALUES / cols.max(1)).max(1);
    let starts: Vec<usize> = (0..rows).step_by(block).collect();
    for batch in starts.chunks(BLOCKS_PER_THREAD * rayon::current_num_threads()) {
        let computed: Vec<Result<T>> =
            batch.par_iter().map(|&start| compute(start..(start + block).min(rows))).collect();
        computed.into_iter().try_for_each(|block| take(block?))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_come_in_order_and_cover_every_row() {
        for (rows, cols) in [(1000, 1 << 10), (3, 1 << 20), (5, 1), (0, 7)] {
            let mut next = 0;
            in_blocks([rows, cols], Ok, |block| {
                assert!(block.start == next && (block.len() == 1 || block.len() * cols <= BLOCK_VALUES));
                next = block.end;
                Ok(())
            })
            .unwrap();
            assert_eq!(next, rows);
        }
    }
}
