//! Products by AVX2 and AVX-512.

#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::micro_kernel::MicroKernel;
use super::portable::{interleave_f32, pack_f32};
use super::simd::{Simd, Tile, tile};

struct Avx2;

impl Simd for Avx2 {
    type Vector = __m256;
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn zero() -> __m256 {
        // SAFETY: the caller's promise, here and below.
        unsafe { _mm256_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn load(from: *const u32) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_loadu_ps(from.cast()) }
    }

    #[inline(always)]
    unsafe fn splat(from: *const u32) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_set1_ps(f32::from_bits(*from)) }
    }

    #[inline(always)]
    unsafe fn multiply_add(sum: __m256, a: __m256, b: __m256) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_fmadd_ps(a, b, sum) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, sums: __m256, accumulate: bool) {
        // SAFETY: see above.
        unsafe {
            let sums = if accumulate { _mm256_add_ps(_mm256_loadu_ps(to), sums) } else { sums };
            _mm256_storeu_ps(to, sums);
        }
    }
}

struct Avx512;

impl Simd for Avx512 {
    type Vector = __m512;
    const LANES: usize = 16;

    #[inline(always)]
    unsafe fn zero() -> __m512 {
        // SAFETY: the caller's promise, here and below.
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn load(from: *const u32) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_loadu_ps(from.cast()) }
    }

    #[inline(always)]
    unsafe fn splat(from: *const u32) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_set1_ps(f32::from_bits(*from)) }
    }

    #[inline(always)]
    unsafe fn multiply_add(sum: __m512, a: __m512, b: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_fmadd_ps(a, b, sum) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, sums: __m512, accumulate: bool) {
        // SAFETY: see above.
        unsafe {
            let sums = if accumulate { _mm512_add_ps(_mm512_loadu_ps(to), sums) } else { sums };
            _mm512_storeu_ps(to, sums);
        }
    }

    #[inline(always)]
    fn prefetch_store(at: *const f32) {
        // SAFETY: any address may be prefetched.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
}

/// Slots are pairs of bfloat16; sums are f32.
struct Avx512Bf16;

impl Simd for Avx512Bf16 {
    type Vector = __m512;
    const LANES: usize = 16;

    #[inline(always)]
    unsafe fn zero() -> __m512 {
        // SAFETY: the caller's promise, here and below.
        unsafe { Avx512::zero() }
    }

    #[inline(always)]
    unsafe fn load(from: *const u32) -> __m512 {
        // SAFETY: see above.
        unsafe { Avx512::load(from) }
    }

    #[inline(always)]
    unsafe fn splat(from: *const u32) -> __m512 {
        // SAFETY: see above.
        unsafe { Avx512::splat(from) }
    }

    #[inline(always)]
    unsafe fn multiply_add(sum: __m512, a: __m512, b: __m512) -> __m512 {
        // SAFETY: see above; any 512 bits are valid in both types.
        unsafe {
            _mm512_dpbf16_ps(
                sum,
                std::mem::transmute::<__m512, __m512bh>(a),
                std::mem::transmute::<__m512, __m512bh>(b),
            )
        }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, sums: __m512, accumulate: bool) {
        // SAFETY: see above.
        unsafe { Avx512::store(to, sums, accumulate) }
    }

    #[inline(always)]
    fn prefetch_store(at: *const f32) {
        Avx512::prefetch_store(at);
    }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<const R: usize>(operands: &Tile) {
    // SAFETY: the instructions are those of this function; the sizes are the caller's promise, here and
    // below.
    unsafe { tile::<Avx2, R, 2>(operands) }
}

#[target_feature(enable = "avx512f")]
unsafe fn avx512<const R: usize>(operands: &Tile) {
    // SAFETY: see above.
    unsafe { tile::<Avx512, R, 4>(operands) }
}

#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn avx512_bf16<const R: usize>(operands: &Tile) {
    // SAFETY: see above.
    unsafe { tile::<Avx512Bf16, R, 4>(operands) }
}

/// f32 products by AVX2: 12 of 16 registers hold sums.
pub(super) static AVX2: MicroKernel = MicroKernel {
    values_per_slot: 1,
    pack_row: pack_f32,
    interleave_rows: interleave_f32,
    transpose_16x16: avx2_transpose_16x16,
    nr: 16,
    tiles: &[avx2::<1>, avx2::<2>, avx2::<3>, avx2::<4>, avx2::<5>, avx2::<6>],
};

/// f32 products by AVX-512: 24 of 32 registers hold sums.
pub(super) static AVX512: MicroKernel = MicroKernel {
    values_per_slot: 1,
    pack_row: pack_f32,
    interleave_rows: interleave_f32,
    transpose_16x16: avx512_transpose_16x16,
    nr: 64,
    tiles: &[avx512::<1>, avx512::<2>, avx512::<3>, avx512::<4>, avx512::<5>, avx512::<6>],
};

/// bfloat16 products by AVX-512 BF16.
pub(super) static AVX512_BF16: MicroKernel = MicroKernel {
    values_per_slot: 2,
    pack_row: pack_bf16,
    interleave_rows: interleave_bf16,
    transpose_16x16: avx512_transpose_16x16,
    nr: 64,
    tiles: &[
        avx512_bf16::<1>,
        avx512_bf16::<2>,
        avx512_bf16::<3>,
        avx512_bf16::<4>,
        avx512_bf16::<5>,
        avx512_bf16::<6>,
    ],
};

/// [`MicroKernel::pack`] of bfloat16: rounded to nearest, ties to even. Subnormals become zero, as the
/// products read them. The last slot of a row of odd length is padded with zero.
#[target_feature(enable = "avx512f,avx512bf16")]
fn pack_bf16(row: &[f32], slots: &mut [u32]) {
    let (whole, rest) = row.as_chunks::<32>();
    let (whole_slots, rest_slots) = slots.split_at_mut(whole.len() * 16);
    for (row, slots) in whole.iter().zip(whole_slots.as_chunks_mut::<16>().0) {
        round_32(row, slots);
    }
    let (mut row, mut slots) = ([0.0; 32], [0; 16]);
    row[..rest.len()].copy_from_slice(rest);
    round_32(&row, &mut slots);
    rest_slots.copy_from_slice(&slots[..rest_slots.len()]);
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn round_32(row: &[f32; 32], slots: &mut [u32; 16]) {
    // SAFETY: the arrays are as long as what is loaded and stored.
    unsafe {
        let (low, high) = (_mm512_loadu_ps(row.as_ptr()), _mm512_loadu_ps(row.as_ptr().add(16)));
        let rounded = _mm512_cvtne2ps_pbh(high, low);
        _mm512_storeu_si512(slots.as_mut_ptr().cast(), std::mem::transmute::<__m512bh, __m512i>(rounded));
    }
}

/// [`MicroKernel::interleave`] of bfloat16, rounded as in [`pack_bf16`]; zeros in place of a missing second
/// row.
#[target_feature(enable = "avx512f,avx512bf16")]
fn interleave_bf16(first: &[f32], second: Option<&[f32]>, slots: &mut [u32]) {
    let length = slots.len();
    assert!(first.len() == length && second.is_none_or(|second| second.len() == length));
    for start in (0..length).step_by(16) {
        let mask = u16::MAX >> (16 - (length - start).min(16));
        let rounded = |row: &[f32]| {
            // SAFETY: the mask leaves out what is past the end of a row.
            let values = unsafe { _mm512_maskz_loadu_ps(mask, row.as_ptr().add(start)) };
            let rounded = _mm512_cvtneps_pbh(values);
            // SAFETY: any 256 bits are valid in both types.
            _mm512_cvtepu16_epi32(unsafe { std::mem::transmute::<__m256bh, __m256i>(rounded) })
        };
        let high = second.map_or(_mm512_setzero_si512(), |row| _mm512_slli_epi32::<16>(rounded(row)));
        let both = _mm512_or_si512(rounded(first), high);
        // SAFETY: as above.
        unsafe { _mm512_mask_storeu_epi32(slots.as_mut_ptr().add(start).cast(), mask, both) };
    }
}

/// [`MicroKernel::transpose_16x16`].
///
/// # Safety
/// `rows` must have 16 rows of 16 slots, `lines` 16 lines of 16.
#[target_feature(enable = "avx2")]
unsafe fn avx2_transpose_16x16(rows: *const u32, depth: usize, lines: *mut u32, stride: usize) {
    for (i, k) in [(0, 0), (0, 8), (8, 0), (8, 8)] {
        // SAFETY: the caller's promise: each is a quarter of the square.
        unsafe { avx2_transpose_8x8(rows.add(i * depth + k), depth, lines.add(k * stride + i), stride) };
    }
}

/// A quarter of [`avx2_transpose_16x16`].
///
/// # Safety
/// `rows` must have 8 rows of 8 slots, `lines` 8 lines of 8.
#[target_feature(enable = "avx2")]
unsafe fn avx2_transpose_8x8(rows: *const u32, depth: usize, lines: *mut u32, stride: usize) {
    let mut v = [_mm256_setzero_si256(); 8];
    for (i, v) in v.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        *v = unsafe { _mm256_loadu_si256(rows.add(i * depth).cast()) };
    }
    // Three rounds, as below: two within the halves (128 bits) of a vector, one of whole halves.
    let mut pairs = v;
    for i in 0..4 {
        pairs[2 * i] = _mm256_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
        pairs[2 * i + 1] = _mm256_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
    }
    let mut fours = pairs;
    for i in 0..2 {
        let at = |j: usize| pairs[4 * i + j];
        fours[4 * i] = _mm256_unpacklo_epi64(at(0), at(2));
        fours[4 * i + 1] = _mm256_unpackhi_epi64(at(0), at(2));
        fours[4 * i + 2] = _mm256_unpacklo_epi64(at(1), at(3));
        fours[4 * i + 3] = _mm256_unpackhi_epi64(at(1), at(3));
    }
    // Half h of `fours[4 i + j]` has slot 4 h + j of rows 4 i to 4 i + 3.
    for j in 0..4 {
        let low = _mm256_permute2x128_si256::<0x20>(fours[j], fours[4 + j]);
        let high = _mm256_permute2x128_si256::<0x31>(fours[j], fours[4 + j]);
        // SAFETY: the caller's promise.
        unsafe {
            _mm256_storeu_si256(lines.add(j * stride).cast(), low);
            _mm256_storeu_si256(lines.add((4 + j) * stride).cast(), high);
        }
    }
}

/// [`MicroKernel::transpose_16x16`].
///
/// # Safety
/// `rows` must have 16 rows of 16 slots, `lines` 16 lines of 16.
#[target_feature(enable = "avx512f")]
unsafe fn avx512_transpose_16x16(rows: *const u32, depth: usize, lines: *mut u32, stride: usize) {
    let mut v = [_mm512_setzero_si512(); 16];
    for (i, v) in v.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        *v = unsafe { _mm512_loadu_si512(rows.add(i * depth).cast()) };
    }
    // Four rounds. Each exchanges one bit of the row's index with one bit of the slot's index: the first two
    // move slots within the quarters (128 bits) of a vector, the last two move whole quarters.
    let mut pairs = v;
    for i in 0..8 {
        pairs[2 * i] = _mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
        pairs[2 * i + 1] = _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
    }
    let mut fours = pairs;
    for i in 0..4 {
        let at = |j: usize| pairs[4 * i + j];
        fours[4 * i] = _mm512_unpacklo_epi64(at(0), at(2));
        fours[4 * i + 1] = _mm512_unpackhi_epi64(at(0), at(2));
        fours[4 * i + 2] = _mm512_unpacklo_epi64(at(1), at(3));
        fours[4 * i + 3] = _mm512_unpackhi_epi64(at(1), at(3));
    }
    // Quarter q of `fours[4 i + j]` has slot 4 q + j of rows 4 i to 4 i + 3.
    for j in 0..4 {
        let at = |i: usize| fours[4 * i + j];
        let (even_low, odd_low) =
            (_mm512_shuffle_i32x4::<0x88>(at(0), at(1)), _mm512_shuffle_i32x4::<0xdd>(at(0), at(1)));
        let (even_high, odd_high) =
            (_mm512_shuffle_i32x4::<0x88>(at(2), at(3)), _mm512_shuffle_i32x4::<0xdd>(at(2), at(3)));
        // Each has quarters of two groups of rows: q = 0 and 2, or q = 1 and 3.
        let transposed = [
            _mm512_shuffle_i32x4::<0x88>(even_low, even_high),
            _mm512_shuffle_i32x4::<0x88>(odd_low, odd_high),
            _mm512_shuffle_i32x4::<0xdd>(even_low, even_high),
            _mm512_shuffle_i32x4::<0xdd>(odd_low, odd_high),
        ];
        for (q, line) in transposed.into_iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { _mm512_storeu_si512(lines.add((4 * q + j) * stride).cast(), line) };
        }
    }
}
