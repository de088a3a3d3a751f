//! Rounding one changed row so that the change survives.
//!
//! Rounding W + d to the nearest code loses every change smaller than half a quantization step. Of a small
//! adapter on a 4-bit matrix that is nearly all. What counts is the share of the change that survives in its
//! own direction, `<Q - W, d> / |d|^2`. So the row is rounded as Q(W + g d) on the grid of the base's own
//! scales, with the gain g that brings the share nearest to 1. Among all choices of codes with that share,
//! this one has the least error |Q - W - d|: with a Lagrange multiplier for the share, each code becomes the
//! rounding of (1 + lambda) d. In words: of many changes too small for a step, the largest take a whole step
//! on behalf of the rest. This holds for uneven levels as for even steps.

use curmerge_formats::dtype::DType;
use curmerge_formats::quant::{Grid, QuantError, decode, encode, encode_weighted, encode_with_fixed_scales};

use super::gain::{Floats, Levels, NEAR, RowDelta, Steps, gain};
use super::report::Sums;

/// Shares within which encoding with new scales may be taken instead.
pub(super) const PLAIN_SHARES: std::ops::RangeInclusive<f64> = 0.9..=1.1;
/// Encoding with new scales costs about a twelfth of a squared step per value. It is tried only where the old
/// scales cost more than this fraction of a squared step.
pub(super) const PLAIN_ERROR: f64 = 1.0 / 8.0;

/// How one matrix is stored before and after.
#[derive(Clone, Copy, Debug)]
pub struct Types<'a> {
    /// As the base stores it.
    pub stored: DType,
    /// As the output will.
    pub output: DType,
    /// How much an error in each column counts where the type changes; `None` for all alike.
    pub importance: Option<&'a [f32]>,
}

impl Types<'_> {
    fn encode(&self, values: &[f32], out: &mut [u8]) -> Result<(), QuantError> {
        match self.importance {
            Some(importance) => encode_weighted(self.output, values, importance, out),
            None => encode(self.output, values, out),
        }
    }
}

/// Rounds the row with values `w`, stored as `stored`, and its change `d` into `out`. Returns what became of
/// the change.
///
/// # Errors
/// [`QuantError::OutOfRange`] for a value that the output type cannot hold.
pub fn row(
    types: Types<'_>,
    stored: &[u8],
    w: &[f32],
    d: &[f32],
    out: &mut [u8],
) -> Result<Sums, QuantError> {
    let greatest = d.iter().fold(0f32, |max, x| max.max(x.abs()));
    if types.stored == types.output {
        if greatest == 0.0 {
            out.copy_from_slice(stored);
            return Ok(Sums::of_row(w, w, d));
        }
        keep_grid(types.output, stored, w, d, out)
    } else {
        types.encode(&sum(w, d, 1.0), out)?;
        let plain = measure(types.output, w, d, out)?;
        if greatest == 0.0 || PLAIN_SHARES.contains(&plain.share()) {
            return Ok(plain);
        }
        // W itself may lie on the grid of the new type (BF16 in F16); then small changes vanish here too.
        let mut base = vec![0; out.len()];
        types.encode(w, &mut base)?;
        keep_grid(types.output, &base, w, d, out)
    }
}

/// Rounds on the grid of `base`: blocks of `dtype` that decode to `w` or nearly so.
fn keep_grid(dtype: DType, base: &[u8], w: &[f32], d: &[f32], out: &mut [u8]) -> Result<Sums, QuantError> {
    let Some(grid) = Grid::read(dtype, base)? else { return without_grid(dtype, w, d, out) };
    let gain = match &grid {
        Grid::Linear(grid) => {
            let mut present = vec![0.0; w.len()];
            decode(dtype, base, &mut present)?;
            gain(&Steps::new(grid, &present, w, d))
        }
        Grid::NonLinear(grid) => gain(&Levels::new(grid, w, d)),
    };
    encode_with_fixed_scales(dtype, base, &sum(w, d, gain), out)?;
    let kept = measure(dtype, w, d, out)?;
    if !dtype.can_encode() {
        return Ok(kept);
    }

    let squared_steps: f64 = grid.steps().iter().map(|&s| f64::from(s) * f64::from(s)).sum();
    if kept.error() <= squared_steps * PLAIN_ERROR && PLAIN_SHARES.contains(&kept.share()) {
        return Ok(kept);
    }
    let mut plain = vec![0; out.len()];
    encode(dtype, &sum(w, d, 1.0), &mut plain)?;
    let measured = measure(dtype, w, d, &plain)?;
    if PLAIN_SHARES.contains(&measured.share()) && measured.error() < kept.error() {
        out.copy_from_slice(&plain);
        return Ok(measured);
    }
    Ok(kept)
}

/// Rounds a type whose values have their own exponents. Plain rounding nearly always keeps the change.
fn without_grid(dtype: DType, w: &[f32], d: &[f32], out: &mut [u8]) -> Result<Sums, QuantError> {
    encode(dtype, &sum(w, d, 1.0), out)?;
    let plain = measure(dtype, w, d, out)?;
    if (plain.share() - 1.0).abs() <= NEAR {
        return Ok(plain);
    }
    encode(dtype, &sum(w, d, gain(&Floats { dtype, w, delta: RowDelta::new(d) })), out)?;
    measure(dtype, w, d, out)
}

fn sum(w: &[f32], d: &[f32], gain: f32) -> Vec<f32> {
    w.iter().zip(d).map(|(&w, &d)| w + gain * d).collect()
}

/// What became of the row, measured on what `bytes` decode to.
fn measure(dtype: DType, w: &[f32], d: &[f32], bytes: &[u8]) -> Result<Sums, QuantError> {
    /// A multiple of every block's length.
    const CHUNK: usize = 256;
    let mut sums = Sums::default();
    let chunk_bytes = CHUNK / dtype.block_elements() * dtype.block_bytes();
    let chunks = bytes.chunks(chunk_bytes).zip(w.chunks(CHUNK)).zip(d.chunks(CHUNK));
    for ((bytes, w), d) in chunks {
        let mut q = [0.0; CHUNK];
        let q = &mut q[..w.len()];
        decode(dtype, bytes, q)?;
        sums.add(&Sums::of_row(q, w, d));
    }
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    use super::*;

    const COLS: usize = 512;

    /// Roughly normal numbers.
    fn normal(stream: &mut ChaCha20Rng, size: f32) -> Vec<f32> {
        let uniform = |stream: &mut ChaCha20Rng| (stream.next_u32() >> 8) as f32 / (1 << 24) as f32 - 0.5;
        (0..COLS).map(|_| size * (0..12).map(|_| uniform(stream)).sum::<f32>()).collect()
    }

    /// A row of `dtype`. Without an encoder its scales fit values with a spread of 0.1.
    fn stored_row(dtype: DType, values: &[f32]) -> Vec<u8> {
        let mut stored = vec![0; dtype.bytes_for(COLS as u64).unwrap() as usize];
        if dtype.can_encode() {
            encode(dtype, values, &mut stored).unwrap();
            return stored;
        }
        for block in stored.chunks_exact_mut(dtype.block_bytes()) {
            // 0x2e66 is 0.1 and 0x10 of NVFP4 a 64th.
            match dtype {
                DType::NVFP4 => block[..4].fill(0x10),
                DType::TQ1_0 | DType::TQ2_0 => {
                    block[dtype.block_bytes() - 2..].copy_from_slice(&[0x66, 0x2e]);
                }
                _ => block[..2].copy_from_slice(&[0x66, 0x2e]),
            }
        }
        encode_with_fixed_scales(dtype, &stored.clone(), values, &mut stored).unwrap();
        stored
    }

    /// Rows of `dtype` and a change of `size` times their spread; the sums of rounding with `round`.
    fn over_rows(dtype: DType, size: f32, round: impl Fn(&[u8], &[f32], &[f32], &mut [u8]) -> Sums) -> Sums {
        let mut stream = ChaCha20Rng::seed_from_u64(1);
        let mut sums = Sums::default();
        for _ in 0..64 {
            let stored = stored_row(dtype, &normal(&mut stream, 0.1));
            let mut w = vec![0.0; COLS];
            decode(dtype, &stored, &mut w).unwrap();
            let d = normal(&mut stream, 0.1 * size);
            let mut out = vec![0; stored.len()];
            sums.add(&round(&stored, &w, &d, &mut out));
        }
        sums
    }

    fn kept(dtype: DType, size: f32) -> Sums {
        let types = Types { stored: dtype, output: dtype, importance: None };
        over_rows(dtype, size, |stored, w, d, out| row(types, stored, w, d, out).unwrap())
    }

    #[test]
    fn a_small_change_survives_where_plain_rounding_loses_it() {
        use DType::*;
        for dtype in [
            Q4_0, Q4_1, Q5_0, Q5_1, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS, MXFP4, NVFP4, Q1_0, Q2_0,
            TQ1_0, TQ2_0,
        ] {
            let size = match dtype {
                Q6_K => 0.003,
                // A single code is too large for a smaller change.
                Q1_0 | Q2_0 | TQ1_0 | TQ2_0 => 0.03,
                _ => 0.01,
            };
            let plain = over_rows(dtype, size, |stored, w, d, out| {
                encode_with_fixed_scales(dtype, stored, &sum(w, d, 1.0), out).unwrap();
                measure(dtype, w, d, out).unwrap()
            });
            assert!(plain.share() < 0.05, "{dtype}: nearest codes keep {}", plain.share());
            let kept = kept(dtype, size);
            assert!((kept.share() - 1.0).abs() < 0.05, "{dtype}: {}", kept.share());
            assert!(kept.noise() < 10.0, "{dtype}: {}", kept.noise());
        }
    }

    #[test]
    fn a_change_larger_than_a_step_survives_with_little_noise() {
        for dtype in [
            DType::Q8_0,
            DType::Q6_K,
            DType::Q4_K,
            DType::Q4_1,
            DType::IQ4_XS,
            DType::BF16,
            DType::F16,
            DType::F32,
        ] {
            let kept = kept(dtype, 0.5);
            assert!((kept.share() - 1.0).abs() < 0.02, "{dtype}: {}", kept.share());
            assert!(kept.noise() < 0.3, "{dtype}: {}", kept.noise());
        }
    }

    #[test]
    fn float_types_keep_changes_below_half_a_unit_in_the_last_place() {
        // A unit in the last place of BF16 is 0.4 to 0.8 per cent of the value.
        let kept = kept(DType::BF16, 1e-4);
        assert!((kept.share() - 1.0).abs() < 0.02, "{}", kept.share());
    }

    #[test]
    fn a_change_far_beyond_the_old_scales_takes_new_ones() {
        let kept = kept(DType::Q4_1, 20.0);
        assert!((kept.share() - 1.0).abs() < 0.02 && kept.noise() < 0.15, "{kept:?}");
    }

    #[test]
    fn another_type_keeps_the_change_too() {
        for (stored, output) in [
            (DType::Q4_1, DType::Q8_0),
            (DType::BF16, DType::F16),
            (DType::BF16, DType::Q4_K),
            (DType::F32, DType::Q4_1),
            (DType::F32, DType::IQ4_NL),
            (DType::BF16, DType::MXFP4),
            (DType::TQ2_0, DType::Q3_K),
        ] {
            let types = Types { stored, output, importance: None };
            let sums = over_rows(stored, 0.01, |bytes, w, d, _| {
                let mut out = vec![0; output.bytes_for(COLS as u64).unwrap() as usize];
                row(types, bytes, w, d, &mut out).unwrap()
            });
            assert!((sums.share() - 1.0).abs() < 0.1, "{stored} {output}: {}", sums.share());
        }
    }

    #[test]
    fn no_change_gives_the_stored_bytes_and_tiny_ones_end_the_search() {
        let dtype = DType::Q4_K;
        let types = Types { stored: dtype, output: dtype, importance: None };
        over_rows(dtype, 0.0, |stored, w, d, out| {
            let sums = row(types, stored, w, d, out).unwrap();
            assert_eq!(stored, out);
            sums
        });
        let tiny = kept(dtype, 1e-30);
        assert!(tiny.share().is_finite());
    }

    #[test]
    fn values_beyond_the_type_are_named() {
        let types = Types { stored: DType::F16, output: DType::F16, importance: None };
        let w = vec![60000.0; 4];
        let mut stored = vec![0; 8];
        encode(DType::F16, &w, &mut stored).unwrap();
        let problem = row(types, &stored, &w, &[0.0, 0.0, 9000.0, 0.0], &mut [0; 8]).unwrap_err();
        assert!(matches!(problem, QuantError::OutOfRange { index: 2, .. }), "{problem}");
    }
}
