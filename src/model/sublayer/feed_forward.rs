//! The sublayer of a feed-forward network.

use ndarray::Array2;

use super::norm_backward;
use crate::kernels::{Precision, Real, SavedActivation};
use crate::model::feed_forward::{FeedForward, FeedForwardActivations};
use crate::model::norm::{self, Norm};
use crate::model::residual::{Residual, add};
use crate::model::terms::TermSink;

/// The frozen weights, and the terms of the matrices.
#[derive(Clone, Debug)]
pub struct FeedForwardSublayer<'a, T: Real> {
    /// Of its input.
    pub norm: Option<Norm<T>>,
    /// The network.
    pub network: FeedForward<'a, T>,
    /// How its output is added.
    pub residual: Residual<T>,
}

/// The activations that the backward pass needs. The inputs of matrices are not among them.
#[derive(Debug)]
pub struct FeedForwardSublayerActivations<T: Real> {
    /// What the network reads, before its norm.
    input: SavedActivation<T>,
    network: FeedForwardActivations<T>,
    /// The output of the network, if a norm follows.
    out: Option<SavedActivation<T>>,
    /// What the term of the down projection saved.
    zdown: Option<Array2<T>>,
}

#[cfg(test)]
impl<T: Real> FeedForwardSublayerActivations<T> {
    /// The bytes of activations that it holds.
    pub fn bytes(&self) -> u64 {
        let z = self.zdown.as_ref().map_or(0, Array2::len) * size_of::<T>();
        let out = self.out.as_ref().map_or(0, SavedActivation::bytes);
        self.input.bytes() + out + self.network.bytes() + z as u64
    }
}

impl<T: Real> FeedForwardSublayer<'_, T> {
    /// Values saved of a token of width `d_model` for the backward pass: those that may be rounded to bfloat16, and others.
    /// Those of terms are not among them.
    pub fn activation_values(&self, d_model: usize) -> (usize, usize) {
        let (network, full) = self.network.activation_values();
        let out = if self.residual.norm.is_some() { d_model } else { 0 };
        (d_model + network + out, full)
    }

    /// Adds the network's output for `input`, or for x, to x `[rows, d_model]`. With a precision, also saves the
    /// activations for products of that precision.
    pub fn add_to(
        &self,
        x: &mut Array2<T>,
        input: Option<&Array2<T>>,
        save: Option<Precision>,
    ) -> Option<FeedForwardSublayerActivations<T>> {
        let saved_input =
            save.map(|precision| SavedActivation::save_copy(input.unwrap_or(x).view(), precision));
        let (network, zdown, out) = self.network.add_to(x, input, self.norm.as_ref(), &self.residual, save);
        save.zip(saved_input).zip(network).map(|((precision, input), network)| {
            let out = out.map(|out| SavedActivation::save(out, precision));
            FeedForwardSublayerActivations { input, network, out, zdown }
        })
    }

    /// dL/d(input) `[rows, d_model]`, from dsum = dL/d(input + what it adds). Gives the gradients of terms to `sink`.
    pub fn backward(
        &self,
        mut dsum: Array2<T>,
        saved: FeedForwardSublayerActivations<T>,
        sink: &mut dyn TermSink<T>,
    ) -> Array2<T> {
        let FeedForwardSublayerActivations { input, network, out, zdown } = saved;
        let dout = self.residual.backward(dsum.view(), out.as_ref());
        let normed =
            self.network.reads_input().then(|| norm::input(self.norm.as_ref(), &input, dsum.ncols()));
        let normed_view = normed.as_ref().map(|normed| normed.view());
        let (dnormed, beside) =
            self.network.backward(dout, network, zdown.as_ref(), (&input, normed_view), sink);
        normed.into_iter().for_each(T::recycle);
        norm_backward(self.norm.as_ref(), &input, dnormed, &mut dsum);
        if let Some(beside) = beside {
            add(&mut dsum, beside.view());
            T::recycle(beside);
        }
        dsum
    }
}
