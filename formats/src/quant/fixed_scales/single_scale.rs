//! Blocks with one scale for all values: the 4-, 5- and 8-bit types of 32 values, and those of at most two
//! bits.

use super::codes::{BitCodes, Bits, Codes, NONE, nibble, pair};
use super::linear::Linear;
use crate::quant::{half_at, two_bit};

pub(super) struct Q4_0;
impl BitCodes for Q4_0 {
    const BLOCK: usize = 32;
    const BYTES: usize = 18;
    fn bits(j: usize) -> [Bits; 2] {
        [nibble(2, 16, j), NONE]
    }
}
impl Linear for Q4_0 {
    const RANGE: (u8, u8) = (0, 15);
    fn step(block: &[u8], _: usize) -> f32 {
        half_at(block, 0)
    }
}

pub(super) struct Q4_1;
impl BitCodes for Q4_1 {
    const BLOCK: usize = 32;
    const BYTES: usize = 20;
    fn bits(j: usize) -> [Bits; 2] {
        [nibble(4, 16, j), NONE]
    }
}
impl Linear for Q4_1 {
    const RANGE: (u8, u8) = (0, 15);
    fn step(block: &[u8], _: usize) -> f32 {
        half_at(block, 0)
    }
}

pub(super) struct Q5_0;
impl BitCodes for Q5_0 {
    const BLOCK: usize = 32;
    const BYTES: usize = 22;
    fn bits(j: usize) -> [Bits; 2] {
        [nibble(6, 16, j), one_bit(2, j)]
    }
}
impl Linear for Q5_0 {
    const RANGE: (u8, u8) = (0, 31);
    fn step(block: &[u8], _: usize) -> f32 {
        half_at(block, 0)
    }
}

pub(super) struct Q5_1;
impl BitCodes for Q5_1 {
    const BLOCK: usize = 32;
    const BYTES: usize = 24;
    fn bits(j: usize) -> [Bits; 2] {
        [nibble(8, 16, j), one_bit(4, j)]
    }
}
impl Linear for Q5_1 {
    const RANGE: (u8, u8) = (0, 31);
    fn step(block: &[u8], _: usize) -> f32 {
        half_at(block, 0)
    }
}

pub(super) struct Q8_0;
impl BitCodes for Q8_0 {
    const BLOCK: usize = 32;
    const BYTES: usize = 34;
    const FLIP: u8 = 128;
    fn bits(j: usize) -> [Bits; 2] {
        [Bits { byte: 2 + j, shift: 0, count: 8 }, NONE]
    }
}
impl Linear for Q8_0 {
    /// -127 to 127.
    const RANGE: (u8, u8) = (1, 255);
    fn step(block: &[u8], _: usize) -> f32 {
        half_at(block, 0)
    }
}

pub(super) struct Q1_0;
impl BitCodes for Q1_0 {
    const BLOCK: usize = 128;
    const BYTES: usize = 18;
    fn bits(j: usize) -> [Bits; 2] {
        [one_bit(2, j), NONE]
    }
}
impl Linear for Q1_0 {
    const RANGE: (u8, u8) = (0, 1);
    /// From minus the scale to plus the scale.
    fn step(block: &[u8], _: usize) -> f32 {
        2.0 * half_at(block, 0)
    }
}

pub(super) struct Q2_0;
impl BitCodes for Q2_0 {
    const BLOCK: usize = 64;
    const BYTES: usize = 18;
    fn bits(j: usize) -> [Bits; 2] {
        [Bits { byte: 2 + j / 4, shift: (j % 4 * 2) as u32, count: 2 }, NONE]
    }
}
impl Linear for Q2_0 {
    const RANGE: (u8, u8) = (0, 3);
    fn step(block: &[u8], _: usize) -> f32 {
        half_at(block, 0)
    }
}

pub(super) struct TQ2_0;
impl BitCodes for TQ2_0 {
    const BLOCK: usize = 256;
    const BYTES: usize = 66;
    fn bits(j: usize) -> [Bits; 2] {
        [pair(0, j), NONE]
    }
}
impl Linear for TQ2_0 {
    /// Ternary. The fourth code is read but never written.
    const RANGE: (u8, u8) = (0, 2);
    fn step(block: &[u8], _: usize) -> f32 {
        half_at(block, 64)
    }
}

pub(super) struct TQ1_0;
impl TQ1_0 {
    /// The byte of value `j`, and the index of its digit in that byte.
    fn place(j: usize) -> (usize, usize) {
        match j {
            0..160 => (j % 32, j / 32),
            160..240 => (32 + j % 16, (j - 160) / 16),
            _ => (48 + j % 4, (j - 240) / 4),
        }
    }
}
impl Codes for TQ1_0 {
    const BLOCK: usize = 256;
    const BYTES: usize = 54;
    fn code(block: &[u8], j: usize) -> u8 {
        let (byte, place) = Self::place(j);
        two_bit::ternary_digit(block[byte], two_bit::POWERS[place])
    }
    /// Encodes all five digits again. Together they are a number below 243, and the byte is that number in
    /// 256ths of 243, rounded up.
    fn set_code(block: &mut [u8], j: usize, code: u8) {
        let (byte, place) = Self::place(j);
        let mut digits = two_bit::POWERS.map(|power| two_bit::ternary_digit(block[byte], power));
        digits[place] = code;
        let number = digits.into_iter().fold(0, |number, digit| 3 * number + u16::from(digit));
        block[byte] = (number * 256).div_ceil(243) as u8;
    }
}
impl Linear for TQ1_0 {
    const RANGE: (u8, u8) = (0, 2);
    fn step(block: &[u8], _: usize) -> f32 {
        half_at(block, 52)
    }
}

/// Bit `j` of the bits that begin at byte `start`.
fn one_bit(start: usize, j: usize) -> Bits {
    Bits { byte: start + j / 8, shift: (j % 8) as u32, count: 1 }
}
