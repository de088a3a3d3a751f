//! Products in plain Rust, whose loops the compiler vectorizes for whatever target it compiles for; and the
//! packing of f32, which needs no instructions of its own.

#![allow(unsafe_code)]

use super::micro_kernel::{MicroKernel, SQUARE};
use super::simd::{Simd, Tile, tile};

/// Columns of a vector: a register of 128 bits.
const LANES: usize = 4;
/// Vectors of a tile's columns. Two rows of sums, the two multipliers, a vector of columns and a product fill
/// the 16 registers of baseline x86-64. Without fused multiply-add the rest of the loop competes with the
/// arithmetic, and a wide tile has least of it: a value of the left operand takes two instructions (load,
/// broadcast), a vector of columns one.
const VECTORS: usize = 6;

struct Portable;

impl Simd for Portable {
    type Vector = [f32; LANES];
    const LANES: usize = LANES;

    #[inline(always)]
    unsafe fn zero() -> Self::Vector {
        [0.0; LANES]
    }

    #[inline(always)]
    unsafe fn load(from: *const u32) -> Self::Vector {
        // SAFETY: the caller's promise; an array of f32 may hold any bits.
        unsafe { from.cast::<Self::Vector>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn splat(from: *const u32) -> Self::Vector {
        // SAFETY: the caller's promise.
        [f32::from_bits(unsafe { *from }); LANES]
    }

    #[inline(always)]
    unsafe fn multiply_add(mut sum: Self::Vector, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        for ((sum, a), b) in sum.iter_mut().zip(a).zip(b) {
            // Where the processor may lack the instruction, `mul_add` is a slow call.
            *sum = if cfg!(any(target_feature = "fma", target_arch = "aarch64")) {
                a.mul_add(b, *sum)
            } else {
                a * b + *sum
            };
        }
        sum
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, sums: Self::Vector, accumulate: bool) {
        // SAFETY: the caller's promise.
        unsafe {
            let to = to.cast::<Self::Vector>();
            let mut sums = sums;
            if accumulate {
                sums.iter_mut().zip(to.read_unaligned()).for_each(|(sum, old)| *sum += old);
            }
            to.write_unaligned(sums);
        }
    }
}

unsafe fn rows<const R: usize>(operands: &Tile) {
    // SAFETY: plain Rust runs everywhere; the sizes are the caller's promise.
    unsafe { tile::<Portable, R, VECTORS>(operands) }
}

/// f32 products.
pub(super) static F32: MicroKernel = MicroKernel {
    values_per_slot: 1,
    pack_row: pack_f32,
    interleave_rows: interleave_f32,
    transpose_16x16,
    nr: VECTORS * LANES,
    tiles: &[rows::<1>, rows::<2>],
};

/// [`MicroKernel::pack`] of f32.
pub(super) fn pack_f32(row: &[f32], slots: &mut [u32]) {
    slots.iter_mut().zip(row).for_each(|(slot, x)| *slot = x.to_bits());
}

/// [`MicroKernel::interleave`] of f32, whose slots hold one value.
pub(super) fn interleave_f32(row: &[f32], _: Option<&[f32]>, slots: &mut [u32]) {
    pack_f32(row, slots);
}

/// [`MicroKernel::transpose_16x16`] in plain Rust.
///
/// # Safety
/// `rows` must have 16 rows of 16 slots, `lines` 16 lines of 16.
pub(super) unsafe fn transpose_16x16(rows: *const u32, depth: usize, lines: *mut u32, stride: usize) {
    for k in 0..SQUARE {
        for i in 0..SQUARE {
            // SAFETY: the caller's promise.
            unsafe { *lines.add(k * stride + i) = *rows.add(i * depth + k) };
        }
    }
}
