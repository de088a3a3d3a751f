//! The term of LoRA (Hu et al. 2021, arXiv 2106.09685): W + s B A, A and B trained. rsLoRA (Kalajdzievski
//! 2023, arXiv 2312.03732) differs in s alone.
//!
//! With W `[m, n]`, A `[r, n]` and B `[m, r]`, for rows of tokens x `[tokens, n]`:
//!
//! ```text
//! a  = x A^T             y  = x W^T + s a B^T
//! h  = s g B             g  = dL/dy
//! dA = h^T x             dB = s g^T a
//! dx = g W + h A
//! ```
//!
//! a is saved for the backward pass. x is not: the block recomputes it from what it saves anyway, except for
//! the output of attention, which it then saves too.

use ndarray::Array2;

use super::term::{BackwardPass, Term, TermSink, add_expanded, project};
use crate::kernels::{Precision, Real, matmul};

/// s B A.
#[derive(Clone, Debug)]
pub struct LoraTerm<T> {
    /// The slot of A. That of B is the next.
    pub slot: usize,
    /// The inner trained matrix: `[r, n]`.
    pub a: Array2<T>,
    /// The outer trained matrix: `[m, r]`.
    pub b: Array2<T>,
    /// The factor s.
    pub scale: T,
}

impl<T: Real> Term<T> for LoraTerm<T> {
    /// Adds s a B^T to y `[tokens, m]`, and returns a `[tokens, r]`.
    fn forward(&self, x: &T::PackedLhs<'_>, precision: Precision, y: &mut Array2<T>) -> Array2<T> {
        let a = project::<T>(x, self.a.view(), precision);
        add_expanded(y, a.view(), self.scale, self.b.view());
        a
    }

    fn saved_values(&self) -> usize {
        self.a.nrows()
    }

    fn reads_input(&self) -> bool {
        true
    }

    fn backward(&self, pass: BackwardPass<'_, '_, T>, sink: &mut dyn TermSink<T>) {
        let BackwardPass { g, saved: a, input, dx, times_weight } = pass;
        let input = input.expect("the term reads its input");
        let mut h = Array2::zeros((g.nrows(), self.b.ncols()));
        matmul(h.view_mut(), false, g.view(), self.b.view());
        h *= self.scale;
        sink.add(self.slot, h.view(), input);
        let scaled = a.mapv(|a| a * self.scale);
        sink.add(self.slot + 1, g.view(), scaled.view());
        if let Some(dx) = dx {
            times_weight(g, dx);
            let dx = dx.as_mut().expect("a product with W was added");
            matmul(dx.view_mut(), true, h.view(), self.a.view());
        }
    }

    fn first_slot(&self) -> usize {
        self.slot
    }

    fn trained(&self) -> Vec<&Array2<T>> {
        vec![&self.a, &self.b]
    }

    fn trained_mut(&mut self) -> Vec<&mut Array2<T>> {
        vec![&mut self.a, &mut self.b]
    }

    fn outer(&self) -> usize {
        1
    }

    fn boxed(&self) -> Box<dyn Term<T>> {
        Box::new(self.clone())
    }
}
