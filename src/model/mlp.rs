//! A dense feed-forward network: down(f(gate(x)) up(x)), which is SwiGLU for f = SiLU (Shazeer 2020,
//! arXiv 2002.05202), or down(f(up(x))) without a gate.

use ndarray::{Array2, ArrayView2, CowArray, Ix2};

use super::activation;
use super::linear::Linear;
use super::terms::TermSink;
use crate::kernels::{Precision, Real, SavedActivation};

const WANTED: &str = "a gradient that was asked for";

/// The frozen weights, and the terms of the matrices.
#[derive(Clone, Debug)]
pub struct Mlp<'a, T: Real> {
    /// `[ff, d_model]`.
    pub gate: Option<Linear<'a, T>>,
    /// `[ff, d_model]`.
    pub up: Linear<'a, T>,
    /// `[d_model, ff]`.
    pub down: Linear<'a, T>,
    /// The activation function f.
    pub activation: activation::Function,
}

/// What the backward pass needs of the forward pass: outputs of matrices `[tokens, ff]`, and the z of their
/// terms.
#[derive(Debug)]
pub struct MlpActivations<T: Real> {
    gate: Option<SavedActivation<T>>,
    up: SavedActivation<T>,
    zgate: Option<Array2<T>>,
    zup: Option<Array2<T>>,
}

#[cfg(test)]
impl<T: Real> MlpActivations<T> {
    /// The bytes of activations that it holds.
    pub fn bytes(&self) -> u64 {
        let saved: u64 = self.gate.iter().chain([&self.up]).map(SavedActivation::bytes).sum();
        let full: usize = self.zgate.iter().chain(&self.zup).map(Array2::len).sum();
        saved + (full * size_of::<T>()) as u64
    }
}

impl<'a, T: Real> Mlp<'a, T> {
    /// The matrices, in the order in which a pass reads them; the last one is `down`.
    pub fn matrices(&self) -> impl Iterator<Item = &Linear<'a, T>> {
        self.gate.iter().chain([&self.up, &self.down])
    }

    /// [`Self::matrices`], to be changed.
    pub fn matrices_mut(&mut self) -> impl Iterator<Item = &mut Linear<'a, T>> {
        self.gate.iter_mut().chain([&mut self.up, &mut self.down])
    }

    /// Values saved of a token for the backward pass, which may be rounded to bfloat16. Those of terms are not among
    /// them.
    pub fn activation_values(&self) -> usize {
        self.down.weight().cols() * (1 + usize::from(self.gate.is_some()))
    }

    /// x `[tokens, d_model]`, normed, to the input of [`Self::down`], `[tokens, ff]`. With a precision, also
    /// the activations, saved for products of that precision.
    pub fn forward(
        &self,
        x: &T::PackedLhs<'_>,
        save: Option<Precision>,
    ) -> (T::PackedLhs<'static>, Option<MlpActivations<T>>) {
        let (gate, zgate) = self.gate.as_ref().map(|gate| gate.forward(x)).unzip();
        let (up, zup) = self.up.forward(x);
        let a = activation::forward(self.activation, gate.as_ref(), &up, self.down.precision());
        let saved = save.map(|precision| MlpActivations {
            gate: gate.map(|gate| SavedActivation::save(gate, precision)),
            up: SavedActivation::save(up, precision),
            zgate: zgate.flatten(),
            zup,
        });
        (a, saved)
    }

    /// Whether [`Self::backward`] needs the input x.
    pub fn reads_input(&self) -> bool {
        self.up.reads_input() || self.gate.as_ref().is_some_and(Linear::reads_input)
    }

    /// dL/dx `[tokens, d_model]` from g = dL/dy `[tokens, d_model]`, what the term of [`Self::down`] saved,
    /// and x if the network [reads it](Self::reads_input); adds the gradients of terms.
    pub fn backward(
        &self,
        g: CowArray<T, Ix2>,
        saved: MlpActivations<T>,
        zdown: Option<&Array2<T>>,
        x: Option<ArrayView2<T>>,
        sink: &mut dyn TermSink<T>,
    ) -> Array2<T> {
        let MlpActivations { gate, up, zgate, zup } = saved;
        let mut da = None;
        let width = self.down.weight().cols();
        let a =
            self.down.reads_input().then(|| activation::input(self.activation, gate.as_ref(), &up, width));
        self.down.backward(g, zdown, a.as_ref().map(|a| a.view()), sink, Some(&mut da));
        a.into_iter().for_each(T::recycle);
        let (dgate, dup) = activation::backward(self.activation, gate.as_ref(), &up, da.expect(WANTED));
        let mut dx = None;
        if let (Some(gate), Some(dgate)) = (&self.gate, dgate) {
            gate.backward(dgate.into(), zgate.as_ref(), x, sink, Some(&mut dx));
        }
        self.up.backward(dup.into(), zup.as_ref(), x, sink, Some(&mut dx));
        dx.expect(WANTED)
    }
}
