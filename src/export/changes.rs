//! How large each change is beside its matrix.

use rayon::prelude::*;

use super::Trained;
use crate::Result;
use crate::base::{Base, Weight};
use crate::kernels::reduce;

/// |dW| / |W|, Frobenius norms, of each target with its canonical name, in order. A matrix of zeros has infinity, or 0
/// without a change.
///
/// |C P|^2 is the sum over j and k of (C^T C)_jk (P P^T)_jk, so dW is never formed.
///
/// # Errors
/// A target that does not fit the base.
pub fn relative_changes(base: &Base, trained: Trained<'_>) -> Result<Vec<(String, f64)>> {
    let scale = trained.scale();
    let targets = trained.targets();
    let change = |target: &super::trained::Target<'_>| {
        let factors = target.factors(base, scale)?;
        let squared = squared_product(&factors.c, &factors.p, factors.rank);
        let whole = squared_norm(&base.weight(target.name())?);
        let share = if squared == 0.0 { 0.0 } else { (squared / whole).sqrt() };
        Ok((target.name().to_owned(), share))
    };
    targets.par_iter().map(change).collect()
}

/// |C P|^2 of C `[m, rank]` and P `[rank, n]`.
fn squared_product(c: &[f32], p: &[f32], rank: usize) -> f64 {
    let n = p.len() / rank.max(1);
    let columns: Vec<Vec<f32>> =
        (0..rank).map(|j| c.iter().skip(j).step_by(rank).copied().collect()).collect();
    let mut sum = 0.0;
    for j in 0..rank {
        for k in 0..=j {
            let both = reduce::dot_f64(&columns[j], &columns[k])
                * reduce::dot_f64(&p[j * n..][..n], &p[k * n..][..n]);
            sum += if j == k { both } else { 2.0 * both };
        }
    }
    // It is not negative but for rounding.
    sum.max(0.0)
}

fn squared_norm(weight: &Weight<'_>) -> f64 {
    weight.stream().map(|(_, rows)| reduce::square_sum(&rows)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_norm_of_a_product_is_that_of_its_entries() {
        let (c, p) = ([1.0f32, 2.0, -1.0, 0.5, 3.0, -2.0], [2.0f32, 0.0, 1.0, -1.0, 1.0, 4.0, 0.5, 2.0]);
        let mut sum = 0.0;
        for row in c.chunks_exact(2) {
            for col in 0..4 {
                sum += f64::from(row[0] * p[col] + row[1] * p[4 + col]).powi(2);
            }
        }
        assert!((squared_product(&c, &p, 2) - sum).abs() < 1e-9 * sum);
        assert_eq!(squared_product(&c, &[0.0; 8], 2), 0.0);
    }
}
