//! Inputs of a token for every block, beside the residual stream (Gemma 3n): made once from its embeddings, and added to
//! the stream at the end of each block, gated by it.

use ndarray::{Array2, ArrayView2, Axis, s};
use rayon::prelude::*;

use super::activation;
use super::linear::Linear;
use super::norm::Norm;
use super::residual::{Residual, scale};
use crate::base::Weight;
use crate::kernels::{Precision, Real, SavedActivation};

const WANTED: &str = "a gradient that was asked for";

/// What the inputs of all blocks are made from.
#[derive(Clone, Debug)]
pub struct PerLayerEmbedding<'a, T: Real> {
    /// `[vocab, blocks * width]`.
    pub embedding: Weight<'a>,
    /// `[blocks * width, d_model]`.
    pub projection: Linear<'a, T>,
    /// Of the projection, for each block: `[width]`.
    pub norm: Norm<T>,
}

impl<T: Real> PerLayerEmbedding<'_, T> {
    /// (norm(P x / sqrt(d_model)) + sqrt(width) e) / sqrt(2) of each token, e its row of the embedding and x
    /// `[tokens, d_model]` its scaled token embedding: `[tokens, blocks * width]`.
    pub fn inputs(&self, tokens: &[u32], x: ArrayView2<T>) -> Array2<T> {
        let (mut projected, _) = self.projection.forward(&self.projection.input(x));
        scale(&mut projected, T::from_f64(1.0 / (x.ncols() as f64).sqrt()));
        let mut inputs = self.norm.forward(projected.view());
        T::recycle(projected);
        let of_embedding = T::from_f64((self.norm.weight.len() as f64).sqrt());
        inputs.axis_iter_mut(Axis(0)).into_par_iter().zip(tokens).for_each(|(mut inputs, &token)| {
            let mut row = vec![0.0; inputs.len()];
            self.embedding.decode_row(token as usize, &mut row);
            inputs.iter_mut().zip(row).for_each(|(input, e)| *input += of_embedding * T::from_f32(e));
        });
        scale(&mut inputs, T::from_f64(std::f64::consts::FRAC_1_SQRT_2));
        inputs
    }
}

/// How a block adds its input p of each token to the residual stream x: x + norm(P (f(G x) p)).
#[derive(Clone, Debug)]
pub struct PerLayerInput<'a, T: Real> {
    /// The number of the block.
    pub layer: usize,
    /// G, `[width, d_model]`.
    pub gate: Linear<'a, T>,
    /// P, `[d_model, width]`.
    pub projection: Linear<'a, T>,
    /// The sum, with the norm.
    pub residual: Residual<T>,
    /// f.
    pub activation: activation::Function,
}

/// What the backward pass needs of the forward pass.
#[derive(Debug)]
pub struct PerLayerActivations<T: Real> {
    /// G x.
    gate: SavedActivation<T>,
    /// p.
    input: SavedActivation<T>,
    /// The output of P.
    out: Option<SavedActivation<T>>,
}

#[cfg(test)]
impl<T: Real> PerLayerActivations<T> {
    /// The bytes of activations that it holds.
    pub fn bytes(&self) -> u64 {
        [&self.gate, &self.input].into_iter().chain(&self.out).map(SavedActivation::bytes).sum()
    }
}

impl<'a, T: Real> PerLayerInput<'a, T> {
    /// The matrices. They are always frozen.
    pub fn linears(&self) -> [&Linear<'a, T>; 2] {
        [&self.gate, &self.projection]
    }

    /// [`Self::linears`], to be changed.
    pub fn linears_mut(&mut self) -> [&mut Linear<'a, T>; 2] {
        [&mut self.gate, &mut self.projection]
    }

    /// Values saved of a token for the backward pass, which may be rounded to bfloat16.
    pub fn activation_values(&self) -> usize {
        2 * self.gate.weight().rows() + self.projection.weight().rows()
    }

    /// Adds to x `[tokens, d_model]` what the inputs of these tokens for all blocks, `[tokens, blocks * width]`, are to this
    /// block. With a precision, returns the activations, saved for products of that precision.
    pub fn add_to(
        &self,
        x: &mut Array2<T>,
        inputs: ArrayView2<T>,
        save: Option<Precision>,
    ) -> Option<PerLayerActivations<T>> {
        let width = self.gate.weight().rows();
        let input = inputs.slice(s![.., self.layer * width..(self.layer + 1) * width]);
        let input = input.as_standard_layout().into_owned();
        let (gate, _) = self.gate.forward(&self.gate.input(x.view()));
        let a = activation::forward(self.activation, Some(&gate), &input, self.projection.precision());
        let (_, out) = self.residual.add_product(x, &self.projection, &a);
        save.map(|precision| {
            let saved = |x| SavedActivation::save(x, precision);
            PerLayerActivations { gate: saved(gate), input: saved(input), out: out.map(saved) }
        })
    }

    /// Adds to dx, which is dL/d(sum) `[tokens, d_model]`, the gradient through the gate.
    pub fn backward(&self, dx: Array2<T>, saved: PerLayerActivations<T>) -> Array2<T> {
        let PerLayerActivations { gate, input, out } = saved;
        let dout = self.residual.backward(dx.view(), out.as_ref()).into_owned();
        let mut da = None;
        self.projection.backward_frozen(dout.into(), &mut da);
        let (dgate, dinput) = activation::backward(self.activation, Some(&gate), &input, da.expect(WANTED));
        T::recycle(dinput);
        let mut dx = Some(dx);
        self.gate.backward_frozen(dgate.expect(WANTED).into(), &mut dx);
        dx.expect(WANTED)
    }
}
