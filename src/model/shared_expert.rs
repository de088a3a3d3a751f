//! An MLP that every token goes through, beside the experts that a router chooses (DeepSeekMoE, arXiv 2401.06066):
//! MLP(x), or sigmoid(x g^T) MLP(x), with a gate g of its own for each token, as Qwen has it.

use ndarray::{Array2, ArrayView2};

use super::linear::Linear;
use super::mlp::{Mlp, MlpActivations};
use super::terms::TermSink;
use crate::kernels::activation::sigmoid;
use crate::kernels::{Precision, Real, SavedActivation, elementwise, reduce};

const CONTIGUOUS: &str = "activations are row-major";

/// The frozen weights, and the terms of the MLP's matrices.
#[derive(Clone, Debug)]
pub struct SharedExpert<'a, T: Real> {
    /// The MLP.
    pub mlp: Mlp<'a, T>,
    /// `[1, d_model]`.
    pub gate: Option<Linear<'a, T>>,
}

/// What the backward pass needs of the forward pass.
#[derive(Debug)]
pub struct SharedExpertActivations<T: Real> {
    mlp: MlpActivations<T>,
    /// What the term of the down projection saved.
    zdown: Option<Array2<T>>,
    /// The gate's sigmoid for each token, and the output of the MLP, `[tokens, d_model]`; if there is a gate.
    gated: Option<(Vec<T>, SavedActivation<T>)>,
}

#[cfg(test)]
impl<T: Real> SharedExpertActivations<T> {
    /// The bytes of activations that it holds.
    pub fn bytes(&self) -> u64 {
        let gates = self.gated.as_ref().map_or(0, |(gates, _)| gates.len());
        let full = gates + self.zdown.as_ref().map_or(0, Array2::len);
        let out = self.gated.as_ref().map_or(0, |(_, out)| out.bytes());
        self.mlp.bytes() + out + (full * size_of::<T>()) as u64
    }
}

impl<'a, T: Real> SharedExpert<'a, T> {
    /// All matrices.
    pub fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear<'a, T>> {
        self.mlp.matrices_mut().chain(&mut self.gate)
    }

    /// How many numbers of matrices a token is multiplied with.
    pub fn parameters_per_token(&self) -> u64 {
        self.mlp.matrices().chain(&self.gate).map(|linear| linear.weight().parameters()).sum()
    }

    /// Values saved of a token for the backward pass: those that may be rounded to bfloat16, and others. Those of terms
    /// are not among them.
    pub fn activation_values(&self) -> (usize, usize) {
        let out = self.mlp.down.weight().rows();
        let gated = self.gate.is_some();
        (self.mlp.activation_values() + if gated { out } else { 0 }, usize::from(gated))
    }

    /// Adds the output for x `[tokens, d_model]`, normed, to y `[tokens, d_model]`. With a precision, returns the
    /// activations, saved for products of that precision.
    pub fn add_to(
        &self,
        y: &mut Array2<T>,
        x: ArrayView2<T>,
        save: Option<Precision>,
    ) -> Option<SharedExpertActivations<T>> {
        let x = self.mlp.up.input(x);
        let (a, mlp) = self.mlp.forward(&x, save);
        let (out, zdown) = self.mlp.down.forward(&a);
        let gates = self.gate.as_ref().map(|gate| gate.forward(&x).0);
        let gates: Option<Vec<T>> = gates.map(|gates| gates.iter().map(|&gate| sigmoid(gate)).collect());
        match &gates {
            None => *y += &out,
            Some(gates) => {
                for ((mut y, out), &gate) in y.rows_mut().into_iter().zip(out.rows()).zip(gates) {
                    y.scaled_add(gate, &out);
                }
            }
        }
        let saved = mlp.zip(save);
        saved.map(|(mlp, precision)| SharedExpertActivations {
            mlp,
            zdown,
            gated: gates.map(|gates| (gates, SavedActivation::save(out, precision))),
        })
    }

    /// dL/dx `[tokens, d_model]` from g = dL/dy `[tokens, d_model]`, and x if the MLP reads it; gives the gradients of
    /// terms to `sink`. With s the sigmoid and o the MLP's output: dL/do = s g, and dL/ds = g o.
    pub fn backward(
        &self,
        g: ArrayView2<T>,
        saved: SharedExpertActivations<T>,
        x: Option<ArrayView2<T>>,
        sink: &mut dyn TermSink<T>,
    ) -> Array2<T> {
        let SharedExpertActivations { mlp, zdown, gated } = saved;
        let Some((gate, (gates, out))) = self.gate.as_ref().zip(gated) else {
            return self.mlp.backward(g.into(), mlp, zdown.as_ref(), x, sink);
        };
        let out = out.to_array(g.ncols());
        let mut dout = g.to_owned();
        let mut dgates = Array2::zeros((g.nrows(), 1));
        let rows = dout.rows_mut().into_iter().zip(out.rows()).zip(gates).zip(&mut dgates);
        for (((mut dout, out), own), dgate) in rows {
            let dout = dout.as_slice_mut().expect(CONTIGUOUS);
            *dgate = reduce::dot(dout, out.to_slice().expect(CONTIGUOUS)) * own * (T::one() - own);
            elementwise::scale(dout, own);
        }
        T::recycle(out);
        let mut dx = Some(self.mlp.backward(dout.into(), mlp, zdown.as_ref(), x, sink));
        gate.backward_frozen(dgates.into(), &mut dx);
        dx.expect("it was given")
    }
}
