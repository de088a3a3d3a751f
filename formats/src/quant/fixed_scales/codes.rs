//! The places of codes in a block.

/// How a block type stores its codes.
pub(super) trait Codes {
    /// Values in a block.
    const BLOCK: usize;
    /// Bytes in a block.
    const BYTES: usize;

    /// The code of value `j`.
    fn code(block: &[u8], j: usize) -> u8;
    /// Replaces the code of value `j`.
    fn set_code(block: &mut [u8], j: usize, code: u8);
}

/// Some bits of a code: `count` bits from bit `shift` of the block's byte `byte`.
#[derive(Clone, Copy)]
pub(super) struct Bits {
    pub(super) byte: usize,
    pub(super) shift: u32,
    pub(super) count: u32,
}

/// No bits, for codes without high bits.
pub(super) const NONE: Bits = Bits { byte: 0, shift: 0, count: 0 };

impl Bits {
    fn get(self, block: &[u8]) -> u8 {
        if self.count == 8 {
            return block[self.byte];
        }
        block[self.byte] >> self.shift & ((1 << self.count) - 1)
    }

    fn set(self, block: &mut [u8], bits: u8) {
        if self.count == 8 {
            block[self.byte] = bits;
            return;
        }
        let mask = ((1 << self.count) - 1) << self.shift;
        block[self.byte] = block[self.byte] & !mask | bits << self.shift & mask;
    }
}

/// Codes that share no bits.
pub(super) trait BitCodes {
    /// Values in a block.
    const BLOCK: usize;
    /// Bytes in a block.
    const BYTES: usize;
    /// Exclusive or with the stored code. It makes signed bytes ascend from 0.
    const FLIP: u8 = 0;

    /// Low and high bits of code `j`.
    fn bits(j: usize) -> [Bits; 2];
}

impl<T: BitCodes> Codes for T {
    const BLOCK: usize = T::BLOCK;
    const BYTES: usize = T::BYTES;

    fn code(block: &[u8], j: usize) -> u8 {
        let [low, high] = T::bits(j);
        (low.get(block) | high.get(block) << (low.count & 7)) ^ T::FLIP
    }

    fn set_code(block: &mut [u8], j: usize, code: u8) {
        let [low, high] = T::bits(j);
        let code = code ^ T::FLIP;
        low.set(block, code);
        high.set(block, code >> (low.count & 7));
    }
}

/// The four bits of value `j` in runs of `2 * half` values, from byte `start`. A run has `half` bytes: its
/// first `half` values are in their low halves.
pub(super) fn nibble(start: usize, half: usize, j: usize) -> Bits {
    Bits { byte: start + j / (2 * half) * half + j % half, shift: (j / half % 2 * 4) as u32, count: 4 }
}

/// The two bits of value `j` in a super-block whose `qs` begin at byte `start`. Each 32 bytes hold four runs
/// of 32.
pub(super) fn pair(start: usize, j: usize) -> Bits {
    Bits { byte: start + j / 128 * 32 + j % 32, shift: (j / 32 % 4 * 2) as u32, count: 2 }
}
