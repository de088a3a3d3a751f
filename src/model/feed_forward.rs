//! SwiGLU's elementwise part (Shazeer 2020, arXiv 2002.05202): a = silu(gate) up, forward and backward.

use ndarray::{Array2, Zip};

use crate::kernels::Real;

fn sigmoid<T: Real>(x: T) -> T {
    T::one() / (T::one() + (-x).exp())
}

/// gate, up `[tokens, ff]` to a `[tokens, ff]`.
pub fn forward<T: Real>(gate: &Array2<T>, up: &Array2<T>) -> Array2<T> {
    let mut a = Array2::zeros(gate.dim());
    Zip::from(&mut a).and(gate).and(up).par_for_each(|a, &gate, &up| *a = gate * sigmoid(gate) * up);
    a
}

/// From da = dL/da and the forward pass's inputs: dL/dgate and dL/dup, all `[tokens, ff]`.
pub fn backward<T: Real>(gate: &Array2<T>, up: &Array2<T>, mut da: Array2<T>) -> (Array2<T>, Array2<T>) {
    let mut dgate = Array2::zeros(gate.dim());
    Zip::from(&mut dgate).and(&mut da).and(gate).and(up).par_for_each(|dgate, da, &gate, &up| {
        let s = sigmoid(gate);
        let g = *da;
        *dgate = g * up * s * (T::one() + gate * (T::one() - s));
        *da = g * gate * s;
    });
    (dgate, da)
}
