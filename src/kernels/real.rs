//! The number types that the model computes in.

use std::fmt::Debug;
use std::iter::Sum;
use std::ops::{AddAssign, DivAssign, MulAssign, Range, SubAssign};

use ndarray::{Array2, ArrayView2, ArrayViewMut2, s};

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

    /// Rows `[m, k]` for products of this precision, which is that of f32 alone.
    fn rows(x: ArrayView2<'_, Self>, precision: Precision) -> Self::Rows<'_>;
    /// The transpose of these rows of a matrix, for `x W^T`.
    fn transposed(w: &impl Matrix, rows: Range<usize>, precision: Precision) -> Self::Panels;
    /// These rows of a matrix, for `g W`.
    fn upright(w: &impl Matrix, rows: Range<usize>, precision: Precision) -> Self::Panels;
    /// Activations `[k, n]` to be multiplied from the left, as f32 or wider; for [`Self::multiply_here`].
    fn panels(b: ArrayView2<'_, Self>) -> Self::Panels;
    /// `c = a b` or `c += a b`, on all threads.
    fn multiply(c: ArrayViewMut2<Self>, accumulate: bool, a: &Self::Rows<'_>, b: &Self::Panels);
    /// The products of `a` and each of these panels side by side: `[m, columns]`, on all threads.
    fn product(
        a: &Self::Rows<'_>,
        columns: usize,
        panels: impl Iterator<Item = Self::Panels>,
    ) -> Array2<Self>;
    /// [`Self::multiply`] on the calling thread alone. `b` may have more rows than `a` has columns, and more columns than
    /// `c`; the first ones are used.
    fn multiply_here(c: ArrayViewMut2<Self>, accumulate: bool, a: &Self::Rows<'_>, b: &Self::Panels);
}

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
    fn rows(x: ArrayView2<'_, Self>, precision: Precision) -> Rows<'_> {
        Rows::new(x, precision)
    }
    fn transposed(w: &impl Matrix, rows: Range<usize>, precision: Precision) -> Panels {
        Panels::transposed(w, rows, precision)
    }
    fn upright(w: &impl Matrix, rows: Range<usize>, precision: Precision) -> Panels {
        Panels::upright(w, rows, precision)
    }
    fn panels(b: ArrayView2<'_, Self>) -> Panels {
        Panels::of(b)
    }
    fn multiply(c: ArrayViewMut2<Self>, accumulate: bool, a: &Rows<'_>, b: &Panels) {
        product::multiply(c, accumulate, a, b);
    }
    fn product(a: &Rows<'_>, columns: usize, panels: impl Iterator<Item = Panels>) -> Array2<f32> {
        product::product(a, columns, panels)
    }
    fn multiply_here(c: ArrayViewMut2<Self>, accumulate: bool, a: &Rows<'_>, b: &Panels) {
        product::multiply_tile(c, accumulate, a, 0, b, 0);
    }
}

impl Real for f64 {
    type Rows<'x> = ArrayView2<'x, f64>;
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
    fn rows(x: ArrayView2<'_, Self>, _: Precision) -> ArrayView2<'_, Self> {
        x
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
    fn panels(b: ArrayView2<'_, Self>) -> Array2<f64> {
        b.to_owned()
    }
    fn multiply(c: ArrayViewMut2<Self>, accumulate: bool, a: &ArrayView2<'_, Self>, b: &Array2<f64>) {
        matmul(c, accumulate, *a, b.view());
    }
    fn product(
        a: &ArrayView2<'_, Self>,
        columns: usize,
        panels: impl Iterator<Item = Array2<f64>>,
    ) -> Array2<f64> {
        let mut c = Array2::zeros((a.nrows(), columns));
        let mut done = 0;
        for panels in panels {
            let part = done..done + panels.ncols();
            done = part.end;
            matmul(c.slice_mut(s![.., part]), false, *a, panels.view());
        }
        c
    }
    fn multiply_here(c: ArrayViewMut2<Self>, accumulate: bool, a: &ArrayView2<'_, Self>, b: &Array2<f64>) {
        let used = b.slice(s![..a.ncols(), ..c.ncols()]);
        matmul_single(c, accumulate, *a, used);
    }
}
