//! Blocks whose values are `step * code + offset`.

use super::codes::Codes;

/// The step of every value of some stored blocks, and how far its code can move.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LinearGrid {
    /// The change of a value when its code rises by one. It may be negative; it is zero in a block of equal
    /// values.
    pub steps: Vec<f32>,
    /// The number of codes below the present one.
    pub below: Vec<f32>,
    /// The number of codes above the present one.
    pub above: Vec<f32>,
}

/// How a block type stores its steps.
pub(super) trait Linear: Codes {
    /// Values that share a step.
    const SUB: usize = Self::BLOCK;
    /// Least and greatest code that the encoder writes.
    const RANGE: (u8, u8);

    /// The step of sub-block `sub`.
    fn step(block: &[u8], sub: usize) -> f32;

    /// How far a code can fall and rise within the encoder's range. A code outside it never moves further
    /// out.
    fn room(code: u8) -> (u8, u8) {
        (code.saturating_sub(Self::RANGE.0), Self::RANGE.1.saturating_sub(code))
    }
}

pub(super) fn read<C: Linear>(blocks: &[u8]) -> LinearGrid {
    let mut grid = LinearGrid::default();
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

/// Moves the codes of `out`, which decodes to `present`, to those nearest to `values`, halves away from the
/// present code. It counts whole steps from the present value, so the choice is exact up to the rounding of
/// `f32`.
pub(super) fn write<C: Linear>(present: &[f32], values: &[f32], out: &mut [u8]) {
    let numbers = present.chunks_exact(C::BLOCK).zip(values.chunks_exact(C::BLOCK));
    for (block, (present, values)) in out.chunks_exact_mut(C::BYTES).zip(numbers) {
        let subs = present.chunks_exact(C::SUB).zip(values.chunks_exact(C::SUB));
        for (sub, (present, values)) in subs.enumerate() {
            let step = C::step(block, sub);
            if step == 0.0 {
                continue;
            }
            for (l, (present, value)) in present.iter().zip(values).enumerate() {
                let change = value - present;
                if change == 0.0 {
                    continue;
                }
                let j = sub * C::SUB + l;
                let code = C::code(block, j);
                let (below, above) = C::room(code);
                // A hostile scale can make this NaN. The cast turns NaN into no change.
                let moves = (change / step).round().clamp(-f32::from(below), f32::from(above)) as i32;
                C::set_code(block, j, (i32::from(code) + moves) as u8);
            }
        }
    }
}
