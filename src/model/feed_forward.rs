//! SwiGLU's elementwise part (Shazeer 2020, arXiv 2002.05202): a = silu(gate) up, forward and backward.

use ndarray::Array2;
use rayon::prelude::*;

use crate::kernels::{Precision, Real, Stored, elementwise};

/// Numbers that one thread takes at a time.
const CHUNK: usize = 1 << 12;

const CONTIGUOUS: &str = "activations are row-major";

/// gate, up `[tokens, ff]` to a `[tokens, ff]`, ready for products of this precision.
pub fn forward<T: Real>(gate: &Array2<T>, up: &Array2<T>, precision: Precision) -> T::Rows<'static> {
    T::rows_made(gate.dim(), precision, |i, out| {
        let (gate, up) = (gate.row(i), up.row(i));
        let (gate, up) = (gate.to_slice().expect(CONTIGUOUS), up.to_slice().expect(CONTIGUOUS));
        elementwise::swiglu(gate, up, out);
    })
}

/// From da = dL/da and the forward pass's inputs: dL/dgate and dL/dup, all `[tokens, ff]`.
pub fn backward<T: Real>(gate: &Stored<T>, up: &Stored<T>, mut da: Array2<T>) -> (Array2<T>, Array2<T>) {
    let mut dgate = T::space(da.dim());
    let gates = dgate.as_slice_mut().expect(CONTIGUOUS).par_chunks_mut(CHUNK);
    let d = da.as_slice_mut().expect(CONTIGUOUS).par_chunks_mut(CHUNK);
    gates.zip(d).enumerate().for_each(|(i, (dgate, d))| {
        let first = i * CHUNK;
        let mut space = Vec::new();
        gate.read(first, dgate);
        elementwise::swiglu_backward(dgate, up.get(first..first + d.len(), &mut space), d);
    });
    (dgate, da)
}
