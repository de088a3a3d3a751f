//! The truncated singular value decomposition that LoRA-XS starts from.
//!
//! Block power iteration finds the leading subspace, and Jacobi rotations the singular directions in it
//! (Halko, Martinsson and Tropp 2011, arXiv 0909.4061, algorithms 4.4 and 5.1). All in f64 and in a fixed
//! order, so the result is the same on every machine.

use ndarray::Array2;

use crate::base::Weight;
use crate::cur::{Norms, Subspaces, transposed_times};
use crate::kernels::eigen::eigen;

/// Directions beyond the wanted ones: they make the wanted ones converge faster.
const OVERSAMPLING: usize = 8;
const ITERATIONS: usize = 8;

/// `P S` `[m, rank]` and `Q^T` `[rank, n]` of the leading `rank` singular values of W = P S Q^T. `rank` is at
/// most m and n. A direction of a singular value of zero is zero.
pub(super) fn truncated_svd(weight: &Weight<'_>, norms: &Norms, rank: usize) -> (Array2<f32>, Array2<f32>) {
    let (m, n) = (weight.rows(), weight.cols());
    let wide = (rank + OVERSAMPLING).min(m).min(n);
    let w = weight.vector();
    let Subspaces { left, .. } = Subspaces::new(&w, norms, wide, ITERATIONS);
    let mut right = vec![0.0; n * wide];
    transposed_times(&w, n, &left, &mut right, wide);
    let mut gram = vec![0.0; wide * wide];
    for row in right.chunks_exact(wide) {
        for (gram, &x) in gram.chunks_exact_mut(wide).zip(row) {
            gram.iter_mut().zip(row).for_each(|(gram, &y)| *gram += x * y);
        }
    }
    let (values, vectors) = eigen(gram, wide);
    let mut order: Vec<usize> = (0..wide).collect();
    order.sort_by(|&i, &j| values[j].total_cmp(&values[i]).then(i.cmp(&j)));
    let largest = values[order[0]].max(0.0).sqrt();
    // The product of a basis's row and an eigenvector.
    let along = |basis: &[f64], row: usize, k: usize| -> f64 {
        (0..wide).map(|j| basis[row * wide + j] * vectors[j * wide + k]).sum()
    };
    let singular = |k: usize| values[k].max(0.0).sqrt();
    let b = Array2::from_shape_fn((m, rank), |(row, i)| {
        (singular(order[i]) * along(&left, row, order[i])) as f32
    });
    let a = Array2::from_shape_fn((rank, n), |(i, col)| match singular(order[i]) {
        s if s > largest * 1e-12 => (along(&right, col, order[i]) / s) as f32,
        _ => 0.0,
    });
    (b, a)
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;
    use crate::cur::squared_norms;
    use crate::kernels::random::uniform;

    #[test]
    fn the_factors_are_the_leading_singular_part() {
        let (m, n, rank) = (30, 20, 3);
        let mut stream = ChaCha20Rng::seed_from_u64(1);
        let mut random = |shape| Array2::from_shape_simple_fn(shape, || 2.0 * uniform(&mut stream) - 1.0);
        // Three strong directions over noise.
        let strong = random((m, rank)).dot(&random((rank, n)));
        let w = 10.0 * &strong + 0.01 * random((m, n));
        let bytes: Vec<u8> = w.iter().flat_map(|&x| (x as f32).to_le_bytes()).collect();
        let weight = Weight::from_f32_bytes(m, n, &bytes);
        let (b, a) = truncated_svd(&weight, &squared_norms(&weight), rank);
        let [b, a] = [b, a].map(|x| x.mapv(f64::from));
        let identity = a.dot(&a.t());
        assert!((&identity - &Array2::<f64>::eye(rank)).iter().all(|x| x.abs() < 1e-5), "{identity}");
        // The rest is orthogonal to both, which characterizes a truncated SVD with the noise left over.
        let rest = &w - &b.dot(&a);
        assert!(rest.iter().all(|x| x.abs() < 0.05));
        assert!(rest.dot(&a.t()).iter().all(|x| x.abs() < 1e-3), "{}", rest.dot(&a.t()));
        assert!(b.t().dot(&rest).iter().all(|x| x.abs() < 1e-1));
        let products = b.t().dot(&b);
        for i in 0..rank {
            for j in 0..i {
                assert!(products[[i, j]].abs() < 1e-3 * products[[i, i]], "{products}");
            }
            assert!(i == 0 || products[[i, i]] <= products[[i - 1, i - 1]]);
        }
    }

    #[test]
    fn a_matrix_of_lower_rank_has_directions_of_zero() {
        let bytes: Vec<u8> =
            (0..12).flat_map(|i| ((i / 4 + 1) as f32 * (i % 4) as f32).to_le_bytes()).collect();
        let weight = Weight::from_f32_bytes(3, 4, &bytes);
        let (b, a) = truncated_svd(&weight, &squared_norms(&weight), 3);
        let w = Array2::from_shape_fn((3, 4), |(i, j)| (i + 1) as f32 * j as f32);
        assert!((b.dot(&a) - w).iter().all(|x| x.abs() < 1e-5));
        assert!(a.row(1).iter().chain(a.row(2)).all(|&x| x == 0.0), "{a}");
    }
}
