//! The leading part of a singular value decomposition.
//!
//! A block of vectors is multiplied by the matrix and its transpose in turn until it holds the leading
//! directions, and the rest is done in that small space (Halko, Martinsson and Tropp 2011, arXiv 0909.4061,
//! algorithms 4.4 and 5.1). All in f64. Sums have an order that does not depend on the number of threads.

use ndarray::{Array2, ArrayView2, Axis, s};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use rayon::prelude::*;

use super::eigen::eigen;
use super::matmul::{matmul, matmul_single};
use super::random::uniform;

/// Directions beyond the wanted ones: they make the wanted ones converge faster.
const OVERSAMPLING: usize = 16;
/// More iterations than a decaying spectrum needs. Without decay, further ones gain nothing.
const MAX_ITERATIONS: usize = 16;
/// The block has converged when an iteration adds less than this share of all squares to what it holds.
const GAIN: f64 = 1e-9;
/// Rows and columns of the tiles that are widened to f64 at a time.
const TILE: usize = 256;

/// Singular values and vectors of a matrix D `[m, n]`, largest first: D is about `left^T diag(values) right`.
#[derive(Clone, Debug)]
pub struct Leading {
    /// `[k, m]`, orthonormal rows; a row of zeros where the value is zero.
    pub left: Array2<f64>,
    /// `[k]`
    pub values: Vec<f64>,
    /// `[k, n]`, orthonormal rows; a row of zeros where the value is zero.
    pub right: Array2<f64>,
}

impl Leading {
    /// Those of a whole matrix: `rank` of them, or as many as it has.
    pub fn of_matrix(matrix: ArrayView2<'_, f32>, rank: usize) -> Self {
        let (m, n) = matrix.dim();
        let most = m.min(n);
        let wide = (rank + OVERSAMPLING).min(most);
        let all: f64 = squares(matrix);
        let mut stream = ChaCha20Rng::seed_from_u64(0);
        let mut right = Array2::from_shape_simple_fn((wide, n), || 2.0 * uniform(&mut stream) - 1.0);
        let mut left = Array2::zeros((wide, m));
        let mut held = 0.0;
        for _ in 0..MAX_ITERATIONS {
            orthonormalise(&mut right);
            times(matrix, &right, &mut left);
            orthonormalise(&mut left);
            transposed_times(matrix, &left, &mut right);
            let now: f64 = right.iter().map(|x| x * x).sum();
            if now - held <= GAIN * all {
                break;
            }
            held = now;
        }
        Self::of_block(&left, &right, rank.min(most))
    }

    /// Those of the product `c p` of thin matrices `[m, k]` and `[k, n]`: `rank` of them, or as many as it can
    /// have.
    pub fn of_product(c: ArrayView2<'_, f64>, p: ArrayView2<'_, f64>, rank: usize) -> Self {
        let most = c.nrows().min(c.ncols()).min(p.ncols());
        let mut left = c.t().as_standard_layout().into_owned();
        orthonormalise(&mut left);
        let mut small = Array2::zeros((left.nrows(), p.nrows()));
        matmul(small.view_mut(), false, left.view(), c);
        let mut right = Array2::zeros((left.nrows(), p.ncols()));
        matmul(right.view_mut(), false, small.view(), p);
        Self::of_block(&left, &right, rank.min(most))
    }

    /// From orthonormal rows Q `[k, m]` whose span holds the wanted directions, and `Q D` `[k, n]`.
    fn of_block(left: &Array2<f64>, right: &Array2<f64>, rank: usize) -> Self {
        let k = left.nrows();
        let mut gram = Array2::zeros((k, k));
        matmul(gram.view_mut(), false, right.view(), right.t());
        let (squares, vectors) = eigen(gram.iter().copied().collect(), k);
        let mut order: Vec<usize> = (0..k).collect();
        order.sort_by(|&i, &j| squares[j].total_cmp(&squares[i]).then(i.cmp(&j)));
        order.truncate(rank);
        let values: Vec<f64> = order.iter().map(|&i| squares[i].max(0.0).sqrt()).collect();
        let turned = Array2::from_shape_fn((order.len(), k), |(i, j)| vectors[j * k + order[i]]);
        let along = |basis: &Array2<f64>| {
            let mut out = Array2::zeros((turned.nrows(), basis.ncols()));
            matmul(out.view_mut(), false, turned.view(), basis.view());
            out
        };
        let (mut own, mut theirs) = (along(left), along(right));
        let least = values.first().copied().unwrap_or(0.0) * 1e-12;
        for (i, &value) in values.iter().enumerate() {
            let (scale, keep) = if value > least { (1.0 / value, 1.0) } else { (0.0, 0.0) };
            theirs.row_mut(i).mapv_inplace(|x| x * scale);
            own.row_mut(i).mapv_inplace(|x| x * keep);
        }
        Self { left: own, values, right: theirs }
    }

    /// Only the largest `rank`.
    pub fn truncated(mut self, rank: usize) -> Self {
        let rank = rank.min(self.values.len());
        self.values.truncate(rank);
        self.left = self.left.slice(s![..rank, ..]).to_owned();
        self.right = self.right.slice(s![..rank, ..]).to_owned();
        self
    }
}

/// The sum of the squares of all numbers, row by row in f64.
pub fn squares(matrix: ArrayView2<'_, f32>) -> f64 {
    let of_row = |row: usize| matrix.row(row).iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
    let rows: Vec<f64> = (0..matrix.nrows()).into_par_iter().map(of_row).collect();
    rows.iter().sum()
}

/// `out = v D^T`: `[k, n] x [n, m]`, tiles of rows of D apart.
fn times(matrix: ArrayView2<'_, f32>, v: &Array2<f64>, out: &mut Array2<f64>) {
    let tiles: Vec<_> = out.axis_chunks_iter_mut(Axis(1), TILE).enumerate().collect();
    tiles.into_par_iter().for_each(|(tile, mut out)| {
        let rows = tile * TILE..tile * TILE + out.ncols();
        for (number, v) in v.axis_chunks_iter(Axis(1), TILE).enumerate() {
            let cols = number * TILE..number * TILE + v.ncols();
            let wide = matrix.slice(s![rows.clone(), cols]).mapv(f64::from);
            matmul_single(out.view_mut(), number > 0, v, wide.t());
        }
    });
}

/// `out = u D`: `[k, m] x [m, n]`, tiles of columns of D apart.
fn transposed_times(matrix: ArrayView2<'_, f32>, u: &Array2<f64>, out: &mut Array2<f64>) {
    let tiles: Vec<_> = out.axis_chunks_iter_mut(Axis(1), TILE).enumerate().collect();
    tiles.into_par_iter().for_each(|(tile, mut out)| {
        let cols = tile * TILE..tile * TILE + out.ncols();
        for (number, u) in u.axis_chunks_iter(Axis(1), TILE).enumerate() {
            let rows = number * TILE..number * TILE + u.ncols();
            let wide = matrix.slice(s![rows, cols.clone()]).mapv(f64::from);
            matmul_single(out.view_mut(), number > 0, u, wide.view());
        }
    });
}

/// Gram-Schmidt on the rows, each twice against all before it; a row that vanishes becomes zero.
fn orthonormalise(rows: &mut Array2<f64>) {
    let n = rows.ncols();
    for k in 0..rows.nrows() {
        let (before, mut rest) = rows.view_mut().split_at(Axis(0), k);
        let mut row = rest.row_mut(0);
        let size = row.dot(&row).sqrt();
        for _ in 0..2 {
            let own = row.view();
            let shares: Vec<f64> = (0..k).into_par_iter().map(|j| before.row(j).dot(&own)).collect();
            let own = row.as_slice_mut().expect("rows are contiguous");
            own.par_chunks_mut(TILE).enumerate().for_each(|(tile, own)| {
                for (j, share) in shares.iter().enumerate() {
                    let other = before.slice(s![j, tile * TILE..(tile * TILE + own.len()).min(n)]);
                    own.iter_mut().zip(other).for_each(|(x, y)| *x -= share * y);
                }
            });
        }
        let left = row.dot(&row).sqrt();
        let scale = if left > size * 1e-10 { 1.0 / left } else { 0.0 };
        row.mapv_inplace(|x| x * scale);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(rows: usize, cols: usize, seed: u64) -> Array2<f64> {
        let mut stream = ChaCha20Rng::seed_from_u64(seed);
        Array2::from_shape_simple_fn((rows, cols), || 2.0 * uniform(&mut stream) - 1.0)
    }

    fn product(leading: &Leading) -> Array2<f64> {
        let scaled = Array2::from_shape_fn(leading.left.t().dim(), |(row, k)| {
            leading.left[[k, row]] * leading.values[k]
        });
        scaled.dot(&leading.right)
    }

    fn size(a: &Array2<f64>) -> f64 {
        a.iter().map(|x| x * x).sum::<f64>().sqrt()
    }

    #[test]
    fn a_matrix_of_low_rank_comes_back() {
        let (m, n, rank) = (300, 530, 5);
        let (c, p) = (random(m, rank, 1), random(rank, n, 2));
        let matrix = c.dot(&p).mapv(|x| x as f32);
        let right = matrix.mapv(f64::from);
        let found = Leading::of_matrix(matrix.view(), 5);
        assert!(size(&(product(&found) - &right)) < 1e-6 * size(&right));
        let found = Leading::of_product(c.view(), p.view(), 9);
        assert_eq!(found.values.len(), 5);
        assert!(size(&(product(&found) - c.dot(&p))) < 1e-12 * size(&right));
        let identity = found.left.dot(&found.left.t()) - Array2::<f64>::eye(5);
        assert!(identity.iter().all(|x| x.abs() < 1e-12));
    }

    /// The rest of the best approximation is orthogonal to it, and no other of the rank leaves less.
    #[test]
    fn a_truncated_part_is_the_nearest() {
        let matrix = random(40, 60, 3);
        let all = Leading::of_matrix(matrix.mapv(|x| x as f32).view(), 40);
        assert_eq!(all.values.len(), 40);
        assert!(size(&(product(&all) - &matrix)) < 1e-6 * size(&matrix));
        let some = Leading::of_matrix(matrix.mapv(|x| x as f32).view(), 7);
        let rest: f64 = all.values[7..].iter().map(|x| x * x).sum::<f64>().sqrt();
        assert!((size(&(product(&some) - &matrix)) - rest).abs() < 1e-5 * rest);
        assert!(size(&(product(&all.truncated(7)) - product(&some))) < 0.01 * rest);
    }

    #[test]
    fn bytes_do_not_depend_on_the_thread_count() {
        let matrix = random(600, 700, 4).mapv(|x| x as f32);
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let found = pool.install(|| Leading::of_matrix(matrix.view(), 6));
            [found.left, found.right].map(|basis| basis.mapv(f64::to_bits))
        };
        assert_eq!(run(1), run(3));
    }

    #[test]
    fn a_matrix_of_zeros_has_no_directions() {
        let found = Leading::of_matrix(Array2::zeros((5, 4)).view(), 2);
        assert_eq!(found.values, [0.0, 0.0]);
        assert!(found.left.iter().chain(&found.right).all(|x| *x == 0.0));
    }
}
