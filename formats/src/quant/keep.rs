//! New codes on an old grid: values written into blocks whose scales and minimums stay as they are.
//!
//! A small change to a quantized matrix must not move the grid under the values that did not change: re-encoding from
//! scratch would round all of them anew. A value of a block is `step * code + offset`, and here only codes change, each
//! by a whole number of steps, so an unchanged value keeps its code bit for bit. [`Grid`] shows the steps and how far
//! each code can go, for a caller that weighs how to round; [`encode_keeping_scales`] rounds to the nearest.

use super::{QuantError, check_length, decode, encode, half_to_f32, k_scales};
use crate::dtype::DType;

/// The step of every value of some stored blocks, and the room that its code has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grid {
    /// By how much a value changes when its code rises by one; may be negative, or zero for a block of one value only.
    pub steps: Vec<f32>,
    /// How many codes there are below the present one.
    pub below: Vec<f32>,
    /// How many codes there are above the present one.
    pub above: Vec<f32>,
}

impl Grid {
    /// The grid of whole blocks of `dtype`. `None` for types without block scales, whose steps depend on the value.
    ///
    /// # Errors
    /// [`QuantError::Length`] for a part of a block, [`QuantError::CannotEncode`] for a block type that is not written.
    pub fn read(dtype: DType, blocks: &[u8]) -> Result<Option<Grid>, QuantError> {
        let elements = blocks.len() / dtype.block_bytes() * dtype.block_elements();
        check_length(dtype, blocks.len(), elements)?;
        Ok(match dtype {
            DType::Q4_0 => Some(grid::<Q4_0>(blocks)),
            DType::Q4_1 => Some(grid::<Q4_1>(blocks)),
            DType::Q5_0 => Some(grid::<Q5_0>(blocks)),
            DType::Q5_1 => Some(grid::<Q5_1>(blocks)),
            DType::Q8_0 => Some(grid::<Q8_0>(blocks)),
            DType::Q4_K => Some(grid::<Q4K>(blocks)),
            DType::Q5_K => Some(grid::<Q5K>(blocks)),
            DType::Q6_K => Some(grid::<Q6K>(blocks)),
            _ if dtype.can_encode() => None,
            _ => return Err(QuantError::CannotEncode(dtype)),
        })
    }
}

/// Encodes `values` as blocks of `dtype` into `out`, each with the scales and minimums of the block in `base` and the
/// codes nearest to the values (halves away from the present code). A value that `base` decodes to keeps its code, so
/// the values of `base` give its very bytes. Types without block scales are encoded as [`encode`] does.
///
/// # Errors
/// As of [`encode`]; [`QuantError::Length`] also if `base` is not as long as `out`.
pub fn encode_keeping_scales(
    dtype: DType,
    base: &[u8],
    values: &[f32],
    out: &mut [u8],
) -> Result<(), QuantError> {
    let write = match dtype {
        DType::Q4_0 => write_codes::<Q4_0>,
        DType::Q4_1 => write_codes::<Q4_1>,
        DType::Q5_0 => write_codes::<Q5_0>,
        DType::Q5_1 => write_codes::<Q5_1>,
        DType::Q8_0 => write_codes::<Q8_0>,
        DType::Q4_K => write_codes::<Q4K>,
        DType::Q5_K => write_codes::<Q5K>,
        DType::Q6_K => write_codes::<Q6K>,
        _ => return encode(dtype, values, out),
    };
    check_length(dtype, base.len(), values.len())?;
    check_length(dtype, out.len(), values.len())?;
    if let Some(index) = values.iter().position(|value| !value.is_finite()) {
        return Err(QuantError::OutOfRange { dtype, index, value: values[index] });
    }
    let mut present = vec![0.0; values.len()];
    decode(dtype, base, &mut present)?;
    out.copy_from_slice(base);
    write(&present, values, out);
    Ok(())
}

/// Some bits of a code: `count` of them at `shift` of byte `byte` of the block.
#[derive(Clone, Copy)]
struct Bits {
    byte: usize,
    shift: u32,
    count: u32,
}

const NONE: Bits = Bits { byte: 0, shift: 0, count: 0 };

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

/// How a block type stores its codes and steps.
trait Codes {
    /// Values in a block.
    const BLOCK: usize;
    /// Bytes in a block.
    const BYTES: usize;
    /// Values that share a step.
    const SUB: usize = Self::BLOCK;
    /// Least and greatest code that the encoder writes.
    const RANGE: (u8, u8);
    /// Taken with exclusive or from what is stored: makes a signed byte ascend from 0.
    const FLIP: u8 = 0;

    /// Low and high bits of code `j`.
    fn bits(j: usize) -> [Bits; 2];
    /// The step of sub-block `sub`.
    fn step(block: &[u8], sub: usize) -> f32;

    fn code(block: &[u8], j: usize) -> u8 {
        let [low, high] = Self::bits(j);
        (low.get(block) | high.get(block) << (low.count & 7)) ^ Self::FLIP
    }

    fn set_code(block: &mut [u8], j: usize, code: u8) {
        let [low, high] = Self::bits(j);
        let code = code ^ Self::FLIP;
        low.set(block, code);
        high.set(block, code >> (low.count & 7));
    }

    /// How far code `j` can fall and rise; not at all past the encoder's range, even if it lies outside.
    fn room(code: u8) -> (u8, u8) {
        (code.saturating_sub(Self::RANGE.0), Self::RANGE.1.saturating_sub(code))
    }
}

fn grid<C: Codes>(blocks: &[u8]) -> Grid {
    let mut grid = Grid::default();
    for block in blocks.chunks_exact(C::BYTES) {
        for j in 0..C::BLOCK {
            let (below, above) = C::room(C::code(block, j));
            grid.below.push(f32::from(below));
            grid.above.push(f32::from(above));
        }
        for sub in 0..C::BLOCK / C::SUB {
            grid.steps.extend(std::iter::repeat_n(C::step(block, sub), C::SUB));
        }
    }
    grid
}

/// Moves the codes of `out`, which decodes to `present`, to those nearest to `values`.
fn write_codes<C: Codes>(present: &[f32], values: &[f32], out: &mut [u8]) {
    let numbers = present.chunks_exact(C::BLOCK).zip(values.chunks_exact(C::BLOCK));
    for (block, (present, values)) in out.chunks_exact_mut(C::BYTES).zip(numbers) {
        for j in 0..C::BLOCK {
            let change = values[j] - present[j];
            let step = C::step(block, j / C::SUB);
            if change == 0.0 || step == 0.0 {
                continue;
            }
            let code = C::code(block, j);
            let (below, above) = C::room(code);
            // A hostile scale can make this NaN, which the cast turns into no change.
            let moves = (change / step).round().clamp(-f32::from(below), f32::from(above)) as i32;
            C::set_code(block, j, (i32::from(code) + moves) as u8);
        }
    }
}

fn half_at(block: &[u8], at: usize) -> f32 {
    half_to_f32(u16::from_le_bytes([block[at], block[at + 1]]))
}

/// Four bits of value `j` in a block of 32 whose `qs` begin at `start`.
fn nibble(start: usize, j: usize) -> Bits {
    Bits { byte: start + j % 16, shift: (j / 16 * 4) as u32, count: 4 }
}

/// Four bits of value `j` in a super-block whose `qs`, two sub-blocks of 32 to each 32 bytes, begin at `start`.
fn k_nibble(start: usize, j: usize) -> Bits {
    Bits { byte: start + j / 64 * 32 + j % 32, shift: (j / 32 % 2 * 4) as u32, count: 4 }
}

/// The step of sub-block `sub` of a Q4_K or Q5_K block.
fn k_step(block: &[u8], sub: usize) -> f32 {
    let mut packed = [0; 12];
    packed.copy_from_slice(&block[4..16]);
    half_at(block, 0) * f32::from(k_scales::unpack(&packed).0[sub])
}

struct Q4_0;
impl Codes for Q4_0 {
    const BLOCK: usize = 32;
    const BYTES: usize = 18;
    const RANGE: (u8, u8) = (0, 15);
    fn bits(j: usize) -> [Bits; 2] {
        [nibble(2, j), NONE]
    }
    fn step(block: &[u8], _: usize) -> f32 {
        half_at(block, 0)
    }
}

struct Q4_1;
impl Codes for Q4_1 {
    const BLOCK: usize = 32;
    const BYTES: usize = 20;
    const RANGE: (u8, u8) = (0, 15);
    fn bits(j: usize) -> [Bits; 2] {
        [nibble(4, j), NONE]
    }
    fn step(block: &[u8], _: usize) -> f32 {
        half_at(block, 0)
    }
}

struct Q5_0;
impl Codes for Q5_0 {
    const BLOCK: usize = 32;
    const BYTES: usize = 22;
    const RANGE: (u8, u8) = (0, 31);
    fn bits(j: usize) -> [Bits; 2] {
        [nibble(6, j), Bits { byte: 2 + j / 8, shift: (j % 8) as u32, count: 1 }]
    }
    fn step(block: &[u8], _: usize) -> f32 {
        half_at(block, 0)
    }
}

struct Q5_1;
impl Codes for Q5_1 {
    const BLOCK: usize = 32;
    const BYTES: usize = 24;
    const RANGE: (u8, u8) = (0, 31);
    fn bits(j: usize) -> [Bits; 2] {
        [nibble(8, j), Bits { byte: 4 + j / 8, shift: (j % 8) as u32, count: 1 }]
    }
    fn step(block: &[u8], _: usize) -> f32 {
        half_at(block, 0)
    }
}

struct Q8_0;
impl Codes for Q8_0 {
    const BLOCK: usize = 32;
    const BYTES: usize = 34;
    /// -127 to 127.
    const RANGE: (u8, u8) = (1, 255);
    const FLIP: u8 = 128;
    fn bits(j: usize) -> [Bits; 2] {
        [Bits { byte: 2 + j, shift: 0, count: 8 }, NONE]
    }
    fn step(block: &[u8], _: usize) -> f32 {
        half_at(block, 0)
    }
}

struct Q4K;
impl Codes for Q4K {
    const BLOCK: usize = 256;
    const BYTES: usize = 144;
    const SUB: usize = 32;
    const RANGE: (u8, u8) = (0, 15);
    fn bits(j: usize) -> [Bits; 2] {
        [k_nibble(16, j), NONE]
    }
    fn step(block: &[u8], sub: usize) -> f32 {
        k_step(block, sub)
    }
}

struct Q5K;
impl Codes for Q5K {
    const BLOCK: usize = 256;
    const BYTES: usize = 176;
    const SUB: usize = 32;
    const RANGE: (u8, u8) = (0, 31);
    fn bits(j: usize) -> [Bits; 2] {
        [k_nibble(48, j), Bits { byte: 16 + j % 32, shift: (j / 32) as u32, count: 1 }]
    }
    fn step(block: &[u8], sub: usize) -> f32 {
        k_step(block, sub)
    }
}

struct Q6K;
impl Codes for Q6K {
    const BLOCK: usize = 256;
    const BYTES: usize = 210;
    const SUB: usize = 16;
    const RANGE: (u8, u8) = (0, 63);
    fn bits(j: usize) -> [Bits; 2] {
        let (half, run, l) = (j / 128, j / 32 % 4, j % 32);
        [
            Bits { byte: half * 64 + run % 2 * 32 + l, shift: (run / 2 * 4) as u32, count: 4 },
            Bits { byte: 128 + half * 32 + l, shift: (run * 2) as u32, count: 2 },
        ]
    }
    fn step(block: &[u8], sub: usize) -> f32 {
        half_at(block, 208) * f32::from(block[192 + sub] as i8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPES: [DType; 8] = [
        DType::Q4_0,
        DType::Q4_1,
        DType::Q5_0,
        DType::Q5_1,
        DType::Q8_0,
        DType::Q4_K,
        DType::Q5_K,
        DType::Q6_K,
    ];

    /// Numbers without a pattern, in [-1, 1).
    fn noise(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        (0..count)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect()
    }

    fn encoded(dtype: DType, values: &[f32]) -> Vec<u8> {
        let mut bytes = vec![0; dtype.bytes_for(values.len() as u64).unwrap() as usize];
        encode(dtype, values, &mut bytes).unwrap();
        bytes
    }

    fn decoded(dtype: DType, bytes: &[u8]) -> Vec<f32> {
        let mut values = vec![0.0; bytes.len() / dtype.block_bytes() * dtype.block_elements()];
        decode(dtype, bytes, &mut values).unwrap();
        values
    }

    #[test]
    fn no_change_gives_the_very_bytes_back_even_of_arbitrary_blocks() {
        for dtype in TYPES {
            let random: Vec<u8> =
                noise(dtype.block_bytes() * 16, 3).iter().map(|x| (x * 128.0) as u8).collect();
            for base in [encoded(dtype, &noise(1024, 1)), random] {
                let values = decoded(dtype, &base);
                if !values.iter().all(|v| v.is_finite()) {
                    continue;
                }
                let mut out = vec![0xaa; base.len()];
                encode_keeping_scales(dtype, &base, &values, &mut out).unwrap();
                assert_eq!(out, base, "{dtype}");
            }
        }
    }

    #[test]
    fn every_code_can_be_reached_and_lies_where_the_grid_says() {
        for dtype in TYPES {
            let base = encoded(dtype, &noise(512, 5));
            let grid = Grid::read(dtype, &base).unwrap().unwrap();
            let present = decoded(dtype, &base);
            for rise in [-300i32, -17, -2, -1, 1, 3, 300] {
                let moves: Vec<f32> = (0..512)
                    .map(|j| {
                        let sign = if j % 3 == 0 { -1.0 } else { 1.0 };
                        (rise as f32 * sign).clamp(-grid.below[j], grid.above[j])
                    })
                    .collect();
                let wanted: Vec<f32> =
                    (0..512).map(|j| present[j] + 1.01 * grid.steps[j] * moves[j]).collect();
                let mut out = vec![0; base.len()];
                encode_keeping_scales(dtype, &base, &wanted, &mut out).unwrap();
                for (j, found) in decoded(dtype, &out).into_iter().enumerate() {
                    let right = present[j] + grid.steps[j] * moves[j];
                    // 1.01 of 50 steps and more is another code.
                    let slack = 0.011 * (grid.steps[j] * moves[j]).abs() + 0.51 * 0.01 + 1e-5;
                    assert!((found - right).abs() <= slack, "{dtype} {j} {rise}: {found} {right}");
                }
            }
        }
    }

    #[test]
    fn values_between_two_codes_go_to_the_nearer() {
        for dtype in TYPES {
            let base = encoded(dtype, &noise(256, 8));
            let grid = Grid::read(dtype, &base).unwrap().unwrap();
            let present = decoded(dtype, &base);
            for (share, moved) in [(0.45, 0.0), (0.55, 1.0)] {
                let wanted: Vec<f32> = (0..256).map(|j| present[j] + share * grid.steps[j]).collect();
                let mut out = vec![0; base.len()];
                encode_keeping_scales(dtype, &base, &wanted, &mut out).unwrap();
                for (j, found) in decoded(dtype, &out).into_iter().enumerate() {
                    let right = present[j] + moved * grid.steps[j] * grid.above[j].min(1.0);
                    assert!((found - right).abs() < 1e-5, "{dtype} {j}: {found} {right}");
                }
            }
        }
    }

    #[test]
    fn hostile_blocks_and_values_do_no_harm() {
        for dtype in TYPES {
            let base = vec![0xff; dtype.block_bytes()];
            let mut out = base.clone();
            encode_keeping_scales(dtype, &base, &noise(dtype.block_elements(), 2), &mut out).unwrap();
            let bad = vec![f32::NAN; dtype.block_elements()];
            assert!(encode_keeping_scales(dtype, &base, &bad, &mut out).is_err());
            assert!(encode_keeping_scales(dtype, &base[1..], &bad, &mut out).is_err());
        }
        assert_eq!(Grid::read(DType::F16, &[0; 6]), Ok(None));
        assert!(Grid::read(DType::Q4_0, &[0; 17]).is_err());
        assert_eq!(Grid::read(DType::TQ2_0, &[0; 66]), Err(QuantError::CannotEncode(DType::TQ2_0)));
    }
}
