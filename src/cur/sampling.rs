//! Weighted draws without replacement from a ChaCha20 stream for each tensor.

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use sha2::{Digest, Sha256};

use crate::kernels::random::uniform;
use crate::{Error, Result};

/// Which index set is drawn. Each has its own random stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    /// Rows of W, which make R.
    Rows,
    /// Columns of W, which make C.
    Cols,
}

impl Axis {
    fn word(self) -> &'static str {
        match self {
            Axis::Rows => "rows",
            Axis::Cols => "cols",
        }
    }
}

/// Draws `count` indices without replacement, each with a probability proportional to its weight among the
/// remaining ones, and returns them ascending.
///
/// The stream is ChaCha20 keyed by SHA-256 of `"curmerge-1\0"`, the seed (u64, little-endian), the canonical
/// name, a zero byte, and `"rows"` or `"cols"`. A draw is its next u64's upper 53 bits as a fraction of the
/// remaining weight, looked up in the cumulative sum from index 0.
///
/// # Errors
/// Fewer than `count` positive weights.
pub fn sample(weights: &[f64], count: u32, name: &str, axis: Axis, seed: u64) -> Result<Vec<u32>> {
    enough(weights.iter().filter(|w| **w > 0.0).count(), count, name, axis)?;
    let mut stream = ChaCha20Rng::from_seed(key(name, axis, seed));
    let mut remaining = weights.to_vec();
    let mut drawn = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let total: f64 = remaining.iter().sum();
        let fraction = uniform(&mut stream);
        let index = invert(&remaining, fraction * total);
        remaining[index] = 0.0;
        drawn.push(index as u32);
    }
    drawn.sort_unstable();
    Ok(drawn)
}

/// Refuses a matrix of which fewer than `count` columns or rows are not zero.
///
/// # Errors
/// That.
pub fn enough(nonzero: usize, count: u32, name: &str, axis: Axis) -> Result<()> {
    if nonzero >= count as usize {
        return Ok(());
    }
    let what = axis.word();
    Err(Error::request(
        format!("tensor '{name}' has {nonzero} {what} that are not zero, fewer than rank {count}"),
        format!("use a rank of at most {nonzero}, or leave this tensor out of the targets"),
    ))
}

/// The first index whose cumulative weight exceeds `point`; the last positive one where rounding left none.
fn invert(weights: &[f64], point: f64) -> usize {
    let mut sum = 0.0;
    let mut last = 0;
    for (i, &w) in weights.iter().enumerate() {
        if w > 0.0 {
            sum += w;
            last = i;
            if sum > point {
                return i;
            }
        }
    }
    last
}

fn key(name: &str, axis: Axis, seed: u64) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"curmerge-1\0");
    hash.update(seed.to_le_bytes());
    hash.update(name.as_bytes());
    hash.update(b"\0");
    hash.update(axis.word().as_bytes());
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_distinct_positive_and_ascending() {
        let weights: Vec<f64> = (0..100).map(|i| f64::from(i % 3)).collect();
        let drawn = sample(&weights, 66, "blk.0.attn_q", Axis::Cols, 7).unwrap();
        assert!(drawn.windows(2).all(|w| w[0] < w[1]));
        assert!(drawn.iter().all(|&i| i % 3 != 0));
        let error = sample(&weights, 67, "blk.0.attn_q", Axis::Cols, 7).unwrap_err().to_string();
        assert!(error.contains("blk.0.attn_q") && error.contains("66"), "{error}");
    }

    #[test]
    fn name_axis_and_seed_each_change_the_draw() {
        let weights = vec![1.0; 1000];
        let draw = |name, axis, seed| sample(&weights, 16, name, axis, seed).unwrap();
        let first = draw("a", Axis::Rows, 0);
        assert_eq!(first, draw("a", Axis::Rows, 0));
        assert_ne!(first, draw("b", Axis::Rows, 0));
        assert_ne!(first, draw("a", Axis::Cols, 0));
        assert_ne!(first, draw("a", Axis::Rows, 1));
    }

    #[test]
    fn frequencies_follow_the_weights() {
        let weights = [1.0, 2.0, 0.0, 5.0];
        let mut counts = [0; 4];
        for seed in 0..8000 {
            counts[sample(&weights, 1, "t", Axis::Rows, seed).unwrap()[0] as usize] += 1;
        }
        // Four standard deviations of a binomial of 8000 draws are under 180.
        for (count, expected) in counts.into_iter().zip([1000i32, 2000, 0, 5000]) {
            assert!((count - expected).abs() < 180, "{counts:?}");
        }
    }
}
