//! The arithmetic on the numbers of several adapters at one place: what PEFT's `merge_utils` computes, in f32
//! and in its order.

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::options::{CombineOptions, MajoritySign, Pruning};
use crate::kernels::random::uniform;

/// Numbers that one thread combines at a time.
const CHUNK: usize = 1 << 14;

/// What a draw is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draw<'a> {
    /// Canonical name of the matrix.
    pub(super) name: &'a str,
    /// `A`, `B`, `U` or `dW`.
    pub(super) part: &'a str,
    /// Numbers in a row.
    pub(super) cols: usize,
}

/// One adapter's numbers.
pub(super) struct Numbers {
    /// Its place among the adapters of the command, from 0.
    pub(super) adapter: usize,
    pub(super) values: Vec<f32>,
    pub(super) weight: f32,
}

/// The combination of the adapters' numbers, which have equal lengths.
pub(super) fn combined(mut all: Vec<Numbers>, draw: Draw<'_>, options: &CombineOptions) -> Vec<f32> {
    let way = options.combination;
    let density = options.density.unwrap_or(1.0);
    // PEFT leaves numbers alone at a density of 1.
    if density < 1.0 {
        for numbers in &mut all {
            match way.pruning() {
                Pruning::None => {}
                Pruning::Smallest => keep_largest(&mut numbers.values, density),
                Pruning::Random => {
                    drop_at_random(&mut numbers.values, density, options.seed, numbers.adapter, draw);
                }
            }
        }
    }
    let sign = way.elects_signs().then_some(options.majority_sign);
    let mut out = vec![0.0; all.first().map_or(0, |numbers| numbers.values.len())];
    out.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, out)| {
        let own: Vec<(&[f32], f32)> =
            all.iter().map(|n| (&n.values[chunk * CHUNK..][..out.len()], n.weight)).collect();
        for (place, out) in out.iter_mut().enumerate() {
            let at = own.iter().map(|(values, weight)| (values[place], *weight));
            *out = match sign {
                None => at.map(|(x, weight)| x * weight).sum(),
                Some(sign) => disjoint_mean(at, sign),
            };
        }
    });
    out
}

/// The mean of those weighted numbers whose own sign is that of the majority.
fn disjoint_mean(at: impl Iterator<Item = (f32, f32)> + Clone, sign: MajoritySign) -> f32 {
    let sign_of = |x: f32| if x == 0.0 { 0.0 } else { x.signum() };
    let total: f32 = match sign {
        MajoritySign::Total => at.clone().map(|(x, _)| x).sum(),
        MajoritySign::Frequency => at.clone().map(|(x, _)| sign_of(x)).sum(),
    };
    let majority = if total >= 0.0 { 1.0 } else { -1.0 };
    let (mut sum, mut count) = (0.0, 0.0f32);
    for (x, weight) in at.filter(|(x, _)| sign_of(*x) == majority) {
        sum += x * weight;
        count += 1.0;
    }
    sum / count.max(1.0)
}

/// Makes all but the `density` numbers of the largest magnitude zero. Of equal ones the first stay.
fn keep_largest(values: &mut [f32], density: f64) {
    let kept = (density * values.len() as f64) as usize;
    if kept >= values.len() {
        return;
    }
    let mut sizes: Vec<f32> = values.iter().map(|x| x.abs()).collect();
    let (larger, least, _) = match kept.checked_sub(1) {
        None => return values.fill(0.0),
        Some(last) => sizes.select_nth_unstable_by(last, |a, b| b.total_cmp(a)),
    };
    let least = *least;
    let mut equal = kept - larger.iter().filter(|x| **x > least).count();
    for x in values {
        let size = x.abs();
        if size == least && equal > 0 {
            equal -= 1;
        } else if size <= least {
            *x = 0.0;
        }
    }
}

/// Makes numbers zero with the probability `1 - density`, and divides the others by it.
///
/// The stream is ChaCha20 keyed by SHA-256 of `"curmerge-dare-1\0"`, the seed and the adapter's place (u64,
/// little-endian), the canonical name, `"\0"` and the part. Each row, in canonical order, has the stream of its
/// number, and a number of the row is kept if the next uniform one is below the density.
fn drop_at_random(values: &mut [f32], density: f64, seed: u64, adapter: usize, draw: Draw<'_>) {
    let mut hash = Sha256::new();
    hash.update(b"curmerge-dare-1\0");
    hash.update(seed.to_le_bytes());
    hash.update((adapter as u64).to_le_bytes());
    hash.update(draw.name.as_bytes());
    hash.update(b"\0");
    hash.update(draw.part.as_bytes());
    let key: [u8; 32] = hash.finalize().into();
    let divisor = density as f32;
    values.par_chunks_mut(draw.cols.max(1)).enumerate().for_each(|(row, values)| {
        let mut stream = ChaCha20Rng::from_seed(key);
        stream.set_stream(row as u64);
        for x in values {
            *x = if uniform(&mut stream) < density { *x / divisor } else { 0.0 };
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::combine::Combination;

    #[test]
    fn the_largest_stay_and_of_equal_ones_the_first() {
        let kept = |density: f64| {
            let mut values = [1.0, -3.0, 2.0, -2.0, 2.0, 0.0];
            keep_largest(&mut values, density);
            values
        };
        assert_eq!(kept(0.5), [0.0, -3.0, 2.0, -2.0, 0.0, 0.0]);
        assert_eq!(kept(0.34), [0.0, -3.0, 2.0, 0.0, 0.0, 0.0]);
        assert_eq!(kept(0.1), [0.0; 6]);
        assert_eq!(kept(0.99), [1.0, -3.0, 2.0, -2.0, 2.0, 0.0]);
    }

    #[test]
    fn signs_are_elected_before_weights() {
        let mean = |at: [(f32, f32); 3], sign| disjoint_mean(at.into_iter(), sign);
        // By total the majority is negative, by frequency positive.
        let at = [(1.0, 2.0), (2.0, -1.0), (-4.0, 0.5)];
        assert_eq!(mean(at, MajoritySign::Total), -2.0);
        assert_eq!(mean(at, MajoritySign::Frequency), 0.0);
        assert_eq!(mean([(0.0, 1.0); 3], MajoritySign::Total), 0.0);
    }

    /// Shares and sums of what is kept are those of independent draws, and each adapter has its own.
    #[test]
    fn draws_keep_the_density_and_the_expected_value() {
        let (rows, cols, density) = (400, 500, 0.3);
        let dropped = |adapter: usize, seed: u64, part: &str| {
            let mut values = vec![1.0f32; rows * cols];
            drop_at_random(&mut values, density, seed, adapter, Draw { name: "blk.0.attn_q", part, cols });
            values
        };
        let values = dropped(0, 1, "A");
        let kept = values.iter().filter(|x| **x != 0.0).count() as f64;
        let n = (rows * cols) as f64;
        let deviation = (n * density * (1.0 - density)).sqrt();
        assert!((kept - n * density).abs() < 4.0 * deviation, "{kept}");
        assert!(values.iter().all(|&x| x == 0.0 || x == 1.0 / 0.3f32));
        for other in [dropped(1, 1, "A"), dropped(0, 2, "A"), dropped(0, 1, "B")] {
            let both = values.iter().zip(&other).filter(|(x, y)| **x != 0.0 && **y != 0.0).count() as f64;
            let square = density * density;
            assert!((both - n * square).abs() < 4.0 * (n * square * (1.0 - square)).sqrt(), "{both}");
        }
        // Rows and neighbours do not repeat each other.
        let same = |step: usize| values.iter().zip(&values[step..]).filter(|(x, y)| x == y).count() as f64;
        let equal = density * density + 0.7 * 0.7;
        for step in [1, 2, cols] {
            assert!((same(step) / n - equal).abs() < 0.01, "{step}");
        }
        assert_eq!(values, dropped(0, 1, "A"));
    }

    #[test]
    fn bytes_do_not_depend_on_the_thread_count() {
        let options = CombineOptions {
            combination: Combination::DareTies,
            density: Some(0.5),
            ..CombineOptions::default()
        };
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let values = |k: usize| (0..90_000).map(|i| ((i * 7 + k) % 101) as f32 - 50.0).collect();
            let all = (0..3).map(|k| Numbers { adapter: k, values: values(k), weight: 0.5 }).collect();
            pool.install(|| combined(all, Draw { name: "x", part: "U", cols: 300 }, &options))
        };
        assert_eq!(run(1), run(4));
    }
}
