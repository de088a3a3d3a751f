//! The activation of a feed-forward network, forward and backward: the gated linear unit a = f(gate) up
//! (Shazeer 2020, arXiv 2002.05202), which is SwiGLU or GeGLU, or a = f(up) without a gate. One has a function of up
//! in place of up.

use ndarray::{Array2, Axis};
use rayon::prelude::*;

use crate::kernels::activation::{
    ActivationFn, ClampedSwiglu, ExactGelu, Gelu, Silu, SquaredRelu, Xielu, gated, gated_backward, plain,
    plain_backward,
};
use crate::kernels::{Precision, Real, SavedActivation};

/// Values that one thread processes at a time.
const CHUNK: usize = 1 << 12;

const CONTIGUOUS: &str = "activations are row-major";

/// The function f of a block: an [`Activation`](crate::arch::Activation), with the block's numbers if it has some.
#[derive(Clone, Copy, Debug)]
pub enum Function {
    /// SiLU.
    Silu,
    /// GELU by its tanh formula.
    Gelu,
    /// GELU itself.
    ExactGelu,
    /// The squared ReLU.
    SquaredRelu,
    /// The clamped SwiGLU of gpt-oss.
    ClampedSwiglu,
    /// xIELU with these numbers.
    Xielu(Xielu),
}

/// Evaluates an expression with the function under this name. Each function has a type of its own, so that the
/// expression is compiled for it.
macro_rules! with {
    ($function:expr, $f:ident => $value:expr) => {
        match $function {
            Function::Silu => with!(@ $f = Silu, $value),
            Function::Gelu => with!(@ $f = Gelu, $value),
            Function::ExactGelu => with!(@ $f = ExactGelu, $value),
            Function::SquaredRelu => with!(@ $f = SquaredRelu, $value),
            Function::ClampedSwiglu => with!(@ $f = ClampedSwiglu, $value),
            Function::Xielu(xielu) => with!(@ $f = xielu, $value),
        }
    };
    (@ $f:ident = $own:expr, $value:expr) => {{
        let $f = $own;
        $value
    }};
}

/// gate and up `[tokens, ff]` to a `[tokens, ff]`, packed for products of this precision.
pub fn forward<T: Real>(
    function: Function,
    gate: Option<&Array2<T>>,
    up: &Array2<T>,
    precision: Precision,
) -> T::PackedLhs<'static> {
    T::pack_lhs_from_fn(up.dim(), precision, |i, out| {
        let up = up.row(i);
        let gate = gate.map(|gate| gate.row(i));
        let gate = gate.as_ref().map(|gate| gate.to_slice().expect(CONTIGUOUS));
        value(function, gate, up.to_slice().expect(CONTIGUOUS), out);
    })
}

/// What [`forward`] packed, `[tokens, ff]`, from its saved inputs of width `ff`.
pub fn input<T: Real>(
    function: Function,
    gate: Option<&SavedActivation<T>>,
    up: &SavedActivation<T>,
    width: usize,
) -> Array2<T> {
    let mut a = up.to_array(width);
    let rows = a.as_slice_mut().expect(CONTIGUOUS).par_chunks_mut(width).enumerate();
    rows.for_each(|(i, a)| {
        let (mut up_space, mut gate_space) = (Vec::new(), Vec::new());
        let range = i * width..(i + 1) * width;
        let gate = gate.map(|gate| gate.get(range.clone(), &mut gate_space));
        value(function, gate, up.get(range, &mut up_space), a);
    });
    a
}

/// f(gate) h(up), or f(up), of one token.
pub(super) fn value<T: Real>(function: Function, gate: Option<&[T]>, up: &[T], out: &mut [T]) {
    match gate {
        Some(gate) => with!(function, f => gated(f, gate, up, out)),
        None => with!(function, f => plain(f, up, out)),
    }
}

/// dL/dgate, if there is a gate, and dL/dup, from da = dL/da and the inputs of the forward pass, all
/// `[tokens, ff]`.
pub fn backward<T: Real>(
    function: Function,
    gate: Option<&SavedActivation<T>>,
    up: &SavedActivation<T>,
    mut da: Array2<T>,
) -> (Option<Array2<T>>, Array2<T>) {
    let shape = da.dim();
    let d = da.as_slice_mut().expect(CONTIGUOUS).par_chunks_mut(CHUNK);
    let Some(gate) = gate else {
        d.enumerate().for_each(|(i, d)| {
            let mut space = Vec::new();
            let up = up.get(i * CHUNK..i * CHUNK + d.len(), &mut space);
            with!(function, f => plain_backward(f, up, d));
        });
        return (None, da);
    };
    let mut dgate = T::pooled(shape);
    let gates = dgate.as_slice_mut().expect(CONTIGUOUS).par_chunks_mut(CHUNK);
    gates.zip(d).enumerate().for_each(|(i, (dgate, d))| {
        let first = i * CHUNK;
        let mut space = Vec::new();
        gate.read(first, dgate);
        let up = up.get(first..first + d.len(), &mut space);
        with!(function, f => gated_backward(f, dgate, up, d));
    });
    (Some(dgate), da)
}

/// f(gate) x, all `[tokens, n]`: the output gate of attention.
pub fn gated_by<F: ActivationFn, T: Real>(f: F, gate: &Array2<T>, x: &Array2<T>) -> Array2<T> {
    let mut out = T::pooled(x.dim());
    let rows = out.axis_iter_mut(Axis(0)).into_par_iter().zip(gate.axis_iter(Axis(0)));
    rows.zip(x.axis_iter(Axis(0))).for_each(|((mut out, gate), x)| {
        let [gate, x] = [&gate, &x].map(|row| row.as_slice().expect(CONTIGUOUS));
        gated(f, gate, x, out.as_slice_mut().expect(CONTIGUOUS));
    });
    out
}

/// dL/dgate from d = dL/d(f(gate) x); `d` becomes dL/dx.
pub fn gated_by_backward<F: ActivationFn, T: Real>(
    f: F,
    gate: &SavedActivation<T>,
    x: &SavedActivation<T>,
    d: &mut Array2<T>,
) -> Array2<T> {
    let width = d.ncols();
    let mut dgate = gate.to_array(width);
    let rows = dgate.axis_iter_mut(Axis(0)).into_par_iter().zip(d.axis_iter_mut(Axis(0))).enumerate();
    rows.for_each(|(i, (mut dgate, mut d))| {
        let mut space = Vec::new();
        let x = x.get(i * width..(i + 1) * width, &mut space);
        let [dgate, d] = [&mut dgate, &mut d].map(|row| row.as_slice_mut().expect(CONTIGUOUS));
        gated_backward(f, dgate, x, d);
    });
    dgate
}
