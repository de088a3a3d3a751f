//! f64, by dense arrays: exact enough to check gradients, not fast.

use std::ops::Range;

use ndarray::{Array2, ArrayView2, ArrayViewMut2, CowArray, Ix2, s};

use super::Real;
use crate::kernels::matmul::{matmul, matmul_single};
use crate::kernels::precision::Precision;
use crate::kernels::product::Matrix;

impl Real for f64 {
    type PackedLhs<'x> = CowArray<'x, f64, Ix2>;
    type PackedRhs = Array2<f64>;

    fn from_f32(value: f32) -> Self {
        f64::from(value)
    }
    fn from_f64(value: f64) -> Self {
        value
    }
    fn as_f64(self) -> f64 {
        self
    }
    #[inline(always)]
    fn fast_exp(self) -> Self {
        self.exp()
    }
    #[inline(always)]
    fn fast_tanh(self) -> Self {
        self.tanh()
    }
    fn pooled(shape: (usize, usize)) -> Array2<f64> {
        Array2::zeros(shape)
    }
    fn recycle(_: Array2<f64>) {}
    fn clear_pools() {}
    fn pack_lhs(x: ArrayView2<'_, Self>, _: Precision) -> CowArray<'_, Self, Ix2> {
        x.into()
    }
    fn pack_lhs_transposed(x: ArrayView2<'_, Self>, _: Precision) -> CowArray<'_, Self, Ix2> {
        x.reversed_axes().into()
    }
    fn pack_lhs_from_fn(
        shape: (usize, usize),
        _: Precision,
        write: impl Fn(usize, &mut [Self]) + Sync,
    ) -> CowArray<'static, Self, Ix2> {
        let mut rows = Array2::zeros(shape);
        rows.rows_mut().into_iter().enumerate().for_each(|(i, mut row)| {
            write(i, row.as_slice_mut().expect("rows of a fresh array are contiguous"));
        });
        rows.into()
    }
    fn single_row(_: &Self::PackedLhs<'_>) -> Option<Vec<f32>> {
        None
    }
    fn lhs_rows(lhs: &CowArray<'_, Self, Ix2>) -> usize {
        lhs.nrows()
    }
    fn pack_weight(w: &impl Matrix, rows: Range<usize>, _: Precision) -> Array2<f64> {
        let mut decoded = vec![0.0; w.columns()];
        let mut dense = Array2::zeros((rows.len(), w.columns()));
        for (mut dense, row) in dense.rows_mut().into_iter().zip(rows) {
            w.row(row, &mut decoded);
            dense.iter_mut().zip(&decoded).for_each(|(to, from)| *to = f64::from(*from));
        }
        dense
    }
    fn pack_weight_transposed(w: &impl Matrix, rows: Range<usize>, precision: Precision) -> Array2<f64> {
        Self::pack_weight(w, rows, precision).reversed_axes()
    }
    fn pack_rhs(b: ArrayView2<'_, Self>, _: Precision) -> Array2<f64> {
        b.to_owned()
    }
    fn pack_rhs_transposed(b: ArrayView2<'_, Self>, _: Precision) -> Array2<f64> {
        b.t().to_owned()
    }
    fn shrink_to_fit(rhs: Array2<f64>) -> Array2<f64> {
        rhs
    }
    fn packed_bytes(rows: usize, columns: usize, _: Precision) -> u64 {
        (rows * columns * size_of::<f64>()) as u64
    }
    fn saves_bf16(_: Precision) -> bool {
        false
    }
    fn multiply(c: ArrayViewMut2<Self>, accumulate: bool, a: &CowArray<'_, Self, Ix2>, b: &Array2<f64>) {
        matmul(c, accumulate, a.view(), b.view());
    }
    fn multiply_single(
        c: ArrayViewMut2<Self>,
        accumulate: bool,
        a: &CowArray<'_, Self, Ix2>,
        b: &Array2<f64>,
    ) {
        let used = b.slice(s![..a.ncols(), ..c.ncols()]);
        matmul_single(c, accumulate, a.view(), used);
    }
}
