//! The blocking of a product: tiles for the threads, blocks of k for the caches.

use ndarray::{ArrayViewMut2, Axis};
use rayon::prelude::*;

use super::packed_lhs::PackedLhs;
use super::packed_rhs::PackedRhs;

/// Slots of k that a micro-kernel sums in registers before it adds them to C: that much of a panel stays in
/// the L1 cache.
const KC: usize = 288;
/// Rows of a thread's tile: [`KC`] slots of each stay in the L2 cache.
const MC: usize = 264;
/// Tiles become no lower than this to give every thread work.
const MIN_MC: usize = 32;
/// Panels of a thread's tile.
const TILE_PANELS: usize = 4;
/// Tiles wanted for each thread.
const TILES_PER_THREAD: usize = 4;

/// `c = a b` or `c += a b` on all threads: `[m, k] x [k, n] -> [m, n]`.
///
/// # Panics
/// When the shapes do not fit, a row of `c` is not contiguous, or the operands are packed for different
/// micro-kernels.
pub fn multiply(c: ArrayViewMut2<f32>, accumulate: bool, a: &PackedLhs<'_>, b: &PackedRhs) {
    assert!(
        a.rows == c.nrows() && a.depth == b.depth && b.columns == c.ncols(),
        "the shapes of a product fit"
    );
    let width = TILE_PANELS * b.kernel.nr;
    let across = c.ncols().div_ceil(width);
    let wanted = TILES_PER_THREAD * rayon::current_num_threads();
    let mut height = MC;
    while height > MIN_MC && c.nrows().div_ceil(height) * across < wanted {
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

/// [`multiply`] on the calling thread alone, of the rows of `a` from `first_row` on and the columns of `b`
/// from the panel `first_panel` on, as many as `c` has. `b` may have more slots than `a`; the first ones are
/// used.
///
/// # Panics
/// As [`multiply`].
#[allow(unsafe_code)]
pub fn multiply_tile(
    mut c: ArrayViewMut2<f32>,
    accumulate: bool,
    a: &PackedLhs<'_>,
    first_row: usize,
    b: &PackedRhs,
    first_panel: usize,
) {
    let kernel = b.kernel;
    let (height, width) = c.dim();
    assert!(std::ptr::eq(a.kernel, kernel), "both operands are packed for one micro-kernel");
    assert!(a.depth <= b.depth, "the panels have the slots of the rows");
    assert!(first_row + height <= a.rows && first_panel * kernel.nr + width <= b.columns);
    assert!(c.strides()[1] == 1 || width <= 1, "rows of a product are contiguous");
    let (values, stride) = (c.as_mut_ptr(), c.strides()[0]);
    if a.depth == 0 && !accumulate {
        for row in 0..height {
            // SAFETY: a row of `c`, which is borrowed mutably.
            unsafe { values.offset(row as isize * stride).write_bytes(0, width) };
        }
    }
    for start in (0..a.depth).step_by(KC) {
        let slots = start..a.depth.min(start + KC);
        for (panel, left) in (0..width).step_by(kernel.nr).enumerate() {
            let columns = kernel.nr.min(width - left);
            let b = &b.panel(first_panel + panel)[start * kernel.nr..];
            for row in (0..height).step_by(kernel.mr()) {
                let below = height.min(row + kernel.mr());
                let a = a.block(first_row + row..first_row + below, slots.clone());
                // SAFETY: rows `row..below` and columns from `left` on are those of `c`, which is borrowed
                // mutably.
                unsafe {
                    let c = values.offset(row as isize * stride).add(left);
                    kernel.run(a, b, c, stride, columns, accumulate || start > 0);
                }
            }
        }
    }
}
