//! What an instruction set can multiply: the shape of its tile, the form of its operands, and the tile itself behind
//! lengths that are checked.

use ndarray::ArrayViewMut2;

#[cfg(target_arch = "aarch64")]
use super::neon;
use super::portable;
use super::rows::Corner;
use super::simd::Tile;
#[cfg(target_arch = "x86_64")]
use super::x86;
use crate::kernels::{Cpu, Precision};

/// The most numbers that a tile gives, over all kernels.
const MOST: usize = 6 * 64;

/// One instruction set's tile. Each number of a product is a sum of its own, in one order, whatever tile it falls in: so
/// the cut into tiles never shows in the result.
pub(super) struct Kernel {
    /// Neighbours of the sum that a slot holds: one f32, or two bfloat16, the first in the low half.
    pub numbers: usize,
    /// Columns of a tile.
    pub columns: usize,
    /// The tile of one row, of two rows, and so on.
    pub tiles: &'static [unsafe fn(&Tile)],
    /// [`Self::slots`], for a processor with the instructions.
    pub make_slots: unsafe fn(&[f32], &mut [u32]),
    /// [`Self::stacked`], for a processor with the instructions.
    pub make_stacked: unsafe fn(&[f32], Option<&[f32]>, &mut [u32]),
    /// For a processor with the instructions: turn 16 rows of 16 slots, `depth` apart, into lines `stride` apart.
    pub turn_16: unsafe fn(rows: *const u32, depth: usize, lines: *mut u32, stride: usize),
}

/// Slots that [`Kernel::turn_16`] turns in either direction.
const TURNED: usize = 16;

impl Kernel {
    /// The best kernel of this level. Products of bfloat16 are f32 products where the processor has none.
    ///
    /// # Panics
    /// When the processor has no such level.
    pub fn of(cpu: Cpu, precision: Precision) -> &'static Self {
        assert!(cpu <= Cpu::detected());
        match (cpu, precision) {
            #[cfg(target_arch = "x86_64")]
            (Cpu::Avx512bf16, Precision::Bf16) => &x86::AVX512_BF16,
            #[cfg(target_arch = "x86_64")]
            (Cpu::Avx512bf16 | Cpu::Avx512, _) => &x86::AVX512,
            #[cfg(target_arch = "x86_64")]
            (Cpu::Avx2, _) => &x86::AVX2,
            #[cfg(target_arch = "aarch64")]
            (Cpu::Neon, _) => &neon::F32,
            (Cpu::Portable, _) => &portable::F32,
        }
    }

    /// Rows of the largest tile.
    pub fn rows(&self) -> usize {
        self.tiles.len()
    }

    /// `c = a b` or `c += a b`: `a` has the rows of `c`; `b` begins with a panel of as many slots of each of
    /// [`Self::columns`] columns, of which the first are those of `c`.
    ///
    /// # Safety
    /// `c` must point to `a.rows` rows of `columns` numbers, `c_stride` apart, that nothing else refers to; to accumulate,
    /// the numbers must be there.
    ///
    /// # Panics
    /// When `b` is shorter than that, or there are more rows or columns than a tile has.
    #[allow(unsafe_code)]
    pub unsafe fn tile(
        &self,
        a: Corner<'_>,
        b: &[u32],
        c: *mut f32,
        c_stride: isize,
        columns: usize,
        accumulate: bool,
    ) {
        assert!(a.rows <= self.rows() && columns <= self.columns && b.len() >= a.depth * self.columns);
        let run = self.tiles[a.rows - 1];
        let mut tile = Tile {
            depth: a.depth,
            a: a.first(),
            a_stride: a.stride,
            a_step: a.step,
            b: b.as_ptr(),
            c,
            c_stride,
            accumulate,
        };
        if columns == self.columns {
            // SAFETY: `of` gave this kernel for a processor that has its instructions; `a` has the rows and slots that
            // it says, `b` was just checked, and `c` is the caller's promise.
            unsafe { run(&tile) };
            return;
        }
        let mut whole = [0.0f32; MOST];
        assert!(a.rows * self.columns <= MOST);
        (tile.c, tile.c_stride, tile.accumulate) = (whole.as_mut_ptr(), self.columns as isize, false);
        // SAFETY: as above, and `whole` has the rows of a tile one behind another.
        unsafe { run(&tile) };
        for (i, sums) in whole.chunks_exact(self.columns).take(a.rows).enumerate() {
            for (j, sum) in sums[..columns].iter().enumerate() {
                // SAFETY: the caller's promise.
                unsafe {
                    let c = c.offset(i as isize * c_stride).add(j);
                    c.write(if accumulate { *c + sum } else { *sum });
                }
            }
        }
    }

    /// A row of numbers as slots, the last one filled up with zero.
    ///
    /// # Panics
    /// When `slots` has another length than that.
    #[allow(unsafe_code)]
    pub fn slots(&self, row: &[f32], slots: &mut [u32]) {
        assert_eq!(slots.len(), row.len().div_ceil(self.numbers));
        // SAFETY: `of` gave this kernel for a processor that has its instructions, here and below.
        unsafe { (self.make_slots)(row, slots) }
    }

    /// Rows of slots, one behind another, as the columns of `lines`.
    ///
    /// # Panics
    /// When the numbers of slots differ, or the slots of a line are not contiguous.
    #[allow(unsafe_code)]
    pub fn turn(&self, rows: &[u32], mut lines: ArrayViewMut2<u32>) {
        let (depth, columns) = lines.dim();
        assert!(rows.len() >= columns * depth && (lines.strides()[1] == 1 || columns < 2));
        assert!(lines.strides()[0] >= columns as isize);
        let whole = if columns == TURNED { depth - depth % TURNED } else { 0 };
        let stride = lines.strides()[0].unsigned_abs();
        for k in (0..whole).step_by(TURNED) {
            // SAFETY: 16 rows of `depth` slots, of which 16 from `k` on are there, and as many lines of 16; `of` gave this
            // kernel for a processor that has its instructions.
            unsafe {
                (self.turn_16)(rows.as_ptr().add(k), depth, lines.as_mut_ptr().add(k * stride), stride);
            }
        }
        for k in whole..depth {
            lines.row_mut(k).iter_mut().enumerate().for_each(|(i, slot)| *slot = rows[i * depth + k]);
        }
    }

    /// Neighbours of the sum that stand in different rows, as one slot a column: one row of f32, or two of bfloat16, of
    /// which the second may be missing.
    ///
    /// # Panics
    /// When the rows have other lengths than `slots`.
    #[allow(unsafe_code)]
    pub fn stacked(&self, first: &[f32], second: Option<&[f32]>, slots: &mut [u32]) {
        assert!(first.len() == slots.len() && second.is_none_or(|second| second.len() == slots.len()));
        // SAFETY: see above.
        unsafe { (self.make_stacked)(first, second, slots) }
    }
}

/// [`Kernel::turn_16`] in plain Rust.
///
/// # Safety
/// `rows` must have 16 rows of 16 slots, `lines` 16 lines of 16.
#[allow(unsafe_code)]
pub(super) unsafe fn turn_16(rows: *const u32, depth: usize, lines: *mut u32, stride: usize) {
    for k in 0..TURNED {
        for i in 0..TURNED {
            // SAFETY: the caller's promise.
            unsafe { *lines.add(k * stride + i) = *rows.add(i * depth + k) };
        }
    }
}

/// [`Kernel::slots`] of f32.
pub(super) fn bits(row: &[f32], slots: &mut [u32]) {
    slots.iter_mut().zip(row).for_each(|(slot, x)| *slot = x.to_bits());
}

/// [`Kernel::stacked`] of f32.
pub(super) fn stacked_bits(row: &[f32], _: Option<&[f32]>, slots: &mut [u32]) {
    bits(row, slots);
}
