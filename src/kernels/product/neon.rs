//! Products by NEON.

#![allow(unsafe_code)]

use std::arch::aarch64::*;
use std::array::from_fn;

use super::micro_kernel::MicroKernel;
use super::portable::{interleave_f32, pack_f32, transpose_16x16};
use super::simd::{Simd, Tile, tile};

struct Neon;

impl Simd for Neon {
    type Vector = float32x4_t;
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn zero() -> float32x4_t {
        // SAFETY: every aarch64 processor that Rust's standard library runs on has NEON, here and below.
        unsafe { vdupq_n_f32(0.0) }
    }

    #[inline(always)]
    unsafe fn load(from: *const u32) -> float32x4_t {
        // SAFETY: see above; the slots are the caller's promise, here and below.
        unsafe { vld1q_f32(from.cast()) }
    }

    #[inline(always)]
    unsafe fn splat(from: *const u32) -> float32x4_t {
        // SAFETY: see above.
        unsafe { vdupq_n_f32(f32::from_bits(*from)) }
    }

    #[inline(always)]
    unsafe fn multiply_add(sum: float32x4_t, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: see above.
        unsafe { vfmaq_f32(sum, a, b) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, sums: float32x4_t, accumulate: bool) {
        // SAFETY: see above.
        unsafe {
            let sums = if accumulate { vaddq_f32(vld1q_f32(to), sums) } else { sums };
            vst1q_f32(to, sums);
        }
    }

    // On many processors a splat occupies the multiplier; multiplying by a lane costs nothing extra.
    #[inline(always)]
    unsafe fn add_by_lanes<const R: usize, const V: usize>(
        sums: &mut [[float32x4_t; V]; R],
        rows: [*const u32; R],
        b: *const u32,
        depth: usize,
    ) -> usize {
        let whole = depth - depth % Self::LANES;
        for at in (0..whole).step_by(Self::LANES) {
            // SAFETY: see above; from `at` on each row has a slot for each lane, and `b` a line.
            unsafe {
                let slots: [float32x4_t; R] = from_fn(|i| Self::load(rows[i].add(at)));
                let b = b.add(at * V * Self::LANES);
                add_lane::<0, R, V>(sums, slots, b);
                add_lane::<1, R, V>(sums, slots, b);
                add_lane::<2, R, V>(sums, slots, b);
                add_lane::<3, R, V>(sums, slots, b);
            }
        }
        whole
    }
}

/// Adds the products of this lane of each row's slots and this line of `b` to the sums.
///
/// # Safety
/// `b` must have four lines of V vectors.
#[inline(always)]
unsafe fn add_lane<const LANE: i32, const R: usize, const V: usize>(
    sums: &mut [[float32x4_t; V]; R],
    slots: [float32x4_t; R],
    b: *const u32,
) {
    // SAFETY: see above.
    unsafe {
        let line = b.add(LANE as usize * V * Neon::LANES);
        let columns: [float32x4_t; V] = from_fn(|j| Neon::load(line.add(j * Neon::LANES)));
        for (sums, slots) in sums.iter_mut().zip(slots) {
            for (sum, column) in sums.iter_mut().zip(columns) {
                *sum = vfmaq_laneq_f32::<LANE>(*sum, column, slots);
            }
        }
    }
}

unsafe fn rows<const R: usize>(operands: &Tile) {
    // SAFETY: every aarch64 processor has the instructions; the sizes are the caller's promise.
    unsafe { tile::<Neon, R, 2>(operands) }
}

/// f32 products: of 32 registers, 16 hold sums, 8 the next slots of each row, and 2 or 4 vectors of columns.
pub(super) static F32: MicroKernel = MicroKernel {
    values_per_slot: 1,
    pack_row: pack_f32,
    interleave_rows: interleave_f32,
    transpose_16x16,
    nr: 8,
    tiles: &[rows::<1>, rows::<2>, rows::<3>, rows::<4>, rows::<5>, rows::<6>, rows::<7>, rows::<8>],
};
