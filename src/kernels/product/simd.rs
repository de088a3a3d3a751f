//! The arithmetic of matrix products, one type an instruction set, and the tile that all of them share.
//!
//! Operands are slots of 32 bits: one f32, or two neighbouring bfloat16 of which a product sums both at once. A slot of
//! a row times a vector of slots, one a column of the result, added to a vector of f32 sums: that is all there is.

#![allow(unsafe_code)]

use std::array::from_fn;

/// A few sums that are computed at once.
pub(super) trait Simd {
    /// A vector of slots or of f32 sums.
    type Vector: Copy;
    /// Slots of a vector.
    const LANES: usize;

    /// # Safety
    /// The processor must have the instructions, here and below.
    unsafe fn zero() -> Self::Vector;
    /// # Safety
    /// `from` must have [`Self::LANES`] slots.
    unsafe fn load(from: *const u32) -> Self::Vector;
    /// # Safety
    /// `from` must have one slot.
    unsafe fn splat(from: *const u32) -> Self::Vector;
    /// `sum + a b`.
    ///
    /// # Safety
    /// See [`Self::zero`].
    unsafe fn multiply_add(sum: Self::Vector, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// Store the sums, added to what stands there when `accumulate`.
    ///
    /// # Safety
    /// `to` must have [`Self::LANES`] numbers.
    unsafe fn store(to: *mut f32, sums: Self::Vector, accumulate: bool);
    /// Add to the sums of rows whose slots are neighbours the products of their first few, and say how many: a multiple of
    /// [`Self::LANES`] where the processor can multiply by one lane of a vector, and so need not splat it; else 0.
    ///
    /// # Safety
    /// Each row must have `depth` slots, and `b` as many times V vectors.
    #[inline(always)]
    unsafe fn by_lanes<const R: usize, const V: usize>(
        _sums: &mut [[Self::Vector; V]; R],
        _rows: [*const u32; R],
        _b: *const u32,
        _depth: usize,
    ) -> usize {
        0
    }
    /// Have the cache line of `at` near by the time it is stored to.
    #[inline(always)]
    fn expect_store(_at: *const f32) {}
}

/// Operands of one tile: where they begin and how far their rows are apart.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    /// Slots that are summed over.
    pub depth: usize,
    /// Rows of slots, each of `depth`.
    pub a: *const u32,
    /// From one row of `a` to the next.
    pub a_stride: isize,
    /// From one slot of a row of `a` to the next.
    pub a_step: isize,
    /// A panel: for each slot of the sum, one slot a column.
    pub b: *const u32,
    /// The result, row by row.
    pub c: *mut f32,
    /// From one row of `c` to the next.
    pub c_stride: isize,
    /// Whether to add to `c`.
    pub accumulate: bool,
}

/// `c = a b` or `c += a b` for `R` rows and `V` vectors of columns.
///
/// # Safety
/// The processor must have the instructions of `S`, and the operands the sizes that `tile`, `R` and `V` say.
#[inline(always)]
pub(super) unsafe fn tile<S: Simd, const R: usize, const V: usize>(tile: &Tile) {
    // SAFETY: `a` is read in R rows of `depth` slots, `b` in `depth` rows of V vectors, `c` in R rows of V vectors.
    unsafe {
        let mut sums = [[S::zero(); V]; R];
        let rows: [*const u32; R] = from_fn(|i| tile.a.offset(i as isize * tile.a_stride));
        for i in 0..R {
            for j in 0..V {
                S::expect_store(
                    tile.c.wrapping_offset(i as isize * tile.c_stride).wrapping_add(j * S::LANES),
                );
            }
        }
        let done = if tile.a_step == 1 { S::by_lanes(&mut sums, rows, tile.b, tile.depth) } else { 0 };
        let mut b = tile.b.add(done * V * S::LANES);
        let mut at = done as isize * tile.a_step;
        for _ in done..tile.depth {
            // What is fewer is held in registers while the others come one by one.
            if R < V {
                let held: [S::Vector; R] = from_fn(|i| S::splat(rows[i].offset(at)));
                for j in 0..V {
                    let column = S::load(b.add(j * S::LANES));
                    for (sums, row) in sums.iter_mut().zip(held) {
                        sums[j] = S::multiply_add(sums[j], row, column);
                    }
                }
            } else {
                let held: [S::Vector; V] = from_fn(|j| S::load(b.add(j * S::LANES)));
                for (sums, row) in sums.iter_mut().zip(rows) {
                    let row = S::splat(row.offset(at));
                    for (sum, column) in sums.iter_mut().zip(held) {
                        *sum = S::multiply_add(*sum, row, column);
                    }
                }
            }
            at += tile.a_step;
            b = b.add(V * S::LANES);
        }
        for (i, sums) in sums.into_iter().enumerate() {
            for (j, sum) in sums.into_iter().enumerate() {
                S::store(tile.c.offset(i as isize * tile.c_stride).add(j * S::LANES), sum, tile.accumulate);
            }
        }
    }
}
