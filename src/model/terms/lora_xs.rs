//! The term of LoRA-XS (Bałazy et al. 2024, arXiv 2405.17604): W + s B U A, U trained. A and B are frozen:
//! B = P S `[m, r]` and A = Q^T `[r, n]` of the leading r singular values S of W = P S Q^T.
//!
//! For rows of tokens x `[tokens, n]` and U `[r, r]`, which the paper calls R:
//!
//! ```text
//! a  = x A^T             y  = x W^T + s a U^T B^T
//! h  = s g B             dU = h^T a               g = dL/dy
//! dx = g W + h U A
//! ```
//!
//! So the input x is not saved. U starts at zero, which changes nothing; the paper draws it with a standard
//! deviation of 1e-5.

use ndarray::Array2;

use super::term::{BackwardPass, Term, TermSink, add_expanded, project};
use crate::kernels::{Precision, Real, matmul};

/// s B U A.
#[derive(Clone, Debug)]
pub struct LoraXsTerm<T> {
    /// The slot of U.
    pub slot: usize,
    /// The inner frozen matrix: `[r, n]`.
    pub a: Array2<T>,
    /// The outer frozen matrix: `[m, r]`.
    pub b: Array2<T>,
    /// The trained matrix: `[r, r]`.
    pub u: Array2<T>,
    /// The factor s.
    pub scale: T,
}

impl<T: Real> Term<T> for LoraXsTerm<T> {
    /// Adds s a U^T B^T to y `[tokens, m]`, and returns a `[tokens, r]`.
    fn forward(&self, x: &T::PackedLhs<'_>, precision: Precision, y: &mut Array2<T>) -> Array2<T> {
        let a = project::<T>(x, self.a.view(), precision);
        let mut ua = Array2::zeros(a.dim());
        matmul(ua.view_mut(), false, a.view(), self.u.t());
        add_expanded(y, ua.view(), self.scale, self.b.view());
        a
    }

    fn saved_values(&self) -> usize {
        self.a.nrows()
    }

    fn backward(&self, pass: BackwardPass<'_, '_, T>, sink: &mut dyn TermSink<T>) {
        let BackwardPass { g, saved: a, input: _, dx, times_weight } = pass;
        let mut h = Array2::zeros((g.nrows(), self.b.ncols()));
        matmul(h.view_mut(), false, g.view(), self.b.view());
        h *= self.scale;
        sink.add(self.slot, h.view(), a.view());
        if let Some(dx) = dx {
            times_weight(g, dx);
            let mut hu = Array2::zeros(h.dim());
            matmul(hu.view_mut(), false, h.view(), self.u.view());
            let dx = dx.as_mut().expect("a product with W was added");
            matmul(dx.view_mut(), true, hu.view(), self.a.view());
        }
    }

    fn first_slot(&self) -> usize {
        self.slot
    }

    fn trained(&self) -> Vec<&Array2<T>> {
        vec![&self.u]
    }

    fn trained_mut(&mut self) -> Vec<&mut Array2<T>> {
        vec![&mut self.u]
    }

    fn boxed(&self) -> Box<dyn Term<T>> {
        Box::new(self.clone())
    }
}
