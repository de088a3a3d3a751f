//! The layouts of ggml's blocks whose values are `scale * code` or `scale * code + least`
//! (`ggml-common.h` in llama.cpp), and their products with rounded activations.
//!
//! Loops are over indices: what iterators call is not always compiled for the CPU level of its caller.

use super::{ActivationBlock, BLOCK, LANES};

/// A type whose blocks have affine values.
pub(super) trait Affine {
    const BYTES: usize;
    const VALUES: usize;

    /// Adds the product of a block with as many activations: that of its codes to the lanes, and that of its least values
    /// to the sum.
    fn add(block: &[u8], x: &[ActivationBlock], sum: &mut Sum);
}

/// The sum of a row so far.
pub(super) struct Sum {
    /// Of products of codes, in lanes, so that blocks are not summed up one by one.
    pub(super) lanes: [f32; LANES],
    /// Of what codes do not decide.
    pub(super) least: f32,
}

impl Sum {
    /// Adds `factor` times the product of two blocks of codes. Two products of eight bits fit into 16.
    #[inline(always)]
    fn add(&mut self, factor: f32, codes: &[i8; BLOCK], x: &[i8; BLOCK]) {
        for k in 0..LANES {
            let pair =
                i16::from(codes[k]) * i16::from(x[k]) + i16::from(codes[k + LANES]) * i16::from(x[k + LANES]);
            self.lanes[k] += factor * f32::from(pair);
        }
    }

    /// The same with a factor for each half.
    #[inline(always)]
    fn add_halves(&mut self, factors: [f32; 2], codes: &[i8; BLOCK], x: &[i8; BLOCK]) {
        for k in 0..LANES {
            let first = f32::from(i16::from(codes[k]) * i16::from(x[k]));
            let second = f32::from(i16::from(codes[k + LANES]) * i16::from(x[k + LANES]));
            self.lanes[k] += factors[0] * first + factors[1] * second;
        }
    }
}

/// A half-precision number: its exponent is moved, and a product corrects its bias. One that is not finite is NaN.
#[inline(always)]
fn number(bytes: &[u8], at: usize) -> f32 {
    let bits = u32::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
    let magnitude = f32::from_bits((bits & 0x7fff) << 13) * f32::from_bits(0x7780_0000);
    let finite = f32::from_bits(magnitude.to_bits() | (bits & 0x8000) << 16);
    if bits & 0x7c00 == 0x7c00 { f32::NAN } else { finite }
}

/// The two halves of 16 bytes as 32 codes: first all low ones, then all high ones.
#[inline(always)]
fn nibbles(bytes: &[u8]) -> [i8; BLOCK] {
    let (mut codes, bytes) = ([0; BLOCK], &bytes[..BLOCK / 2]);
    for i in 0..BLOCK / 2 {
        codes[i] = (bytes[i] & 15) as i8;
        codes[i + BLOCK / 2] = (bytes[i] >> 4) as i8;
    }
    codes
}

/// [`nibbles`] with a fifth bit each.
#[inline(always)]
fn five_bits(bits: &[u8], bytes: &[u8]) -> [i8; BLOCK] {
    // Each byte of bits at the places of its codes: masks of bytes are cheaper than shifts by their places.
    let (mut spread, bits) = ([0; BLOCK], &bits[..BLOCK / 8]);
    for i in 0..BLOCK {
        spread[i] = bits[i / 8] & 1 << (i % 8);
    }
    let mut codes = nibbles(bytes);
    for i in 0..BLOCK {
        codes[i] |= if spread[i] != 0 { 16 } else { 0 };
    }
    codes
}

pub(super) struct Q8_0;
impl Affine for Q8_0 {
    const BYTES: usize = 34;
    const VALUES: usize = 32;

    #[inline(always)]
    fn add(block: &[u8], x: &[ActivationBlock], sum: &mut Sum) {
        let (block, x) = (&block[..34], &x[0]);
        let mut codes = [0; BLOCK];
        for i in 0..BLOCK {
            codes[i] = block[2 + i] as i8;
        }
        sum.add(number(block, 0) * x.scale, &codes, &x.codes);
    }
}

/// A type of 32 codes with one scale, and the value of code 0.
macro_rules! of_32 {
    ($name:ident, $bytes:literal, |$block:ident, $scale:ident| $codes:expr, $least:expr) => {
        pub(super) struct $name;
        impl Affine for $name {
            const BYTES: usize = $bytes;
            const VALUES: usize = 32;

            #[inline(always)]
            fn add(block: &[u8], x: &[ActivationBlock], sum: &mut Sum) {
                let ($block, x) = (&block[..$bytes], &x[0]);
                let $scale = number($block, 0);
                sum.add($scale * x.scale, &$codes, &x.codes);
                sum.least += $least * x.scale * x.sum() as f32;
            }
        }
    };
}
of_32!(Q4_0, 18, |block, scale| nibbles(&block[2..]), -8.0 * scale);
of_32!(Q4_1, 20, |block, scale| nibbles(&block[4..]), number(block, 2));
of_32!(Q5_0, 22, |block, scale| five_bits(&block[2..6], &block[6..]), -16.0 * scale);
of_32!(Q5_1, 24, |block, scale| five_bits(&block[4..8], &block[8..]), number(block, 2));

/// The scale and the minimum of each of eight blocks of 32, in 12 bytes (`get_scale_min_k4`).
#[inline(always)]
fn scales_and_minima(bytes: &[u8]) -> [[f32; 8]; 2] {
    let (mut both, bytes) = ([[0.0; 8]; 2], &bytes[..12]);
    for j in 0..4 {
        both[0][j] = f32::from(bytes[j] & 63);
        both[1][j] = f32::from(bytes[j + 4] & 63);
        both[0][j + 4] = f32::from(bytes[j + 8] & 15 | (bytes[j] >> 6) << 4);
        both[1][j + 4] = f32::from(bytes[j + 8] >> 4 | (bytes[j + 4] >> 6) << 4);
    }
    both
}

/// A type of 256 codes in eight blocks, each with a scale and a minimum.
macro_rules! of_256 {
    ($name:ident, $bytes:literal, |$block:ident, $j:ident, $i:ident| $code:expr) => {
        pub(super) struct $name;
        impl Affine for $name {
            const BYTES: usize = $bytes;
            const VALUES: usize = 256;

            #[inline(always)]
            fn add(block: &[u8], x: &[ActivationBlock], sum: &mut Sum) {
                let ($block, x) = (&block[..$bytes], &x[..8]);
                let [scales, minima] = scales_and_minima(&$block[4..16]);
                let (scale, minimum) = (number($block, 0), number($block, 2));
                for $j in 0..8 {
                    let (mut codes, x) = ([0; BLOCK], &x[$j]);
                    for $i in 0..BLOCK {
                        codes[$i] = $code as i8;
                    }
                    sum.add(scale * scales[$j] * x.scale, &codes, &x.codes);
                    sum.least -= minimum * minima[$j] * x.scale * x.sum() as f32;
                }
            }
        }
    };
}
of_256!(Q4K, 144, |block, j, i| block[16 + 32 * (j / 2) + i] >> (4 * (j % 2)) & 15);
of_256!(Q5K, 176, |block, j, i| block[48 + 32 * (j / 2) + i] >> (4 * (j % 2)) & 15
    | (block[16 + i] >> j & 1) << 4);

pub(super) struct Q6K;
impl Affine for Q6K {
    const BYTES: usize = 210;
    const VALUES: usize = 256;

    #[inline(always)]
    fn add(block: &[u8], x: &[ActivationBlock], sum: &mut Sum) {
        let (block, x) = (&block[..210], &x[..8]);
        let all = number(block, 208);
        for j in 0..8 {
            // Of each half of the super-block, 64 bytes of low bits and 32 of high ones make four blocks of 32.
            let (half, part) = (j / 4, j % 4);
            let low = &block[64 * half + 32 * (part % 2)..][..BLOCK];
            let high = &block[128 + 32 * half..][..BLOCK];
            let mut codes = [0; BLOCK];
            for i in 0..BLOCK {
                let code = low[i] >> (4 * (part / 2)) & 15 | (high[i] >> (2 * part) & 3) << 4;
                codes[i] = code as i8 - 32;
            }
            let scale = |k: usize| all * f32::from(block[192 + 2 * j + k] as i8) * x[j].scale;
            sum.add_halves([scale(0), scale(1)], &codes, &x[j].codes);
        }
    }
}
