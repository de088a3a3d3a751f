//! A gated short convolution (LFM2, Liquid AI 2025), forward and backward, and token by token: C conv(B x), with B, C and x
//! products of the normed input, channel by channel.

use ndarray::{Array2, ArrayView2, ArrayViewMut1, Axis, Zip};
use rayon::prelude::*;

use super::convolution::CausalConvolution;
use super::linear::Linear;
use super::pass::Pass;
use super::terms::TermSink;
use crate::kernels::{Precision, Real, SavedActivation};

const CONTIGUOUS: &str = "activations are row-major";

/// The frozen weights, and the term of the matrix. The output projection is the block's.
#[derive(Clone, Debug)]
pub struct ShortConvolution<'a, T: Real> {
    /// B, C and x, `[3 * d_model, d_model]`.
    pub input: Linear<'a, T>,
    pub convolution: CausalConvolution<T>,
}

/// What the backward pass needs of the forward pass.
#[derive(Debug)]
pub struct ShortConvolutionActivations<T: Real> {
    /// The outputs of the matrix.
    bcx: SavedActivation<T>,
    /// What its term saved.
    z: Option<Array2<T>>,
}

#[cfg(test)]
impl<T: Real> ShortConvolutionActivations<T> {
    /// The bytes of activations that it holds.
    pub fn bytes(&self) -> u64 {
        self.bcx.bytes() + (self.z.as_ref().map_or(0, Array2::len) * size_of::<T>()) as u64
    }
}

impl<T: Real> ShortConvolution<'_, T> {
    /// The channels, `d_model`.
    fn channels(&self) -> usize {
        self.convolution.weight.ncols()
    }

    /// Values saved of a token for the backward pass, which may be rounded to bfloat16. Those of terms are not among them.
    pub fn activation_values(&self) -> usize {
        3 * self.channels()
    }

    /// The inputs of the convolution before the tokens of sequences that have read nothing: of each `[taps - 1, d_model]`.
    pub fn cache(&self, sequences: usize) -> Vec<Array2<T>> {
        vec![Array2::zeros((self.convolution.history(), self.channels())); sequences]
    }

    /// The numbers of a sequence's cache.
    pub fn cached_values(&self) -> u64 {
        (self.convolution.history() * self.channels()) as u64
    }

    /// The normed input `[tokens, d_model]` to `[tokens, d_model]`. With a precision, also the activations, saved for products
    /// of that precision.
    pub fn forward(
        &self,
        input: &T::PackedLhs<'_>,
        pass: &Pass<'_, T>,
        save: Option<Precision>,
    ) -> (Array2<T>, Option<ShortConvolutionActivations<T>>) {
        let (bcx, z) = self.input.forward(input);
        let bx = self.gated_input(&bcx);
        let mut y = self.convolution.forward(bx.view(), pass.sequences);
        T::recycle(bx);
        self.gate(&mut y, &bcx);
        let saved = save
            .map(|precision| ShortConvolutionActivations { bcx: SavedActivation::save(bcx, precision), z });
        (y, saved)
    }

    /// [`Self::forward`] of tokens that follow those in the cache, which gets theirs. `slots` are the cache's sequences, one
    /// for each of `pass`.
    pub fn extend(
        &self,
        input: &T::PackedLhs<'_>,
        cache: &mut [Array2<T>],
        slots: &[usize],
        pass: &Pass<'_, T>,
    ) -> Array2<T> {
        let (bcx, _) = self.input.forward(input);
        let mut y = self.convolution.extend(self.gated_input(&bcx).view(), cache, slots, pass.sequences);
        self.gate(&mut y, &bcx);
        y
    }

    /// From g = dL/dy, and the normed input if the matrix reads it: gives the gradient of the term to `sink`, and adds that of
    /// the normed input to `dinput`, if given.
    pub fn backward(
        &self,
        mut g: Array2<T>,
        saved: ShortConvolutionActivations<T>,
        input: Option<ArrayView2<T>>,
        pass: &Pass<'_, T>,
        sink: &mut dyn TermSink<T>,
        dinput: Option<&mut Option<Array2<T>>>,
    ) {
        let n = self.channels();
        let bcx = saved.bcx.to_array(3 * n);
        let bx = self.gated_input(&bcx);
        let convolved = self.convolution.forward(bx.view(), pass.sequences);
        T::recycle(bx);
        let mut d = T::pooled(bcx.dim());
        let rows = d.axis_iter_mut(Axis(0)).into_par_iter().zip(g.axis_iter(Axis(0)));
        rows.zip(convolved.axis_iter(Axis(0))).for_each(|((d, g), convolved)| {
            let [_, dc, _] = parts_mut(d, n);
            Zip::from(dc).and(g).and(convolved).for_each(|dc, &g, &convolved| *dc = g * convolved);
        });
        T::recycle(convolved);
        self.gate(&mut g, &bcx);
        let dbx = self.convolution.backward(g.view(), g.nrows(), pass.sequences);
        T::recycle(g);
        let rows = d.axis_iter_mut(Axis(0)).into_par_iter().zip(dbx.axis_iter(Axis(0)));
        rows.zip(bcx.axis_iter(Axis(0))).for_each(|((d, dbx), bcx)| {
            let [db, _, dx] = parts_mut(d, n);
            let bcx = bcx.to_slice().expect(CONTIGUOUS);
            let (b, x) = (&bcx[..n], &bcx[2 * n..]);
            Zip::from(db).and(&dbx).and(x).for_each(|db, &dbx, &x| *db = dbx * x);
            Zip::from(dx).and(&dbx).and(b).for_each(|dx, &dbx, &b| *dx = dbx * b);
        });
        T::recycle(bcx);
        self.input.backward(d.into(), saved.z.as_ref(), input, sink, dinput);
    }

    /// B x of each token.
    fn gated_input(&self, bcx: &Array2<T>) -> Array2<T> {
        let n = self.channels();
        let mut bx = T::pooled((bcx.nrows(), n));
        bx.axis_iter_mut(Axis(0)).into_par_iter().zip(bcx.axis_iter(Axis(0))).for_each(|(bx, bcx)| {
            let bcx = bcx.to_slice().expect(CONTIGUOUS);
            Zip::from(bx).and(&bcx[..n]).and(&bcx[2 * n..]).for_each(|bx, &b, &x| *bx = b * x);
        });
        bx
    }

    /// `y *= C`.
    fn gate(&self, y: &mut Array2<T>, bcx: &Array2<T>) {
        let n = self.channels();
        y.axis_iter_mut(Axis(0)).into_par_iter().zip(bcx.axis_iter(Axis(0))).for_each(|(y, bcx)| {
            let c = &bcx.to_slice().expect(CONTIGUOUS)[n..2 * n];
            Zip::from(y).and(c).for_each(|y, &c| *y *= c);
        });
    }
}

/// The three parts of a row, each `n` long.
fn parts_mut<T>(row: ArrayViewMut1<'_, T>, n: usize) -> [ArrayViewMut1<'_, T>; 3] {
    let (b, rest) = row.split_at(Axis(0), n);
    let (c, x) = rest.split_at(Axis(0), n);
    [b, c, x]
}
