//! Residual connections: the output of attention or of the feed-forward network is added to the residual
//! stream, optionally after a norm and a scale.

use ndarray::{Array2, ArrayView2, Axis, CowArray, Ix2};
use rayon::prelude::*;

use super::linear::Linear;
use super::norm::Norm;
use crate::kernels::{Real, SavedActivation, elementwise};

/// Token rows that one thread processes at a time.
const TILE: usize = 16;

const CONTIGUOUS: &str = "activations are row-major";

/// x + scale norm(y).
#[derive(Clone, Debug)]
pub struct Residual<T> {
    /// The post-norm of y.
    pub norm: Option<Norm<T>>,
    /// The factor of the normed y.
    pub scale: T,
}

impl<T: Real> Residual<T> {
    /// Adds y, the product of `rows` and a matrix, to x `[tokens, d_model]`. Returns the z of the matrix's
    /// term, and y where the backward pass needs it.
    pub fn add_product(
        &self,
        x: &mut Array2<T>,
        linear: &Linear<'_, T>,
        rows: &T::PackedLhs<'_>,
    ) -> (Option<Array2<T>>, Option<Array2<T>>) {
        if self.norm.is_none() && self.scale == T::one() && linear.is_plain() {
            linear.forward_onto(x, rows);
            return (None, None);
        }
        let (y, z) = linear.forward(rows);
        (z, self.add(x, y))
    }

    /// Adds y to x, both `[tokens, d_model]`. Returns y where the backward pass needs it.
    pub fn add(&self, x: &mut Array2<T>, y: Array2<T>) -> Option<Array2<T>> {
        let (mut added, saved) = match &self.norm {
            Some(norm) => (norm.forward(y.view()), Some(y)),
            None => (y, None),
        };
        scale(&mut added, self.scale);
        add(x, added.view());
        T::recycle(added);
        saved
    }

    /// dL/dy from g = dL/d(x + scale norm(y)) and the y of the forward pass.
    pub fn backward<'g>(&self, g: ArrayView2<'g, T>, y: Option<&SavedActivation<T>>) -> CowArray<'g, T, Ix2> {
        if self.norm.is_none() && self.scale == T::one() {
            return g.into();
        }
        let mut scaled = g.to_owned();
        scale(&mut scaled, self.scale);
        let (Some(norm), Some(y)) = (&self.norm, y) else { return scaled.into() };
        let mut dy = Array2::zeros(scaled.dim());
        norm.backward(y, scaled.view(), &mut dy);
        dy.into()
    }
}

/// `x *= factor`, on all threads.
pub fn scale<T: Real>(x: &mut Array2<T>, factor: T) {
    if factor != T::one() {
        x.axis_chunks_iter_mut(Axis(0), TILE)
            .into_par_iter()
            .for_each(|mut x| elementwise::scale(x.as_slice_mut().expect(CONTIGUOUS), factor));
    }
}

/// `sum += x`, on all threads.
pub fn add<T: Real>(sum: &mut Array2<T>, x: ArrayView2<T>) {
    let rows = sum.axis_chunks_iter_mut(Axis(0), TILE).into_par_iter().zip(x.axis_chunks_iter(Axis(0), TILE));
    rows.for_each(|(mut sum, x)| {
        let x = x.to_slice().expect(CONTIGUOUS);
        elementwise::add(sum.as_slice_mut().expect(CONTIGUOUS), x);
    });
}
