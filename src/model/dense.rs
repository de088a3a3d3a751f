//! A dense feed-forward part: down(f(gate(x)) up(x)), or down(f(up(x))) where there is no gate.

use ndarray::{Array2, CowArray, Ix2};

use super::feed_forward;
use super::linear::Linear;
use crate::arch::Activation;
use crate::kernels::{Precision, Real, Stored};

const WANTED: &str = "a gradient that was asked for";

/// The frozen weights, with the trained terms beside them.
#[derive(Clone, Debug)]
pub struct Dense<'a, T: Real> {
    /// `[ff, d_model]`.
    pub gate: Option<Linear<'a, T>>,
    /// `[ff, d_model]`.
    pub up: Linear<'a, T>,
    /// `[d_model, ff]`.
    pub down: Linear<'a, T>,
    /// f.
    pub activation: Activation,
}

/// What the backward pass needs of the forward pass: what matrices gave, and that at the rows of their terms.
#[derive(Debug)]
pub struct Kept<T: Real> {
    gate: Option<Stored<T>>,
    up: Stored<T>,
    zgate: Option<Array2<T>>,
    zup: Option<Array2<T>>,
}

#[cfg(test)]
impl<T: Real> Kept<T> {
    /// How many bytes of activations it holds.
    pub fn bytes(&self) -> u64 {
        let stored: u64 = self.gate.iter().chain([&self.up]).map(Stored::bytes).sum();
        let whole: usize = self.zgate.iter().chain(&self.zup).map(Array2::len).sum();
        stored + (whole * size_of::<T>()) as u64
    }
}

impl<T: Real> Dense<'_, T> {
    /// x `[tokens, d_model]`, normed, to the input of [`Self::down`], `[tokens, ff]`; and what is kept of it for products
    /// of the given precision.
    pub fn forward(&self, x: &T::Rows<'_>, keep: Option<Precision>) -> (T::Rows<'static>, Option<Kept<T>>) {
        let (gate, zgate) = self.gate.as_ref().map(|gate| gate.forward(x)).unzip();
        let (up, zup) = self.up.forward(x);
        let a = feed_forward::forward(self.activation, gate.as_ref(), &up, self.down.precision());
        let kept = keep.map(|precision| Kept {
            gate: gate.map(|gate| Stored::keep(gate, precision)),
            up: Stored::keep(up, precision),
            zgate: zgate.flatten(),
            zup,
        });
        (a, kept)
    }

    /// dL/dx `[tokens, d_model]` from g = dL/dy, with the z of [`Self::down`]; adds the gradients of terms.
    pub fn backward(
        &self,
        g: CowArray<T, Ix2>,
        kept: Kept<T>,
        zdown: Option<&Array2<T>>,
        gradients: &mut [Array2<T>],
    ) -> Array2<T> {
        let Kept { gate, up, zgate, zup } = kept;
        let mut da = None;
        self.down.backward(g, zdown, gradients, Some(&mut da));
        let (dgate, dup) = feed_forward::backward(self.activation, gate.as_ref(), &up, da.expect(WANTED));
        let mut dx = None;
        if let (Some(gate), Some(dgate)) = (&self.gate, dgate) {
            gate.backward(dgate.into(), zgate.as_ref(), gradients, Some(&mut dx));
        }
        self.up.backward(dup.into(), zup.as_ref(), gradients, Some(&mut dx));
        dx.expect(WANTED)
    }
}
