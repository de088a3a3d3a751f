//! Matrix products whose operands are put into the form that the processor multiplies fastest, once, however many tiles
//! use them.
//!
//! The left operand is [`Rows`], activations: for f32 the numbers as they lie, for bfloat16 a rounded copy. The right one
//! is [`Panels`], made of a stored matrix as it is decoded, in either of two roles: the matrix itself or its transpose.
//! `kernel` says what a processor can multiply, `simd` holds the one tile that all of them share, `portable`, `x86`
//! and `neon` the instructions.
//!
//! Sums run over all of the inner dimension in order, in blocks of fixed size, so that no result depends on how the work
//! is cut or on the number of threads.

mod kernel;
#[cfg(target_arch = "aarch64")]
mod neon;
mod panels;
mod portable;
mod rows;
mod simd;
mod spare;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

use ndarray::{ArrayViewMut2, Axis};
use rayon::prelude::*;

use super::{Cpu, Precision};
pub use panels::{Matrix, Panels};
pub use rows::Rows;

/// Slots that are summed in registers before they are added to the result: so many of a panel stay in the first-level
/// cache.
const DEPTH: usize = 288;
/// Rows of a tile that one thread computes: their slots of [`DEPTH`] stay in the second-level cache.
const TILE_ROWS: usize = 264;
/// The fewest rows that a tile is cut down to, to give every thread work.
const LEAST_ROWS: usize = 32;
/// Panels of a tile.
const TILE_PANELS: usize = 4;
/// Tiles that each thread should find.
const TILES_A_THREAD: usize = 4;

/// Whether products of this precision round their operands to bfloat16 on this processor.
pub fn rounds(precision: Precision) -> bool {
    kernel::Kernel::of(Cpu::current(), precision).numbers == 2
}

/// `c = a b` or `c += a b`, on all threads: `[m, k] x [k, n] -> [m, n]`.
///
/// # Panics
/// When the shapes do not fit, the rows of `c` are not contiguous, or the operands are made for different kernels.
pub fn multiply(c: ArrayViewMut2<f32>, accumulate: bool, a: &Rows<'_>, b: &Panels) {
    assert!(
        a.rows == c.nrows() && a.depth == b.depth && b.columns == c.ncols(),
        "the shapes of a product fit"
    );
    let width = TILE_PANELS * b.kernel.columns;
    let across = c.ncols().div_ceil(width);
    let wanted = TILES_A_THREAD * rayon::current_num_threads();
    let mut height = TILE_ROWS;
    while height > LEAST_ROWS && c.nrows().div_ceil(height) * across < wanted {
        height /= 2;
    }
    let mut tiles = Vec::new();
    let mut below = c;
    for i in 0.. {
        if below.is_empty() {
            break;
        }
        let rows = below.nrows().min(height);
        let (mut right, rest) = below.split_at(Axis(0), rows);
        below = rest;
        for j in 0..across {
            let columns = right.ncols().min(width);
            let (tile, rest) = right.split_at(Axis(1), columns);
            right = rest;
            tiles.push((tile, i * height, j * TILE_PANELS));
        }
    }
    tiles.into_par_iter().for_each(|(tile, row, panel)| multiply_tile(tile, accumulate, a, row, b, panel));
}

/// [`multiply`] on the calling thread alone, for the rows of `a` from `first_row` and the columns of `b` from the panel
/// `first_panel`, as many as `c` has. Of longer panels, the slots that `a` has are used.
#[allow(unsafe_code)]
pub fn multiply_tile(
    mut c: ArrayViewMut2<f32>,
    accumulate: bool,
    a: &Rows<'_>,
    first_row: usize,
    b: &Panels,
    first_panel: usize,
) {
    let kernel = b.kernel;
    let (height, width) = c.dim();
    assert!(std::ptr::eq(a.kernel, kernel), "both operands are made for one kernel");
    assert!(a.depth <= b.depth, "the panels have the slots of the rows");
    assert!(first_row + height <= a.rows && first_panel * kernel.columns + width <= b.columns);
    assert!(c.strides()[1] == 1 || width <= 1, "rows of a product are contiguous");
    let (numbers, stride) = (c.as_mut_ptr(), c.strides()[0]);
    if a.depth == 0 && !accumulate {
        for row in 0..height {
            // SAFETY: a row of `c`, which is borrowed mutably.
            unsafe { numbers.offset(row as isize * stride).write_bytes(0, width) };
        }
    }
    for start in (0..a.depth).step_by(DEPTH) {
        let slots = start..a.depth.min(start + DEPTH);
        for (panel, left) in (0..width).step_by(kernel.columns).enumerate() {
            let columns = kernel.columns.min(width - left);
            let b = &b.panel(first_panel + panel)[start * kernel.columns..];
            for row in (0..height).step_by(kernel.rows()) {
                let below = height.min(row + kernel.rows());
                let a = a.corner(first_row + row..first_row + below, slots.clone());
                // SAFETY: rows `row..below` and columns from `left` on are those of `c`, which is borrowed mutably.
                unsafe {
                    let c = numbers.offset(row as isize * stride).add(left);
                    kernel.tile(a, b, c, stride, columns, accumulate || start > 0);
                }
            }
        }
    }
}
