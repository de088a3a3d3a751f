//! The micro-kernel of an instruction set behind a checked interface: the size of its tile, how its operands
//! are packed, and the tile itself.

use std::marker::PhantomData;

use ndarray::ArrayViewMut2;

use super::simd::Tile;

/// The largest tile of all micro-kernels, `mr * nr` numbers.
const MAX_TILE: usize = 6 * 64;

/// Computes a tile of `mr x nr` numbers of a product.
///
/// Operands are arrays of 32-bit slots: see [`simd`](super::simd). Each number of a product is its own sum
/// over k in one order, whichever tile it falls in, so tiling never shows in the result.
pub(super) struct MicroKernel {
    /// Consecutive values of k in a slot: one f32, or two bfloat16 with the first in the low half.
    pub values_per_slot: usize,
    /// Columns of a tile, and of a panel of the right operand.
    pub nr: usize,
    /// The tile of one row, of two rows, and so on to `mr` rows.
    pub tiles: &'static [unsafe fn(&Tile)],
    /// [`Self::pack`], for a processor with the instructions.
    pub pack_row: unsafe fn(&[f32], &mut [u32]),
    /// [`Self::interleave`], for a processor with the instructions.
    pub interleave_rows: unsafe fn(&[f32], Option<&[f32]>, &mut [u32]),
    /// For a processor with the instructions: transpose 16 rows of 16 slots, `depth` apart, into lines
    /// `stride` apart.
    pub transpose_16x16: unsafe fn(rows: *const u32, depth: usize, lines: *mut u32, stride: usize),
}

/// Rows and columns of the square that [`MicroKernel::transpose_16x16`] transposes.
pub(super) const SQUARE: usize = 16;

/// Some slots of some rows of the left operand.
#[derive(Clone, Copy)]
pub(super) struct LhsBlock<'x> {
    first: *const u32,
    row_stride: isize,
    slot_stride: isize,
    rows: usize,
    depth: usize,
    operand: PhantomData<&'x u32>,
}

impl LhsBlock<'_> {
    /// A block of `rows` rows of `depth` slots. Strides count slots: from one row to the next, and from one
    /// slot of a row to the next.
    ///
    /// # Safety
    /// All slots that the strides lead to from `first` must be readable for the lifetime of the block.
    #[allow(unsafe_code)]
    pub unsafe fn new(
        first: *const u32,
        [row_stride, slot_stride]: [isize; 2],
        [rows, depth]: [usize; 2],
    ) -> Self {
        Self { first, row_stride, slot_stride, rows, depth, operand: PhantomData }
    }
}

impl MicroKernel {
    /// Rows of the largest tile.
    pub fn mr(&self) -> usize {
        self.tiles.len()
    }

    /// `c = a b` or `c += a b`: `a` has the rows of `c`; `b` begins with a panel of `a`'s depth and
    /// [`Self::nr`] columns, of which `c` has the first `columns`.
    ///
    /// # Safety
    /// `c` must point to `a`'s rows of `columns` numbers, `c_stride` apart, that nothing else refers to; to
    /// accumulate, the numbers must be initialized.
    ///
    /// # Panics
    /// When `b` is shorter than that, or `c` has more rows or columns than a tile.
    #[allow(unsafe_code)]
    pub unsafe fn run(
        &self,
        a: LhsBlock<'_>,
        b: &[u32],
        c: *mut f32,
        c_stride: isize,
        columns: usize,
        accumulate: bool,
    ) {
        assert!(a.rows <= self.mr() && columns <= self.nr && b.len() >= a.depth * self.nr);
        let run = self.tiles[a.rows - 1];
        let mut tile = Tile {
            depth: a.depth,
            a: a.first,
            a_row_stride: a.row_stride,
            a_slot_stride: a.slot_stride,
            b: b.as_ptr(),
            c,
            c_stride,
            accumulate,
        };
        if columns == self.nr {
            // SAFETY: `select` gave this kernel for a processor that has its instructions; `a` promises its
            // slots, `b` was just checked, and `c` is the caller's promise.
            unsafe { run(&tile) };
            return;
        }
        let mut whole = [0.0f32; MAX_TILE];
        assert!(a.rows * self.nr <= MAX_TILE);
        (tile.c, tile.c_stride, tile.accumulate) = (whole.as_mut_ptr(), self.nr as isize, false);
        // SAFETY: as above, and `whole` has the rows of a tile one after another.
        unsafe { run(&tile) };
        for (i, sums) in whole.chunks_exact(self.nr).take(a.rows).enumerate() {
            for (j, sum) in sums[..columns].iter().enumerate() {
                // SAFETY: the caller's promise.
                unsafe {
                    let c = c.offset(i as isize * c_stride).add(j);
                    c.write(if accumulate { *c + sum } else { *sum });
                }
            }
        }
    }

    /// A row of values as slots along k, the last one padded with zero.
    ///
    /// # Panics
    /// When `slots` has another length than that.
    #[allow(unsafe_code)]
    pub fn pack(&self, row: &[f32], slots: &mut [u32]) {
        assert_eq!(slots.len(), row.len().div_ceil(self.values_per_slot));
        // SAFETY: `select` gave this kernel for a processor that has its instructions, here and below.
        unsafe { (self.pack_row)(row, slots) }
    }

    /// Transposes: rows of slots, one after another, become the columns of `lines`.
    ///
    /// # Panics
    /// When `rows` has too few slots, or the slots of a line are not contiguous.
    #[allow(unsafe_code)]
    pub fn transpose(&self, rows: &[u32], mut lines: ArrayViewMut2<u32>) {
        let (depth, columns) = lines.dim();
        assert!(rows.len() >= columns * depth && (lines.strides()[1] == 1 || columns < 2));
        assert!(lines.strides()[0] >= columns as isize);
        let whole = if columns == SQUARE { depth - depth % SQUARE } else { 0 };
        let stride = lines.strides()[0].unsigned_abs();
        for k in (0..whole).step_by(SQUARE) {
            // SAFETY: there are 16 rows of `depth` slots with 16 slots from `k` on, and as many lines of 16;
            // `select` gave this kernel for a processor that has its instructions.
            unsafe {
                (self.transpose_16x16)(
                    rows.as_ptr().add(k),
                    depth,
                    lines.as_mut_ptr().add(k * stride),
                    stride,
                );
            }
        }
        for k in whole..depth {
            lines.row_mut(k).iter_mut().enumerate().for_each(|(i, slot)| *slot = rows[i * depth + k]);
        }
    }

    /// Consecutive rows of k as one line of slots, a slot for each column: one row of f32, or two of
    /// bfloat16, whose second may be missing.
    ///
    /// # Panics
    /// When the rows have other lengths than `slots`.
    #[allow(unsafe_code)]
    pub fn interleave(&self, first: &[f32], second: Option<&[f32]>, slots: &mut [u32]) {
        assert!(first.len() == slots.len() && second.is_none_or(|second| second.len() == slots.len()));
        // SAFETY: see above.
        unsafe { (self.interleave_rows)(first, second, slots) }
    }
}
