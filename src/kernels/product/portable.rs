//! Products in plain Rust, whose loops the compiler turns into the vectors of whatever it compiles for.

#![allow(unsafe_code)]

use super::kernel::{Kernel, bits, stacked_bits, turn_16};
use super::simd::{Simd, Tile, tile};

/// Columns of a vector: a register of 128 bits.
const LANES: usize = 4;
/// Vectors of a tile's columns. Two rows of them, the two numbers that are multiplied, a vector of columns and a product
/// fill the 16 registers of the least x86-64. Without fused multiply-add the rest of the loop competes with the arithmetic,
/// and a wide tile has the least of it: a number of the left operand, which is loaded and then copied to every lane, takes
/// two instructions, and a vector of columns one.
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
                sums.iter_mut().zip(to.read_unaligned()).for_each(|(sum, stands)| *sum += stands);
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
pub(super) static F32: Kernel = Kernel {
    numbers: 1,
    make_slots: bits,
    make_stacked: stacked_bits,
    turn_16,
    columns: VECTORS * LANES,
    tiles: &[rows::<1>, rows::<2>],
};
