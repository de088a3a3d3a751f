//! The number types that the model computes in.

use std::fmt::Debug;
use std::iter::Sum;
use std::ops::{AddAssign, DivAssign, MulAssign, Range, SubAssign};

use ndarray::{Array2, ArrayView2, ArrayViewMut2};

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
    /// `c = a b` or `c += a b`, on all threads.
    fn multiply(c: ArrayViewMut2<Self>, accumulate: bool, a: &Self::Rows<'_>, b: &Self::Panels);
    /// [`Self::multiply`] on the calling thread alone.
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
    fn multiply(c: ArrayViewMut2<Self>, accumulate: bool, a: &Rows<'_>, b: &Panels) {
        product::multiply(c, accumulate, a, b);
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
    fn multiply(c: ArrayViewMut2<Self>, accumulate: bool, a: &ArrayView2<'_, Self>, b: &Array2<f64>) {
        matmul(c, accumulate, *a, b.view());
    }
    fn multiply_here(c: ArrayViewMut2<Self>, accumulate: bool, a: &ArrayView2<'_, Self>, b: &Array2<f64>) {
        matmul_single(c, accumulate, *a, b.view());
    }
}
