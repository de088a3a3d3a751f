//! What an instruction set can multiply: the shape of its tile, the form of its operands, and the tile itself behind
//! lengths that are checked.

use ndarray::ArrayViewMut2;

use super::portable;
use super::simd::Tile;
#[cfg(target_arch = "x86_64")]
use super::x86;
use crate::kernels::{Cpu, Precision};

/// What a slot of an operand holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// One f32.
    F32,
    /// Two neighbours of the sum as bfloat16, the first in the low half.
    #[cfg(target_arch = "x86_64")]
    Bf16,
}

/// The most numbers that a tile gives, over all kernels.
const MOST: usize = 8 * 48;

/// One instruction set's tile. Each number of a product is a sum of its own, in one order, whatever tile it falls in: so
/// the cut into tiles never shows in the result.
pub(super) struct Kernel {
    /// The form of operands.
    pub format: Format,
    /// Columns of a tile.
    pub columns: usize,
    /// The tile of one row, of two rows, and so on.
    pub tiles: &'static [unsafe fn(&Tile)],
}

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
            _ => &portable::F32,
        }
    }

    /// Rows of the largest tile.
    pub fn rows(&self) -> usize {
        self.tiles.len()
    }

    /// Numbers of the sum that a slot holds.
    pub fn numbers(&self) -> usize {
        match self.format {
            Format::F32 => 1,
            #[cfg(target_arch = "x86_64")]
            Format::Bf16 => 2,
        }
    }

    /// `c = a b` or `c += a b`: `a` begins with as many rows as `c` has, each of `depth` slots, `a_stride` apart; `b` with
    /// a panel of `depth` slots of each of [`Self::columns`] columns, of which those of `c` are wanted.
    ///
    /// # Panics
    /// When a slice is shorter than that, or `c` larger than a tile or without contiguous rows.
    #[allow(unsafe_code)]
    pub fn tile(
        &self,
        depth: usize,
        a: &[u32],
        a_stride: usize,
        b: &[u32],
        mut c: ArrayViewMut2<f32>,
        accumulate: bool,
    ) {
        let (rows, columns) = c.dim();
        assert!((1..=self.rows()).contains(&rows) && (1..=self.columns).contains(&columns));
        assert!(a.len() >= (rows - 1) * a_stride + depth && b.len() >= depth * self.columns);
        let run = self.tiles[rows - 1];
        let c_stride = c.strides()[0];
        let mut tile = Tile {
            depth,
            a: a.as_ptr(),
            a_stride,
            b: b.as_ptr(),
            c: c.as_mut_ptr(),
            c_stride: c_stride as usize,
            accumulate,
        };
        if columns == self.columns {
            assert!(c.strides()[1] == 1 && (c_stride >= 0 || rows == 1), "rows of a product are contiguous");
            // SAFETY: `of` gave this kernel for a processor that has its instructions; the lengths were just checked,
            // and `c` is borrowed mutably.
            unsafe { run(&tile) };
            return;
        }
        let mut whole = [0.0f32; MOST];
        assert!(rows * self.columns <= MOST);
        (tile.c, tile.c_stride, tile.accumulate) = (whole.as_mut_ptr(), self.columns, false);
        // SAFETY: as above, and `whole` has the rows of a tile one behind another.
        unsafe { run(&tile) };
        for (mut c, sums) in c.rows_mut().into_iter().zip(whole.chunks_exact(self.columns)) {
            for (c, sum) in c.iter_mut().zip(sums) {
                *c = if accumulate { *c + sum } else { *sum };
            }
        }
    }

    /// A row of numbers as slots, the last one filled up with zero.
    ///
    /// # Panics
    /// When `slots` has another length than that.
    pub fn slots(&self, row: &[f32], slots: &mut [u32]) {
        assert_eq!(slots.len(), row.len().div_ceil(self.numbers()));
        match self.format {
            Format::F32 => slots.iter_mut().zip(row).for_each(|(slot, x)| *slot = x.to_bits()),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `of` gave this kernel for a processor that has its instructions.
            #[allow(unsafe_code)]
            Format::Bf16 => unsafe { x86::neighbours(row, slots) },
        }
    }

    /// Neighbours of the sum that stand in different rows, as one slot a column: one row of f32, or two of bfloat16, of
    /// which the second may be missing.
    ///
    /// # Panics
    /// When the rows have other lengths than `slots`.
    pub fn stacked(&self, first: &[f32], second: Option<&[f32]>, slots: &mut [u32]) {
        assert!(first.len() == slots.len() && second.is_none_or(|second| second.len() == slots.len()));
        match self.format {
            Format::F32 => slots.iter_mut().zip(first).for_each(|(slot, x)| *slot = x.to_bits()),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `of` gave this kernel for a processor that has its instructions.
            #[allow(unsafe_code)]
            Format::Bf16 => unsafe { x86::stacked(first, second, slots) },
        }
    }
}
