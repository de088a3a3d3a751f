//! The body of every micro-kernel, generic over the instruction set.
//!
//! Operands are slots of 32 bits: one f32, or two bfloat16 that are consecutive along k and are multiplied
//! and summed together. A slot of a row of A, broadcast, times a vector of slots of B (one for each column of
//! C) is added to a vector of f32 sums. Nothing else is computed.

#![allow(unsafe_code)]

use std::array::from_fn;

/// The vector instructions that a micro-kernel needs.
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
    /// Stores the sums, added to the values at `to` when `accumulate`.
    ///
    /// # Safety
    /// `to` must have [`Self::LANES`] values.
    unsafe fn store(to: *mut f32, sums: Self::Vector, accumulate: bool);
    /// For rows whose slots are contiguous: add the products of the first slots to the sums, and return how
    /// many slots that was. A multiple of [`Self::LANES`] on processors that multiply by one lane of a vector
    /// and so need no splat; 0 on others.
    ///
    /// # Safety
    /// Each row must have `depth` slots, and `b` as many times V vectors.
    #[inline(always)]
    unsafe fn add_by_lanes<const R: usize, const V: usize>(
        _sums: &mut [[Self::Vector; V]; R],
        _rows: [*const u32; R],
        _b: *const u32,
        _depth: usize,
    ) -> usize {
        0
    }
    /// Prefetch the cache line of `at`, which is stored to at the end of the tile.
    #[inline(always)]
    fn prefetch_store(_at: *const f32) {}
}

/// Operands of one tile. Strides count slots of `a` and values of `c`.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    /// Slots along k.
    pub depth: usize,
    /// The first slot of the first row.
    pub a: *const u32,
    /// From one row of `a` to the next.
    pub a_row_stride: isize,
    /// From one slot of a row of `a` to the next.
    pub a_slot_stride: isize,
    /// A panel: for each slot of k, one slot for each column.
    pub b: *const u32,
    /// The first value of the result, whose rows are contiguous.
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
    // SAFETY: `a` is read in R rows of `depth` slots, `b` in `depth` rows of V vectors, `c` in R rows of V
    // vectors.
    unsafe {
        let mut sums = [[S::zero(); V]; R];
        let rows: [*const u32; R] = from_fn(|i| tile.a.offset(i as isize * tile.a_row_stride));
        for i in 0..R {
            for j in 0..V {
                S::prefetch_store(
                    tile.c.wrapping_offset(i as isize * tile.c_stride).wrapping_add(j * S::LANES),
                );
            }
        }
        let done =
            if tile.a_slot_stride == 1 { S::add_by_lanes(&mut sums, rows, tile.b, tile.depth) } else { 0 };
        let mut b = tile.b.add(done * V * S::LANES);
        let mut at = done as isize * tile.a_slot_stride;
        for _ in done..tile.depth {
            // The fewer of the two stay in registers while the others are loaded one by one.
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
            at += tile.a_slot_stride;
            b = b.add(V * S::LANES);
        }
        for (i, sums) in sums.into_iter().enumerate() {
            for (j, sum) in sums.into_iter().enumerate() {
                S::store(tile.c.offset(i as isize * tile.c_stride).add(j * S::LANES), sum, tile.accumulate);
            }
        }
    }
}
