//! The number types that the model computes in.

mod double;
mod single;

use std::fmt::Debug;
use std::iter::Sum;
use std::ops::{AddAssign, DivAssign, MulAssign, Range, SubAssign};

use ndarray::{Array2, ArrayView2, ArrayViewMut2};

use super::precision::Precision;
use super::product::Matrix;

/// `f32` for training, `f64` for checking gradients by finite differences.
///
/// Products multiply a packed left operand `[m, k]` by a packed right operand `[k, n]`. Packing takes a
/// [`Precision`], which matters to f32 alone.
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
    /// A packed left operand: rows of activations, ready to be multiplied by several matrices.
    type PackedLhs<'x>: Send + Sync;
    /// A packed right operand: a matrix or activations.
    type PackedRhs: Send + Sync;

    /// From the type that weights decode to; exact.
    fn from_f32(value: f32) -> Self;
    /// From a constant or an accumulator; rounds for `f32`.
    fn from_f64(value: f64) -> Self;
    /// For sums that need the wider type; exact.
    fn as_f64(self) -> f64;

    /// e^x; for f32 in arithmetic that vectorizes.
    fn fast_exp(self) -> Self;
    /// The hyperbolic tangent; for f32 in arithmetic that vectorizes.
    fn fast_tanh(self) -> Self;

    /// An array of arbitrary numbers, in memory from a pool where possible.
    fn pooled(shape: (usize, usize)) -> Array2<Self>;
    /// Returns the memory of an array to the pool of [`Self::pooled`].
    fn recycle(array: Array2<Self>);
    /// Frees what the pools of [`Self::pooled`] and of saved activations hold.
    fn clear_pools();

    /// Packs activations `[m, k]` as the left operand.
    fn pack_lhs(x: ArrayView2<'_, Self>, precision: Precision) -> Self::PackedLhs<'_>;
    /// Packs the transpose of activations `[k, m]` as the left operand, on the calling thread alone.
    fn pack_lhs_transposed(x: ArrayView2<'_, Self>, precision: Precision) -> Self::PackedLhs<'_>;
    /// Packs a left operand `[m, k]` whose rows `write` writes one by one, given the row's index.
    fn pack_lhs_from_fn(
        shape: (usize, usize),
        precision: Precision,
        write: impl Fn(usize, &mut [Self]) + Sync,
    ) -> Self::PackedLhs<'static>;
    /// The values of a left operand of one row, if it is f32 and not rounded.
    fn single_row(lhs: &Self::PackedLhs<'_>) -> Option<Vec<f32>>;
    /// The rows m of a packed left operand.
    fn lhs_rows(lhs: &Self::PackedLhs<'_>) -> usize;

    /// Packs these rows of a matrix as the right operand, for `g W`.
    fn pack_weight(w: &impl Matrix, rows: Range<usize>, precision: Precision) -> Self::PackedRhs;
    /// Packs the transpose of these rows of a matrix as the right operand, for `x W^T`.
    fn pack_weight_transposed(w: &impl Matrix, rows: Range<usize>, precision: Precision) -> Self::PackedRhs;
    /// Packs activations `[k, n]` as the right operand, on the calling thread alone.
    fn pack_rhs(b: ArrayView2<'_, Self>, precision: Precision) -> Self::PackedRhs;
    /// Packs the transpose of activations `[n, k]` as the right operand, on the calling thread alone.
    fn pack_rhs_transposed(b: ArrayView2<'_, Self>, precision: Precision) -> Self::PackedRhs;
    /// The same operand in no more memory than it needs, to be kept for long.
    fn shrink_to_fit(rhs: Self::PackedRhs) -> Self::PackedRhs;
    /// Bytes that a packed matrix `[rows, columns]` takes as the right operand, itself or its transpose.
    fn packed_bytes(rows: usize, columns: usize, precision: Precision) -> u64;

    /// Whether activations are saved for the backward pass as bfloat16, since products of this precision
    /// round them anyway.
    fn saves_bf16(precision: Precision) -> bool;

    /// `c = a b` or `c += a b`, on all threads.
    fn multiply(c: ArrayViewMut2<Self>, accumulate: bool, a: &Self::PackedLhs<'_>, b: &Self::PackedRhs);
    /// [`Self::multiply`] on the calling thread alone. `b` may have more rows than `a` has columns, and more
    /// columns than `c`; the first ones are used.
    fn multiply_single(
        c: ArrayViewMut2<Self>,
        accumulate: bool,
        a: &Self::PackedLhs<'_>,
        b: &Self::PackedRhs,
    );
}
