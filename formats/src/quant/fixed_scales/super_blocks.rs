//! Super-blocks whose sub-blocks have evenly spaced values: Q2_K to Q6_K.

use super::codes::{BitCodes, Bits, NONE, nibble, pair};
use super::linear::Linear;
use crate::quant::{half_at, k_decode, k_scales};

/// The step of sub-block `sub` of a Q4_K or Q5_K block.
fn packed_step(block: &[u8], sub: usize) -> f32 {
    let mut packed = [0; 12];
    packed.copy_from_slice(&block[4..16]);
    half_at(block, 0) * f32::from(k_scales::unpack(&packed).0[sub])
}

pub(super) struct Q2K;
impl BitCodes for Q2K {
    const BLOCK: usize = 256;
    const BYTES: usize = 84;
    fn bits(j: usize) -> [Bits; 2] {
        [pair(16, j), NONE]
    }
}
impl Linear for Q2K {
    const SUB: usize = 16;
    const RANGE: (u8, u8) = (0, 3);
    fn step(block: &[u8], sub: usize) -> f32 {
        half_at(block, 80) * f32::from(block[sub] & 15)
    }
}

pub(super) struct Q3K;
impl BitCodes for Q3K {
    const BLOCK: usize = 256;
    const BYTES: usize = 110;
    fn bits(j: usize) -> [Bits; 2] {
        [pair(32, j), Bits { byte: j % 32, shift: (j / 32) as u32, count: 1 }]
    }
}
impl Linear for Q3K {
    const SUB: usize = 16;
    const RANGE: (u8, u8) = (0, 7);
    fn step(block: &[u8], sub: usize) -> f32 {
        half_at(block, 108) * k_decode::q3_k_scale(&block[96..108], sub)
    }
}

pub(super) struct Q4K;
impl BitCodes for Q4K {
    const BLOCK: usize = 256;
    const BYTES: usize = 144;
    fn bits(j: usize) -> [Bits; 2] {
        [nibble(16, 32, j), NONE]
    }
}
impl Linear for Q4K {
    const SUB: usize = 32;
    const RANGE: (u8, u8) = (0, 15);
    fn step(block: &[u8], sub: usize) -> f32 {
        packed_step(block, sub)
    }
}

pub(super) struct Q5K;
impl BitCodes for Q5K {
    const BLOCK: usize = 256;
    const BYTES: usize = 176;
    fn bits(j: usize) -> [Bits; 2] {
        [nibble(48, 32, j), Bits { byte: 16 + j % 32, shift: (j / 32) as u32, count: 1 }]
    }
}
impl Linear for Q5K {
    const SUB: usize = 32;
    const RANGE: (u8, u8) = (0, 31);
    fn step(block: &[u8], sub: usize) -> f32 {
        packed_step(block, sub)
    }
}

pub(super) struct Q6K;
impl BitCodes for Q6K {
    const BLOCK: usize = 256;
    const BYTES: usize = 210;
    fn bits(j: usize) -> [Bits; 2] {
        [nibble(0, 64, j), pair(128, j)]
    }
}
impl Linear for Q6K {
    const SUB: usize = 16;
    const RANGE: (u8, u8) = (0, 63);
    fn step(block: &[u8], sub: usize) -> f32 {
        half_at(block, 208) * f32::from(block[192 + sub] as i8)
    }
}
