//! f32, by the packed products of this crate.

use std::ops::Range;

use ndarray::{Array2, ArrayView2, ArrayViewMut2};

use super::Real;
use crate::kernels::pool::SharedPool;
use crate::kernels::precision::Precision;
use crate::kernels::product::{self, Matrix, PackedLhs, PackedRhs};
use crate::kernels::{math, saved_activation};

/// Arrays of activations between uses: at most 128 MiB.
static POOL: SharedPool<f32> = SharedPool::new(1 << 25);

impl Real for f32 {
    type PackedLhs<'x> = PackedLhs<'x>;
    type PackedRhs = PackedRhs;

    fn from_f32(value: f32) -> Self {
        value
    }
    fn from_f64(value: f64) -> Self {
        value as f32
    }
    fn as_f64(self) -> f64 {
        f64::from(self)
    }
    #[inline(always)]
    fn fast_exp(self) -> Self {
        math::exp_f32(self)
    }
    #[inline(always)]
    fn fast_tanh(self) -> Self {
        math::tanh_f32(self)
    }
    fn pooled(shape: (usize, usize)) -> Array2<f32> {
        let numbers = POOL.take(shape.0 * shape.1);
        Array2::from_shape_vec(shape, numbers).expect("as many numbers")
    }
    fn recycle(array: Array2<f32>) {
        POOL.give(array.into_raw_vec_and_offset().0);
    }
    fn clear_pools() {
        POOL.clear();
        saved_activation::clear_pool();
    }
    fn pack_lhs(x: ArrayView2<'_, Self>, precision: Precision) -> PackedLhs<'_> {
        PackedLhs::pack(x, precision)
    }
    fn pack_lhs_transposed(x: ArrayView2<'_, Self>, precision: Precision) -> PackedLhs<'_> {
        PackedLhs::pack_transposed(x, precision)
    }
    fn pack_lhs_from_fn(
        shape: (usize, usize),
        precision: Precision,
        write: impl Fn(usize, &mut [Self]) + Sync,
    ) -> PackedLhs<'static> {
        PackedLhs::from_fn(shape, precision, write)
    }
    fn single_row(lhs: &PackedLhs<'_>) -> Option<Vec<f32>> {
        lhs.single_row()
    }
    fn lhs_rows(lhs: &PackedLhs<'_>) -> usize {
        lhs.rows()
    }
    fn pack_weight(w: &impl Matrix, rows: Range<usize>, precision: Precision) -> PackedRhs {
        PackedRhs::from_matrix(w, rows, precision)
    }
    fn pack_weight_transposed(w: &impl Matrix, rows: Range<usize>, precision: Precision) -> PackedRhs {
        PackedRhs::from_matrix_transposed(w, rows, precision)
    }
    fn pack_rhs(b: ArrayView2<'_, Self>, precision: Precision) -> PackedRhs {
        PackedRhs::pack(b, precision)
    }
    fn pack_rhs_transposed(b: ArrayView2<'_, Self>, precision: Precision) -> PackedRhs {
        PackedRhs::pack_transposed(b, precision)
    }
    fn shrink_to_fit(rhs: PackedRhs) -> PackedRhs {
        rhs.shrink_to_fit()
    }
    fn packed_bytes(rows: usize, columns: usize, precision: Precision) -> u64 {
        PackedRhs::bytes(rows, columns, precision)
    }
    fn saves_bf16(precision: Precision) -> bool {
        product::rounds_to_bf16(precision)
    }
    fn multiply(c: ArrayViewMut2<Self>, accumulate: bool, a: &PackedLhs<'_>, b: &PackedRhs) {
        product::multiply(c, accumulate, a, b);
    }
    fn multiply_single(c: ArrayViewMut2<Self>, accumulate: bool, a: &PackedLhs<'_>, b: &PackedRhs) {
        product::multiply_tile(c, accumulate, a, 0, b, 0);
    }
}
