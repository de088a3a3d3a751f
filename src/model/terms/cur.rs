//! The term of CURLoRA (Fawi 2024, arXiv 2408.14572): W + s C U R, U trained. That R x is a gather is
//! curmerge's own observation.
//!
//! With W `[m, n]`, C = W[:, J] `[m, c]`, R = W[I, :] `[r, n]` and U `[c, r]`, for rows of tokens x
//! `[tokens, n]`:
//!
//! ```text
//! y0 = x W^T             z  = y0[:, I]          R x is already in the base product: a gather, not a product
//! y  = y0 + s z U^T C^T
//! h  = g C               dU = s h^T z           g = dL/dy
//! dx = (g + s scatter_I(h U)) W                 since R^T v = W^T scatter_I(v)
//! ```
//!
//! So the input x is not saved for the backward pass, and C U R is never formed.

use ndarray::{Array2, Axis, CowArray, Ix2};
use rayon::prelude::*;

use super::term::{BackwardPass, TILE, Term, TermSink};
use crate::kernels::{Precision, Real, matmul, matmul_single};

/// s C U R.
#[derive(Clone, Debug)]
pub struct CurTerm<T> {
    /// The slot of U.
    pub slot: usize,
    /// The rows I of W: `[r]`.
    pub rows: Vec<u32>,
    /// The columns W[:, J]: `[m, c]`.
    pub c: Array2<T>,
    /// The trained matrix: `[c, r]`.
    pub u: Array2<T>,
    /// The factor s.
    pub scale: T,
}

impl<T: Real> Term<T> for CurTerm<T> {
    /// Adds s z U^T C^T to y0 `[tokens, m]`, and returns z `[tokens, r]`.
    fn forward(&self, _: &T::PackedLhs<'_>, _: Precision, y: &mut Array2<T>) -> Array2<T> {
        let mut z = Array2::zeros((y.nrows(), self.rows.len()));
        let tiles = y.axis_chunks_iter_mut(Axis(0), TILE).into_par_iter();
        tiles.zip(z.axis_chunks_iter_mut(Axis(0), TILE)).for_each(|(mut y, mut z)| {
            for (mut z, y) in z.rows_mut().into_iter().zip(y.rows()) {
                z.iter_mut().zip(&self.rows).for_each(|(z, &i)| *z = y[i as usize]);
            }
            let mut uz = Array2::zeros((z.nrows(), self.u.nrows()));
            matmul_single(uz.view_mut(), false, z.view(), self.u.t());
            uz *= self.scale;
            matmul_single(y.view_mut(), true, uz.view(), self.c.t());
        });
        z
    }

    fn saved_values(&self) -> usize {
        self.rows.len()
    }

    /// Gives s h and z to `sink`. For dL/dx, adds s scatter_I(h U) to g before the product with W.
    fn backward(&self, pass: BackwardPass<'_, '_, T>, sink: &mut dyn TermSink<T>) {
        let BackwardPass { mut g, saved: z, input: _, dx, times_weight } = pass;
        let mut h = Array2::zeros((g.nrows(), self.c.ncols()));
        matmul(h.view_mut(), false, g.view(), self.c.view());
        h *= self.scale;
        sink.add(self.slot, h.view(), z.view());
        if let Some(dx) = dx {
            self.scatter(&mut g, &h);
            times_weight(g, dx);
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

impl<T: Real> CurTerm<T> {
    /// Adds scatter_I(h U) to g `[tokens, m]`, from h `[tokens, c]`.
    fn scatter(&self, g: &mut CowArray<'_, T, Ix2>, h: &Array2<T>) {
        let tiles = g.axis_chunks_iter_mut(Axis(0), TILE).into_par_iter();
        tiles.zip(h.axis_chunks_iter(Axis(0), TILE)).for_each(|(mut g, h)| {
            let mut v = Array2::zeros((h.nrows(), self.u.ncols()));
            matmul_single(v.view_mut(), false, h, self.u.view());
            for (mut g, v) in g.rows_mut().into_iter().zip(v.rows()) {
                v.iter().zip(&self.rows).for_each(|(&v, &i)| g[i as usize] += v);
            }
        });
    }
}
