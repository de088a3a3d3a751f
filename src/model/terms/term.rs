//! The trait of what training adds to a frozen matrix, and what its methods share.

use std::fmt::Debug;

use ndarray::{Array2, ArrayView2, Axis, CowArray, Ix2};
use rayon::prelude::*;

use crate::kernels::{Precision, Real, matmul, matmul_single};

/// Token rows of a term that one thread processes at a time.
pub(super) const TILE: usize = 64;

/// What a method adds to y = x W^T.
pub trait Term<T: Real>: Debug + Send + Sync {
    /// Adds the term to y, which is x W^T `[tokens, m]` in full. x is packed for products of this precision.
    /// Returns what [`Self::backward`] needs of each token, `[tokens,
    /// `[`saved_values`](Self::saved_values)`]`.
    fn forward(&self, x: &T::PackedLhs<'_>, precision: Precision, y: &mut Array2<T>) -> Array2<T>;

    /// Numbers that [`Self::forward`] saves of each token.
    fn saved_values(&self) -> usize;

    /// Whether [`Self::backward`] needs the input x.
    fn reads_input(&self) -> bool {
        false
    }

    /// Gives the gradient of each trained matrix to `sink`. If the pass wants dL/dx, adds it, the part
    /// through W included.
    fn backward(&self, pass: BackwardPass<'_, '_, T>, sink: &mut dyn TermSink<T>);

    /// The slot of the first trained matrix. The others follow it.
    fn first_slot(&self) -> usize;

    /// The trained matrices, in the order of their slots.
    fn trained(&self) -> Vec<&Array2<T>>;

    /// [`Self::trained`], to be changed.
    fn trained_mut(&mut self) -> Vec<&mut Array2<T>>;

    /// The index in [`Self::trained`] of the matrix that the change of W is proportional to: zeros in it
    /// change nothing, and a factor on it is one on the change.
    fn outer(&self) -> usize {
        0
    }

    /// A copy.
    fn boxed(&self) -> Box<dyn Term<T>>;
}

impl<T: Real> Clone for Box<dyn Term<T>> {
    fn clone(&self) -> Self {
        self.boxed()
    }
}

/// A function that adds v W `[tokens, n]` to a sum, from v `[tokens, m]`. `None` counts as zeros.
pub type TimesWeight<'w, T> = dyn Fn(CowArray<'_, T, Ix2>, &mut Option<Array2<T>>) + 'w;

/// What the backward pass of a term starts from.
#[expect(missing_debug_implementations, reason = "it holds a function")]
pub struct BackwardPass<'p, 'g, T> {
    /// g = dL/dy `[tokens, m]`.
    pub g: CowArray<'g, T, Ix2>,
    /// What [`Term::forward`] returned.
    pub saved: &'p Array2<T>,
    /// x `[tokens, n]`, if the term [reads it](Term::reads_input).
    pub input: Option<ArrayView2<'p, T>>,
    /// The sum that dL/dx `[tokens, n]` is added to, if it is wanted. `None` within counts as zeros.
    pub dx: Option<&'p mut Option<Array2<T>>>,
    /// Adds v W to a sum `[tokens, n]`, from v `[tokens, m]`.
    pub times_weight: &'p TimesWeight<'p, T>,
}

/// What a backward pass does with the gradient of each trained matrix, dL/dU = h^T z.
pub trait TermSink<T: Real> {
    /// Gets h `[tokens, c]` and z `[tokens, r]` of the matrix `[c, r]` in this slot.
    fn add(&mut self, slot: usize, h: ArrayView2<T>, z: ArrayView2<T>);
}

/// The sums over all tokens, `[c, r]` for each slot.
impl<T: Real> TermSink<T> for Vec<Array2<T>> {
    fn add(&mut self, slot: usize, h: ArrayView2<T>, z: ArrayView2<T>) {
        matmul(self[slot].view_mut(), true, h.t(), z);
    }
}

/// x A^T `[tokens, r]`, from x packed for products of this precision, and A `[r, n]`.
pub(super) fn project<T: Real>(x: &T::PackedLhs<'_>, a: ArrayView2<T>, precision: Precision) -> Array2<T> {
    let mut projected = Array2::zeros((T::lhs_rows(x), a.nrows()));
    T::multiply(projected.view_mut(), false, x, &T::pack_rhs_transposed(a, precision));
    projected
}

/// Adds `scale` v B^T to y `[tokens, m]`, from v `[tokens, r]` and B `[m, r]`.
pub(super) fn add_expanded<T: Real>(y: &mut Array2<T>, v: ArrayView2<T>, scale: T, b: ArrayView2<T>) {
    let tiles = y.axis_chunks_iter_mut(Axis(0), TILE).into_par_iter();
    tiles.zip(v.axis_chunks_iter(Axis(0), TILE)).for_each(|(mut y, v)| {
        let scaled = v.mapv(|v| v * scale);
        matmul_single(y.view_mut(), true, scaled.view(), b.t());
    });
}
