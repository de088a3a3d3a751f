//! The gain g at which rounding W + g d keeps the whole change d. The share that survives rises with g.

use curmerge_formats::dtype::DType;
use curmerge_formats::quant::{LinearGrid, NonLinearGrid, round_to_float};

use crate::kernels::{Cpu, Multiversion};

/// A share this near to 1 is good enough.
pub(super) const NEAR: f64 = 0.01;

/// The share of the change that survives rounding W + g d.
pub(super) trait Survival {
    fn share(&self, gain: f32) -> f64;
}

/// The share of a row at one gain, as work for the widest SIMD.
struct Share<'a, R> {
    row: &'a R,
    gain: f32,
}

impl<R: Survival> Multiversion for Share<'_, R> {
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        self.row.share(self.gain)
    }
}

/// The gain whose share is nearest to 1, or 1 if no other does better. The search brackets it between a gain
/// that is too small and one that is too large, on a logarithmic scale. The share jumps from code to code; of
/// two equal shares the gain nearer to 1 is kept.
pub(super) fn gain(row: &impl Survival) -> f32 {
    const DOUBLINGS: usize = 32;
    const REFINEMENTS: usize = 24;
    let (mut best, mut distance) = (1f32, f64::INFINITY);
    let mut share_of = |gain: f32| {
        let share = Cpu::current().dispatch(Share { row, gain });
        if (share - 1.0).abs() < distance {
            (best, distance) = (gain, (share - 1.0).abs());
        }
        share
    };
    let first = share_of(1.0);
    // A change that is out of range must fail; it is not shrunk until it fits.
    if (first - 1.0).abs() <= NEAR || !first.is_finite() {
        return 1.0;
    }
    let raise = first < 1.0;
    // Gains below and above the wanted one, with their shares.
    let (mut low, mut high) = ((1f32, first), (1f32, first));
    for _ in 0..DOUBLINGS {
        if raise {
            let above = high.0 * 2.0;
            (low, high) = (high, (above, share_of(above)));
        } else {
            let below = low.0 / 2.0;
            (low, high) = ((below, share_of(below)), low);
        }
        let share = if raise { high.1 } else { low.1 };
        if (share - 1.0).abs() <= NEAR {
            return best;
        }
        if raise && share >= 1.0 || !raise && share <= 1.0 {
            break;
        }
    }
    let mut halve = false;
    for _ in 0..REFINEMENTS {
        if high.0 / low.0 < 1.0001 {
            break;
        }
        // Interpolation and halving take turns, since shares may jump.
        let part = (1.0 - low.1) / (high.1 - low.1);
        let part = if halve || !part.is_finite() { 0.5 } else { part.clamp(0.05, 0.95) };
        halve = !halve;
        let between = low.0 * (high.0 / low.0).powf(part as f32);
        let share = share_of(between);
        if (share - 1.0).abs() <= NEAR {
            break;
        }
        *(if share < 1.0 { &mut low } else { &mut high }) = (between, share);
    }
    best
}

/// The change d of a row, in the form that the searches take.
pub(super) struct RowDelta {
    /// d over its greatest magnitude, so that no product of small numbers underflows in f32.
    direction: Vec<f32>,
    greatest: f32,
    /// |d|^2 over that magnitude.
    squared: f64,
}

impl RowDelta {
    pub(super) fn new(d: &[f32]) -> Self {
        let greatest = d.iter().fold(0f32, |max, x| max.max(x.abs()));
        let direction: Vec<f32> = d.iter().map(|x| x / greatest).collect();
        let squared =
            direction.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>() * f64::from(greatest);
        Self { direction, greatest, squared }
    }
}

/// One over each step; 0 where a step is zero or too small to be inverted.
fn inverses(steps: &[f32]) -> Vec<f32> {
    steps
        .iter()
        .map(|step| 1.0 / step)
        .map(|inverse| if inverse.is_finite() { inverse } else { 0.0 })
        .collect()
}

/// Values per SIMD step of the searches.
const LANES: usize = 8;

/// Rounding to whole steps of a block's grid.
pub(super) struct Steps<'a> {
    grid: &'a LinearGrid,
    /// One over the steps.
    inverses: Vec<f32>,
    /// W minus what the blocks of the grid decode to: zero unless the type changes.
    residual: Vec<f32>,
    delta: RowDelta,
}

impl<'a> Steps<'a> {
    pub(super) fn new(grid: &'a LinearGrid, present: &[f32], w: &[f32], d: &[f32]) -> Self {
        Self {
            grid,
            inverses: inverses(&grid.steps),
            residual: w.iter().zip(present).map(|(w, p)| w - p).collect(),
            delta: RowDelta::new(d),
        }
    }
}

impl Survival for Steps<'_> {
    #[inline(always)]
    fn share(&self, gain: f32) -> f64 {
        /// Adding and subtracting it rounds to a whole number, in SIMD; codes are far below its 2^22.
        const ROUNDER: f32 = 12_582_912.0;
        let gain = gain * self.delta.greatest;
        let mut sums = [0f32; LANES];
        let (steps, _) = self.grid.steps.as_chunks::<LANES>();
        let (below, _) = self.grid.below.as_chunks::<LANES>();
        let (above, _) = self.grid.above.as_chunks::<LANES>();
        let (inverses, _) = self.inverses.as_chunks::<LANES>();
        let (residual, _) = self.residual.as_chunks::<LANES>();
        let (direction, _) = self.delta.direction.as_chunks::<LANES>();
        for i in 0..steps.len() {
            for l in 0..LANES {
                let wanted = (residual[i][l] + gain * direction[i][l]) * inverses[i][l];
                let code = (wanted.max(-below[i][l]).min(above[i][l]) + ROUNDER) - ROUNDER;
                sums[l] += (code * steps[i][l] - residual[i][l]) * direction[i][l];
            }
        }
        sums.iter().map(|&s| f64::from(s)).sum::<f64>() / self.delta.squared
    }
}

/// Rounding to levels that a block's scale multiplies.
pub(super) struct Levels<'a> {
    grid: &'a NonLinearGrid,
    /// One over the scales.
    inverses: Vec<f32>,
    w: &'a [f32],
    delta: RowDelta,
}

impl<'a> Levels<'a> {
    pub(super) fn new(grid: &'a NonLinearGrid, w: &'a [f32], d: &[f32]) -> Self {
        Self { grid, inverses: inverses(&grid.scales), w, delta: RowDelta::new(d) }
    }
}

impl Survival for Levels<'_> {
    #[inline(always)]
    fn share(&self, gain: f32) -> f64 {
        let gain = gain * self.delta.greatest;
        let levels = &self.grid.levels;
        let middles: [f32; 15] = std::array::from_fn(|k| (levels[k] + levels[k + 1]) / 2.0);
        let gaps: [f32; 15] = std::array::from_fn(|k| levels[k + 1] - levels[k]);
        let mut sums = [0f32; LANES];
        let (scales, _) = self.grid.scales.as_chunks::<LANES>();
        let (inverses, _) = self.inverses.as_chunks::<LANES>();
        let (w, _) = self.w.as_chunks::<LANES>();
        let (direction, _) = self.delta.direction.as_chunks::<LANES>();
        for i in 0..scales.len() {
            let wanted: [f32; LANES] =
                std::array::from_fn(|l| (w[i][l] + gain * direction[i][l]) * inverses[i][l]);
            // The gaps below a level add up to it exactly.
            let mut level = [levels[0]; LANES];
            for (middle, gap) in middles.iter().zip(gaps) {
                for l in 0..LANES {
                    level[l] += if wanted[l] >= *middle { gap } else { 0.0 };
                }
            }
            for l in 0..LANES {
                sums[l] += (level[l] * scales[i][l] - w[i][l]) * direction[i][l];
            }
        }
        sums.iter().map(|&s| f64::from(s)).sum::<f64>() / self.delta.squared
    }
}

/// Rounding to the nearest number of a float type, whose steps grow with the value.
pub(super) struct Floats<'a> {
    /// That type.
    pub(super) dtype: DType,
    /// The values W.
    pub(super) w: &'a [f32],
    /// The change d.
    pub(super) delta: RowDelta,
}

impl Survival for Floats<'_> {
    #[inline(always)]
    fn share(&self, gain: f32) -> f64 {
        const CHUNK: usize = 64;
        let gain = gain * self.delta.greatest;
        let mut sums = [0f32; LANES];
        for (w, direction) in self.w.chunks(CHUNK).zip(self.delta.direction.chunks(CHUNK)) {
            let mut rounded = [0.0; CHUNK];
            let rounded = &mut rounded[..w.len()];
            for ((rounded, w), direction) in rounded.iter_mut().zip(w).zip(direction) {
                *rounded = w + gain * direction;
            }
            // A gain that carries a value out of range gives an infinite share, so it counts as too large.
            round_to_float(self.dtype, rounded);
            for (i, ((rounded, w), direction)) in rounded.iter().zip(w).zip(direction).enumerate() {
                sums[i % LANES] += (rounded - w) * direction;
            }
        }
        sums.iter().map(|&s| f64::from(s)).sum::<f64>() / self.delta.squared
    }
}
