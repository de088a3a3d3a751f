//! A few random projections of C and R, by which an adapter can tell how far another base's C and R are from
//! those it was trained on, without keeping them.
//!
//! With signs e drawn independently, `E[(<e, C> - <e, C'>)^2] = |C - C'|^2`. The mean over 16 draws has a
//! standard deviation of a third of itself, so the distance is known to within about a fifth: enough to tell
//! another quantization (some per cent) from another model (about 140).

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use sha2::{Digest, Sha256};

use crate::base::Weight;

/// Projections of each of C and R.
const PROJECTIONS: usize = 16;

/// `[C's projections, R's projections]`, 32 numbers: sums over the numbers of C = W[:, cols] and R = W[rows,
/// :], row by row in the canonical layout, each with the signs of a fixed stream.
pub(super) fn sketch(weight: &Weight<'_>, cols: &[u32], rows: &[u32]) -> Vec<f32> {
    let mut numbers = project(&weight.gather_columns(cols), "C").to_vec();
    numbers.extend(project(&weight.gather_rows(rows), "R"));
    numbers.into_iter().map(|x| x as f32).collect()
}

/// Estimates of `|C - C'| / |C|` and `|R - R'| / |R|` between this base's C and R and the recorded ones.
/// `None` when the record has another form.
pub(super) fn distance(
    recorded: &[f32],
    weight: &Weight<'_>,
    cols: &[u32],
    rows: &[u32],
) -> Option<[f64; 2]> {
    if recorded.len() != 2 * PROJECTIONS {
        return None;
    }
    let relative = |values: Vec<f32>, stream, recorded: &[f32]| {
        let found = project(&values, stream);
        let apart: f64 = found.iter().zip(recorded).map(|(x, &y)| (x - f64::from(y)).powi(2)).sum();
        let size: f64 = values.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        if size == 0.0 { 0.0 } else { (apart / PROJECTIONS as f64 / size).sqrt() }
    };
    Some([
        relative(weight.gather_columns(cols), "C", &recorded[..PROJECTIONS]),
        relative(weight.gather_rows(rows), "R", &recorded[PROJECTIONS..]),
    ])
}

fn project(values: &[f32], stream: &str) -> [f64; PROJECTIONS] {
    let mut signs = ChaCha20Rng::from_seed(Sha256::digest(format!("curmerge-sketch-1\0{stream}")).into());
    let mut sums = [0.0; PROJECTIONS];
    for &value in values {
        let bits = signs.next_u32();
        for (k, sum) in sums.iter_mut().enumerate() {
            *sum += if bits >> k & 1 == 0 { f64::from(value) } else { -f64::from(value) };
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_is_estimated_to_within_its_spread() {
        let (m, n) = (64, 48);
        let matrix = |bump: f32| -> Vec<u8> {
            let values = (0..m * n).map(|i| {
                let w = ((i * 7919 % 1009) as f32 / 504.5) - 1.0;
                w * (1.0 + bump * ((i * 31 % 7) as f32 - 3.0))
            });
            values.flat_map(f32::to_le_bytes).collect()
        };
        let (cols, rows) = ([1, 5, 9, 30], [0, 2, 40, 63]);
        let (a, b) = (matrix(0.0), matrix(0.05));
        let (a, b) = (Weight::from_f32_bytes(m, n, &a), Weight::from_f32_bytes(m, n, &b));
        let recorded = sketch(&a, &cols, &rows);
        assert_eq!(recorded, sketch(&a, &cols, &rows));
        assert!(distance(&recorded, &a, &cols, &rows).unwrap().iter().all(|&d| d < 1e-6));
        let true_distance = |x: Vec<f32>, y: Vec<f32>| {
            let apart: f64 = x.iter().zip(&y).map(|(x, y)| f64::from(x - y).powi(2)).sum();
            (apart / y.iter().map(|&y| f64::from(y).powi(2)).sum::<f64>()).sqrt()
        };
        let right = [
            true_distance(a.gather_columns(&cols), b.gather_columns(&cols)),
            true_distance(a.gather_rows(&rows), b.gather_rows(&rows)),
        ];
        for (found, right) in distance(&recorded, &b, &cols, &rows).unwrap().into_iter().zip(right) {
            assert!((found / right - 1.0).abs() < 0.6, "{found} {right}");
        }
        assert_eq!(distance(&recorded[1..], &b, &cols, &rows), None);
    }
}
