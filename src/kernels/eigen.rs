//! Eigenvalues of small symmetric matrices.

/// More sweeps than a symmetric matrix ever needs.
const MAX_SWEEPS: usize = 60;

/// Eigenvalues and eigenvectors (as columns) of a symmetric matrix `[n, n]`, by cyclic Jacobi rotations (Golub
/// and Van Loan, Matrix Computations, section 8.5). All in f64 and in a fixed order, so the result is the same
/// on every machine.
pub(crate) fn eigen(mut a: Vec<f64>, n: usize) -> (Vec<f64>, Vec<f64>) {
    let mut vectors = vec![0.0; n * n];
    (0..n).for_each(|i| vectors[i * n + i] = 1.0);
    for _ in 0..MAX_SWEEPS {
        let mut rotated = false;
        for p in 0..n {
            for q in p + 1..n {
                let (app, aqq, apq) = (a[p * n + p], a[q * n + q], a[p * n + q]);
                if apq.abs() <= f64::EPSILON * (app.abs() * aqq.abs()).sqrt() {
                    continue;
                }
                rotated = true;
                let theta = (aqq - app) / (2.0 * apq);
                let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
                let c = 1.0 / (t * t + 1.0).sqrt();
                let s = t * c;
                for k in 0..n {
                    rotate(&mut a, k * n + p, k * n + q, c, s);
                }
                for k in 0..n {
                    rotate(&mut a, p * n + k, q * n + k, c, s);
                    rotate(&mut vectors, k * n + p, k * n + q, c, s);
                }
            }
        }
        if !rotated {
            break;
        }
    }
    ((0..n).map(|i| a[i * n + i]).collect(), vectors)
}

fn rotate(a: &mut [f64], i: usize, j: usize, c: f64, s: f64) {
    (a[i], a[j]) = (c * a[i] - s * a[j], s * a[i] + c * a[j]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_are_orthogonal_and_give_the_matrix_back() {
        let n = 7;
        let a: Vec<f64> = (0..n * n).map(|k| 1.0 / (1 + k / n + k % n) as f64).collect();
        let (values, vectors) = eigen(a.clone(), n);
        for i in 0..n {
            for j in 0..n {
                let sum = |f: &dyn Fn(usize) -> f64| (0..n).map(f).sum::<f64>();
                let product = sum(&|k| vectors[k * n + i] * vectors[k * n + j]);
                assert!((product - f64::from(u8::from(i == j))).abs() < 1e-14);
                let entry = sum(&|k| vectors[i * n + k] * values[k] * vectors[j * n + k]);
                assert!((entry - a[i * n + j]).abs() < 1e-14);
            }
        }
    }
}
