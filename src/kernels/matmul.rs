//! Matrix products of ndarray views, by the `gemm` crate inside tiles of fixed size. They serve the small
//! products of CURLoRA terms, and f64.
//!
//! A parallel gemm chooses its blocking, and with it the order of its sums, by the number of threads. Here
//! each tile is a single-threaded gemm, so the bytes do not depend on how many threads share the tiles.

use ndarray::{ArrayView2, ArrayViewMut2, Axis};
use rayon::prelude::*;

use super::real::Real;

/// Rows of a tile of the product.
const TILE_ROWS: usize = 192;
/// Columns of a tile of the product.
const TILE_COLS: usize = 192;

/// `dst = a b`, or `dst += a b` with `accumulate`: `[m, k] x [k, n] -> [m, n]`, any strides.
///
/// # Panics
/// When the shapes do not fit.
pub fn matmul<T: Real>(mut dst: ArrayViewMut2<T>, accumulate: bool, a: ArrayView2<T>, b: ArrayView2<T>) {
    let mut tiles = Vec::new();
    for (i, rows) in dst.axis_chunks_iter_mut(Axis(0), TILE_ROWS).enumerate() {
        let a = a.slice_axis(Axis(0), (i * TILE_ROWS..i * TILE_ROWS + rows.nrows()).into());
        let mut rows = rows;
        // `axis_chunks_iter_mut` borrows; splitting consumes, so a tile can outlive the loop.
        let mut first = 0;
        while rows.ncols() > 0 {
            let width = rows.ncols().min(TILE_COLS);
            let (tile, rest) = rows.split_at(Axis(1), width);
            tiles.push((tile, a, b.slice_axis(Axis(1), (first..first + width).into())));
            first += width;
            rows = rest;
        }
    }
    if tiles.len() == 1 {
        let (tile, a, b) = tiles.remove(0);
        return matmul_single(tile, accumulate, a, b);
    }
    tiles.into_par_iter().for_each(|(tile, a, b)| matmul_single(tile, accumulate, a, b));
}

/// [`matmul`] on the calling thread alone, for use inside a task of a parallel loop.
#[allow(unsafe_code)]
pub fn matmul_single<T: Real>(
    mut dst: ArrayViewMut2<T>,
    accumulate: bool,
    a: ArrayView2<T>,
    b: ArrayView2<T>,
) {
    let (m, n) = dst.dim();
    let k = a.ncols();
    assert!(a.nrows() == m && b.dim() == (k, n), "matmul: [{m}, {n}] from {:?} x {:?}", a.dim(), b.dim());
    let alpha = if accumulate { T::one() } else { T::zero() };
    let (dst_rs, dst_cs) = (dst.strides()[0], dst.strides()[1]);
    // SAFETY: the pointers and strides are those of live views whose shapes were just checked; `dst` is
    // borrowed mutably, so it overlaps neither input.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst.as_mut_ptr(),
            dst_cs,
            dst_rs,
            accumulate,
            a.as_ptr(),
            a.strides()[1],
            a.strides()[0],
            b.as_ptr(),
            b.strides()[1],
            b.strides()[0],
            alpha,
            T::one(),
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array2, s};

    fn numbers(rows: usize, cols: usize) -> Array2<f64> {
        Array2::from_shape_fn((rows, cols), |(i, j)| ((i * 31 + j * 17) % 23) as f64 - 11.0)
    }

    #[test]
    fn equals_the_definition_on_ragged_strided_views() {
        let (m, k, n) = (TILE_ROWS + 7, 33, TILE_COLS * 2 + 5);
        let wide = numbers(m, 2 * k);
        let (a, b) = (wide.slice(s![.., ..;2]), numbers(n, k));
        let expected = a.dot(&b.t());
        let mut dst = Array2::from_elem((m, n), 1.0);
        matmul(dst.view_mut(), false, a, b.t());
        assert_eq!(dst, expected);
        matmul(dst.view_mut(), true, a, b.t());
        assert_eq!(dst, &expected * 2.0);
    }

    #[test]
    fn bytes_do_not_depend_on_the_thread_count() {
        let a = numbers(300, 257).mapv(|x| (x * 0.1) as f32);
        let b = numbers(257, 500).mapv(|x| (x * 0.3) as f32);
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut dst = Array2::zeros((300, 500));
            pool.install(|| matmul(dst.view_mut(), false, a.view(), b.view()));
            dst.mapv(f32::to_bits)
        };
        assert_eq!(run(1), run(2));
        assert_eq!(run(1), run(4));
    }
}
