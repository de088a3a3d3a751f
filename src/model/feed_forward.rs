//! SwiGLU's elementwise part (Shazeer 2020, arXiv 2002.05202): a = silu(gate) up, forward and backward.

use ndarray::Array2;
use rayon::prelude::*;

use crate::kernels::{Real, elementwise};

/// Numbers that one thread takes at a time.
const CHUNK: usize = 1 << 14;

const CONTIGUOUS: &str = "activations are row-major";

/// gate, up `[tokens, ff]` to a `[tokens, ff]`.
pub fn forward<T: Real>(gate: &Array2<T>, up: &Array2<T>) -> Array2<T> {
    let mut a = Array2::zeros(gate.dim());
    let (gate, up) = (gate.as_slice().expect(CONTIGUOUS), up.as_slice().expect(CONTIGUOUS));
    let out = a.as_slice_mut().expect(CONTIGUOUS).par_chunks_mut(CHUNK);
    out.zip(gate.par_chunks(CHUNK))
        .zip(up.par_chunks(CHUNK))
        .for_each(|((out, gate), up)| elementwise::swiglu(gate, up, out));
    a
}

/// From da = dL/da and the forward pass's inputs: dL/dgate and dL/dup, all `[tokens, ff]`.
pub fn backward<T: Real>(mut gate: Array2<T>, up: &Array2<T>, mut da: Array2<T>) -> (Array2<T>, Array2<T>) {
    let up = up.as_slice().expect(CONTIGUOUS).par_chunks(CHUNK);
    let gates = gate.as_slice_mut().expect(CONTIGUOUS).par_chunks_mut(CHUNK);
    let d = da.as_slice_mut().expect(CONTIGUOUS).par_chunks_mut(CHUNK);
    gates.zip(d).zip(up).for_each(|((gate, d), up)| elementwise::swiglu_backward(gate, up, d));
    (gate, da)
}
