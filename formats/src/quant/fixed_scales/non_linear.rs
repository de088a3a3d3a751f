//! Blocks whose values are a scale times one of sixteen unevenly spaced levels: IQ4_NL, IQ4_XS, MXFP4, NVFP4.

use super::codes::{BitCodes, Bits, Codes, NONE, nibble};
use crate::quant::half_at;
use crate::quant::non_linear::{E2M1, IQ4_LEVELS, half_of_e8m0, half_of_ue4m3, iq4_xs_scale};

/// The scale of every value of some stored blocks, and the levels that it multiplies.
#[derive(Clone, Debug, PartialEq)]
pub struct NonLinearGrid {
    /// In ascending order; some may be equal.
    pub levels: [f32; 16],
    /// One a value; may be negative or zero.
    pub scales: Vec<f32>,
    /// The distance of each present value from the farther of its two neighbours.
    pub steps: Vec<f32>,
}

/// Sixteen levels in ascending order.
pub(super) struct Levels {
    levels: [f32; 16],
    /// The code of each level.
    codes: [u8; 16],
    /// The place of each code in that order.
    places: [u8; 16],
}

impl Levels {
    /// `table` has the level of each code, and `codes` the ascending order.
    const fn new(table: &[f32; 16], codes: [u8; 16]) -> Self {
        let (mut levels, mut places) = ([0.0; 16], [0; 16]);
        let mut place = 0;
        while place < 16 {
            levels[place] = table[codes[place] as usize];
            places[codes[place] as usize] = place as u8;
            place += 1;
        }
        Self { levels, codes, places }
    }

    /// The distance of the level at `place` from the farther of its neighbours.
    fn step(&self, place: usize) -> f32 {
        let below = self.levels[place] - self.levels[place.saturating_sub(1)];
        let above = self.levels[(place + 1).min(15)] - self.levels[place];
        below.max(above)
    }

    /// The place whose level times `scale` is nearest to `value`, found by a walk from `place`. If two are
    /// equally near, the one farther from the start is chosen; if levels are equal, the first that the walk
    /// reaches. The midpoints are exact in `f64`, and so is the choice.
    fn nearest(&self, scale: f32, place: usize, value: f32) -> usize {
        let (value, first) = (f64::from(value), f64::from(scale * self.levels[place]));
        // Whether values rise or fall along the walk, and whether places do. NaN begins no walk.
        let sign = match value.partial_cmp(&first) {
            Some(std::cmp::Ordering::Greater) => 1.0,
            Some(std::cmp::Ordering::Less) => -1.0,
            _ => return place,
        };
        let rising = (scale > 0.0) == (sign > 0.0);
        let (mut best, mut nearest, mut at) = (place, first, place);
        while at != if rising { 15 } else { 0 } {
            at = if rising { at + 1 } else { at - 1 };
            let next = f64::from(scale * self.levels[at]);
            let reaches = sign * 2.0 * value >= sign * (nearest + next);
            if !reaches {
                break;
            }
            if next != nearest {
                (best, nearest) = (at, next);
            }
        }
        best
    }
}

static IQ4: Levels = Levels::new(&IQ4_LEVELS, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
static FP4: Levels = Levels::new(&E2M1, [15, 14, 13, 12, 11, 10, 9, 8, 0, 1, 2, 3, 4, 5, 6, 7]);

/// How a block type stores its scales.
pub(super) trait NonLinear: Codes {
    /// Values that share a scale.
    const SUB: usize = Self::BLOCK;

    /// The levels of the codes.
    fn levels() -> &'static Levels;
    /// The scale of sub-block `sub`.
    fn scale(block: &[u8], sub: usize) -> f32;
}

pub(super) fn read<C: NonLinear>(blocks: &[u8]) -> NonLinearGrid {
    let table = C::levels();
    let mut grid = NonLinearGrid { levels: table.levels, scales: vec![], steps: vec![] };
    for block in blocks.chunks_exact(C::BYTES) {
        for j in 0..C::BLOCK {
            if j % C::SUB == 0 {
                grid.scales.extend(std::iter::repeat_n(C::scale(block, j / C::SUB), C::SUB));
            }
            let place = table.places[usize::from(C::code(block, j))];
            grid.steps.push(grid.scales[grid.steps.len()].abs() * table.step(usize::from(place)));
        }
    }
    grid
}

/// Moves the codes of `out`, which decodes to `present`, to those nearest to `values`, halves away from the
/// present code. Codes stay if the scale is zero or NaN.
pub(super) fn write<C: NonLinear>(present: &[f32], values: &[f32], out: &mut [u8]) {
    let table = C::levels();
    let numbers = present.chunks_exact(C::BLOCK).zip(values.chunks_exact(C::BLOCK));
    for (block, (present, values)) in out.chunks_exact_mut(C::BYTES).zip(numbers) {
        let subs = present.chunks_exact(C::SUB).zip(values.chunks_exact(C::SUB));
        for (sub, (present, values)) in subs.enumerate() {
            let scale = C::scale(block, sub);
            for (l, (present, &value)) in present.iter().zip(values).enumerate() {
                if value == *present {
                    continue;
                }
                let j = sub * C::SUB + l;
                let place = usize::from(table.places[usize::from(C::code(block, j))]);
                let nearest = table.nearest(scale, place, value);
                if nearest != place {
                    C::set_code(block, j, table.codes[nearest]);
                }
            }
        }
    }
}

pub(super) struct IQ4NL;
impl BitCodes for IQ4NL {
    const BLOCK: usize = 32;
    const BYTES: usize = 18;
    fn bits(j: usize) -> [Bits; 2] {
        [nibble(2, 16, j), NONE]
    }
}
impl NonLinear for IQ4NL {
    fn levels() -> &'static Levels {
        &IQ4
    }
    fn scale(block: &[u8], _: usize) -> f32 {
        half_at(block, 0)
    }
}

pub(super) struct IQ4XS;
impl BitCodes for IQ4XS {
    const BLOCK: usize = 256;
    const BYTES: usize = 136;
    fn bits(j: usize) -> [Bits; 2] {
        [nibble(8, 16, j), NONE]
    }
}
impl NonLinear for IQ4XS {
    const SUB: usize = 32;
    fn levels() -> &'static Levels {
        &IQ4
    }
    fn scale(block: &[u8], sub: usize) -> f32 {
        iq4_xs_scale(block, sub)
    }
}

pub(super) struct MXFP4;
impl BitCodes for MXFP4 {
    const BLOCK: usize = 32;
    const BYTES: usize = 17;
    fn bits(j: usize) -> [Bits; 2] {
        [nibble(1, 16, j), NONE]
    }
}
impl NonLinear for MXFP4 {
    fn levels() -> &'static Levels {
        &FP4
    }
    fn scale(block: &[u8], _: usize) -> f32 {
        half_of_e8m0(block[0])
    }
}

pub(super) struct NVFP4;
impl BitCodes for NVFP4 {
    const BLOCK: usize = 64;
    const BYTES: usize = 36;
    fn bits(j: usize) -> [Bits; 2] {
        [nibble(4, 8, j), NONE]
    }
}
impl NonLinear for NVFP4 {
    const SUB: usize = 16;
    fn levels() -> &'static Levels {
        &FP4
    }
    fn scale(block: &[u8], sub: usize) -> f32 {
        half_of_ue4m3(block[sub])
    }
}
