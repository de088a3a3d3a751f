//! What training adds to a frozen matrix: one file for each method, with its mathematics and shapes.
//!
//! A [`Term`] changes the output of a [`Linear`](super::Linear), y = x W^T for rows of tokens x `[tokens, n]`
//! and W `[m, n]`. It holds the trained matrices, which are numbered across the model: a matrix's number is
//! its slot.

mod cur;
mod probe;

use std::fmt::Debug;

use ndarray::{Array2, ArrayView2, CowArray, Ix2};

pub use self::cur::CurTerm;
pub use self::probe::Probe;
use crate::kernels::{Real, matmul};

/// Token rows of a term that one thread processes at a time.
const TILE: usize = 64;

/// What a method adds to y = x W^T.
pub trait Term<T: Real>: Debug + Send + Sync {
    /// Adds the term to y, which is x W^T `[tokens, m]` in full. Returns what [`Self::backward`] needs of each
    /// token, `[tokens, `[`saved_values`](Self::saved_values)`]`.
    fn forward(&self, x: &T::PackedLhs<'_>, y: &mut Array2<T>) -> Array2<T>;

    /// Numbers that [`Self::forward`] saves of each token.
    fn saved_values(&self) -> usize;

    /// Gives the gradient of each trained matrix to `sink`. If the pass wants dL/dx, adds it, the part through
    /// W included.
    fn backward(&self, pass: BackwardPass<'_, '_, T>, sink: &mut dyn TermSink<T>);

    /// The slot of the first trained matrix. The others follow it.
    fn first_slot(&self) -> usize;

    /// The trained matrices, in the order of their slots.
    fn trained(&self) -> Vec<&Array2<T>>;

    /// [`Self::trained`], to be changed.
    fn trained_mut(&mut self) -> Vec<&mut Array2<T>>;

    /// A copy.
    fn boxed(&self) -> Box<dyn Term<T>>;
}

impl<T: Real> Clone for Box<dyn Term<T>> {
    fn clone(&self) -> Self {
        self.boxed()
    }
}

/// What the backward pass of a term starts from.
#[expect(missing_debug_implementations, reason = "it holds a function")]
pub struct BackwardPass<'p, 'g, T> {
    /// g = dL/dy `[tokens, m]`.
    pub g: CowArray<'g, T, Ix2>,
    /// What [`Term::forward`] returned.
    pub saved: &'p Array2<T>,
    /// The sum that dL/dx `[tokens, n]` is added to, if it is wanted. `None` within counts as zeros.
    pub dx: Option<&'p mut Option<Array2<T>>>,
    /// Adds v W to a sum `[tokens, n]`, from v `[tokens, m]`.
    pub times_weight: &'p dyn Fn(CowArray<'_, T, Ix2>, &mut Option<Array2<T>>),
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
