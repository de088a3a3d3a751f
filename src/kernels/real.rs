//! The number types that the model computes in.

use std::fmt::Debug;
use std::iter::Sum;
use std::ops::{AddAssign, DivAssign, MulAssign, Range, SubAssign};

use ndarray::{Array2, ArrayView2, ArrayViewMut2, CowArray, Ix2, s};

use super::spare::Spare;
use super::{Matrix, Panels, Precision, Rows, elementwise, matmul, matmul_single, product};

/// `f32` for training, `f64` for checking gradients by finite differences.
pub trait Real:
    ndarray::NdFloat
    + AddAssign
    + SubAssign
    + MulAssign
    + DivAssign
    + Sum
    + Debug
    + Default
    + Send
    + Sync
    + 'static
{
    /// Rows of activations, ready to be multiplied by several matrices.
    type Rows<'x>: Send + Sync;
    /// A stored matrix or its transpose, ready to multiply such rows.
    type Panels: Send + Sync;

    /// From the type that weights decode to; exact.
    fn from_f32(value: f32) -> Self;
    /// From a constant or an accumulator; rounds for `f32`.
    fn from_f64(value: f64) -> Self;
    /// For sums that need the wider type; exact.
    fn as_f64(self) -> f64;

    /// e to the power of this; for f32 by arithmetic that becomes SIMD.
    fn fast_exp(self) -> Self;
    /// The hyperbolic tangent; for f32 by arithmetic that becomes SIMD.
    fn fast_tanh(self) -> Self;

    /// An array that holds anything, in memory that another one is done with where there is such.
    fn space(shape: (usize, usize)) -> Array2<Self>;
    /// Leave an array that is done with to [`Self::space`].
    fn done(array: Array2<Self>);

    /// Rows `[m, k]` for products of this precision, which is that of f32 alone.
    fn rows(x: ArrayView2<'_, Self>, precision: Precision) -> Self::Rows<'_>;
    /// How many rows there are.
    fn row_count(rows: &Self::Rows<'_>) -> usize;
    /// The transpose of these rows of a matrix, for `x W^T`.
    fn transposed(w: &impl Matrix, rows: Range<usize>, precision: Precision) -> Self::Panels;
    /// These rows of a matrix, for `g W`.
    fn upright(w: &impl Matrix, rows: Range<usize>, precision: Precision) -> Self::Panels;
    /// `[m, k]` rows that `make` writes one by one, given which it is, for products of this precision.
    fn rows_made(
        shape: (usize, usize),
        precision: Precision,
        make: impl Fn(usize, &mut [Self]) + Sync,
    ) -> Self::Rows<'static>;
    /// The transpose of activations `[k, m]` as [`Self::rows`], on the calling thread alone.
    fn rows_across(x: ArrayView2<'_, Self>, precision: Precision) -> Self::Rows<'_>;
    /// Activations `[k, n]` to be multiplied from the left, on the calling thread alone; for [`Self::multiply_here`].
    fn panels(b: ArrayView2<'_, Self>, precision: Precision) -> Self::Panels;
    /// The transpose of activations `[n, k]` as [`Self::panels`].
    fn panels_across(b: ArrayView2<'_, Self>, precision: Precision) -> Self::Panels;
    /// The same panels in no more memory than they need.
    fn kept(panels: Self::Panels) -> Self::Panels;
    /// Bytes of the panels of a matrix of so many rows and columns, in either role.
    fn panel_bytes(rows: usize, columns: usize, precision: Precision) -> u64;
    /// Whether what is kept of activations is rounded to bfloat16, as products of this precision take them.
    fn keeps_rounded(precision: Precision) -> bool;
    /// `c = a b` or `c += a b`, on all threads.
    fn multiply(c: ArrayViewMut2<Self>, accumulate: bool, a: &Self::Rows<'_>, b: &Self::Panels);
    /// [`Self::multiply`] on the calling thread alone. `b` may have more rows than `a` has columns, and more columns than
    /// `c`; the first ones are used.
    fn multiply_here(c: ArrayViewMut2<Self>, accumulate: bool, a: &Self::Rows<'_>, b: &Self::Panels);
}

/// Arrays of activations between uses.
static SPARE: Spare<f32> = Spare::new(1 << 25);

impl Real for f32 {
    type Rows<'x> = Rows<'x>;
    type Panels = Panels;

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
        elementwise::exp_f32(self)
    }
    #[inline(always)]
    fn fast_tanh(self) -> Self {
        elementwise::tanh_f32(self)
    }
    fn space(shape: (usize, usize)) -> Array2<f32> {
        let numbers = SPARE.take(shape.0 * shape.1);
        Array2::from_shape_vec(shape, numbers).expect("as many numbers")
    }
    fn done(array: Array2<f32>) {
        SPARE.give(array.into_raw_vec_and_offset().0);
    }
    fn rows(x: ArrayView2<'_, Self>, precision: Precision) -> Rows<'_> {
        Rows::new(x, precision)
    }
    fn row_count(rows: &Rows<'_>) -> usize {
        rows.rows()
    }
    fn transposed(w: &impl Matrix, rows: Range<usize>, precision: Precision) -> Panels {
        Panels::transposed(w, rows, precision)
    }
    fn upright(w: &impl Matrix, rows: Range<usize>, precision: Precision) -> Panels {
        Panels::upright(w, rows, precision)
    }
    fn rows_made(
        shape: (usize, usize),
        precision: Precision,
        make: impl Fn(usize, &mut [Self]) + Sync,
    ) -> Rows<'static> {
        Rows::made(shape, precision, make)
    }
    fn rows_across(x: ArrayView2<'_, Self>, precision: Precision) -> Rows<'_> {
        Rows::across(x, precision)
    }
    fn panels(b: ArrayView2<'_, Self>, precision: Precision) -> Panels {
        Panels::of(b, precision)
    }
    fn panels_across(b: ArrayView2<'_, Self>, precision: Precision) -> Panels {
        Panels::across(b, precision)
    }
    fn kept(panels: Panels) -> Panels {
        panels.kept()
    }
    fn panel_bytes(rows: usize, columns: usize, precision: Precision) -> u64 {
        Panels::bytes(rows, columns, precision)
    }
    fn keeps_rounded(precision: Precision) -> bool {
        product::rounds(precision)
    }
    fn multiply(c: ArrayViewMut2<Self>, accumulate: bool, a: &Rows<'_>, b: &Panels) {
        product::multiply(c, accumulate, a, b);
    }
    fn multiply_here(c: ArrayViewMut2<Self>, accumulate: bool, a: &Rows<'_>, b: &Panels) {
        product::multiply_tile(c, accumulate, a, 0, b, 0);
    }
}

impl Real for f64 {
    type Rows<'x> = CowArray<'x, f64, Ix2>;
    type Panels = Array2<f64>;

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
    fn space(shape: (usize, usize)) -> Array2<f64> {
        Array2::zeros(shape)
    }
    fn done(_: Array2<f64>) {}
    fn rows(x: ArrayView2<'_, Self>, _: Precision) -> CowArray<'_, Self, Ix2> {
        x.into()
    }
    fn row_count(rows: &CowArray<'_, Self, Ix2>) -> usize {
        rows.nrows()
    }
    fn transposed(w: &impl Matrix, rows: Range<usize>, precision: Precision) -> Array2<f64> {
        Self::upright(w, rows, precision).reversed_axes()
    }
    fn upright(w: &impl Matrix, rows: Range<usize>, _: Precision) -> Array2<f64> {
        let mut decoded = vec![0.0; w.columns()];
        let mut dense = Array2::zeros((rows.len(), w.columns()));
        for (mut dense, row) in dense.rows_mut().into_iter().zip(rows) {
            w.row(row, &mut decoded);
            dense.iter_mut().zip(&decoded).for_each(|(to, from)| *to = f64::from(*from));
        }
        dense
    }
    fn rows_made(
        shape: (usize, usize),
        _: Precision,
        make: impl Fn(usize, &mut [Self]) + Sync,
    ) -> CowArray<'static, Self, Ix2> {
        let mut rows = Array2::zeros(shape);
        rows.rows_mut().into_iter().enumerate().for_each(|(i, mut row)| {
            make(i, row.as_slice_mut().expect("rows of a fresh array are contiguous"));
        });
        rows.into()
    }
    fn rows_across(x: ArrayView2<'_, Self>, _: Precision) -> CowArray<'_, Self, Ix2> {
        x.reversed_axes().into()
    }
    fn panels(b: ArrayView2<'_, Self>, _: Precision) -> Array2<f64> {
        b.to_owned()
    }
    fn panels_across(b: ArrayView2<'_, Self>, _: Precision) -> Array2<f64> {
        b.t().to_owned()
    }
    fn kept(panels: Array2<f64>) -> Array2<f64> {
        panels
    }
    fn panel_bytes(rows: usize, columns: usize, _: Precision) -> u64 {
        (rows * columns * size_of::<f64>()) as u64
    }
    fn keeps_rounded(_: Precision) -> bool {
        false
    }
    fn multiply(c: ArrayViewMut2<Self>, accumulate: bool, a: &CowArray<'_, Self, Ix2>, b: &Array2<f64>) {
        matmul(c, accumulate, a.view(), b.view());
    }
    fn multiply_here(c: ArrayViewMut2<Self>, accumulate: bool, a: &CowArray<'_, Self, Ix2>, b: &Array2<f64>) {
        let used = b.slice(s![..a.ncols(), ..c.ncols()]);
        matmul_single(c, accumulate, a.view(), used);
    }
}
