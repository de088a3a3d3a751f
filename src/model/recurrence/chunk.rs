//! What the rules share: tokens are processed in chunks, whose products are those of small matrices.

use std::ops::Range;

use ndarray::{Array2, ArrayView2, ArrayViewMut1, s};

use crate::kernels::{Precision, Real, elementwise, softmax};

/// Tokens of a chunk.
pub const CHUNK: usize = 64;

pub const CONTIGUOUS: &str = "rows are contiguous";

/// What one head reads of a sequence: its own copies, since products of rows that lie far apart are slow.
#[derive(Clone)]
pub struct HeadInputs<T> {
    /// Queries, `[tokens, key_dim]`.
    pub q: Array2<T>,
    /// Keys, `[tokens, key_dim]`.
    pub k: Array2<T>,
    /// Values, `[tokens, value_dim]`.
    pub v: Array2<T>,
    /// The logarithm of each token's decay; at most 0.
    pub g: Vec<T>,
    /// The strength of each token's correction, 0 to 1, or what multiplies its value.
    pub beta: Vec<T>,
}

/// The gradients of [`HeadInputs`], and of the state before the sequence.
pub struct HeadGradients<T> {
    pub q: Array2<T>,
    pub k: Array2<T>,
    pub v: Array2<T>,
    pub g: Vec<T>,
    pub beta: Vec<T>,
    pub state: Array2<T>,
}

impl<T: Real> HeadGradients<T> {
    /// Nothing yet, but the gradient of the state after the sequence.
    pub fn zeros(inputs: &HeadInputs<T>, state: Array2<T>) -> Self {
        Self {
            q: Array2::zeros(inputs.q.dim()),
            k: Array2::zeros(inputs.k.dim()),
            v: Array2::zeros(inputs.v.dim()),
            g: vec![T::zero(); inputs.g.len()],
            beta: vec![T::zero(); inputs.beta.len()],
            state,
        }
    }
}

/// What both rules compute of a chunk, by the names of their own documentation.
pub struct Chunk<T> {
    pub tokens: Range<usize>,
    /// D, on and below the diagonal.
    pub decay: Array2<T>,
    pub p: Array2<T>,
    pub u: Array2<T>,
    /// e^G.
    pub since_start: Vec<T>,
    /// e^(G_last - G).
    pub until_end: Vec<T>,
}

impl<T: Real> Chunk<T> {
    /// `[tokens, value_dim]`, from the packed state before it.
    pub fn output(&self, inputs: &HeadInputs<T>, state: &T::PackedRhs) -> Array2<T> {
        let q = inputs.q.slice(s![self.tokens.clone(), ..]);
        let mut out = product::<T>(lhs(scaled_rows(q, &self.since_start).view()), state, self.u.dim());
        T::multiply_single(out.view_mut(), true, &lhs(self.p.view()), &rhs(self.u.view()));
        out
    }

    /// Takes the state before the chunk past it.
    pub fn advance(&self, inputs: &HeadInputs<T>, state: &mut Array2<T>) {
        let k = inputs.k.slice(s![self.tokens.clone(), ..]);
        let k = scaled_rows(k, &self.until_end);
        elementwise::scale(state.as_slice_mut().expect(CONTIGUOUS), self.whole_decay());
        T::multiply_single(state.view_mut(), true, &lhs_transposed(k.view()), &rhs(self.u.view()));
    }

    /// The decay from before the chunk to its end.
    pub fn whole_decay(&self) -> T {
        self.since_start.last().copied().unwrap_or(T::one())
    }
}

/// Writes what the state gives for a token's query.
pub fn read<T: Real>(inputs: &HeadInputs<T>, token: usize, state: &Array2<T>, mut out: ArrayViewMut1<'_, T>) {
    let out = slice(&mut out);
    out.fill(T::zero());
    for (row, &q) in state.rows().into_iter().zip(inputs.q.row(token)) {
        elementwise::add_scaled(out, q, row.to_slice().expect(CONTIGUOUS));
    }
}

/// The tokens of each chunk.
pub fn chunks(tokens: usize) -> impl Iterator<Item = Range<usize>> {
    (0..tokens).step_by(CHUNK).map(move |start| start..(start + CHUNK).min(tokens))
}

/// D on and below the diagonal, e^G and e^(G_last - G) of a chunk. What has decayed to almost nothing becomes 0: products
/// of subnormal numbers are many times as slow.
pub fn decays<T: Real>(g: &[T]) -> (Array2<T>, Vec<T>, Vec<T>) {
    let mut sum = T::zero();
    let sums: Vec<T> = g
        .iter()
        .map(|&g| {
            sum += g;
            sum
        })
        .collect();
    let mut decay = Array2::zeros((g.len(), g.len()));
    for (i, mut row) in decay.rows_mut().into_iter().enumerate() {
        let row = &mut slice(&mut row)[..=i];
        row.copy_from_slice(&sums[..=i]);
        softmax::exp_shifted(row, -T::one(), -sums[i]);
        row.iter_mut().for_each(|decay| *decay = gone(*decay));
    }
    let since_start = sums.iter().map(|&sum| gone(sum.fast_exp())).collect();
    let until_end = sums.iter().map(|&sum| gone((sums[sums.len() - 1] - sum).fast_exp())).collect();
    (decay, since_start, until_end)
}

/// 0 for a decay whose products may be subnormal.
fn gone<T: Real>(decay: T) -> T {
    if decay < T::min_positive_value().sqrt() { T::zero() } else { decay }
}

/// Each row times its factor.
pub fn scaled_rows<T: Real>(x: ArrayView2<T>, factors: &[T]) -> Array2<T> {
    let mut scaled = x.as_standard_layout().into_owned();
    for (mut row, &factor) in scaled.rows_mut().into_iter().zip(factors) {
        elementwise::scale(slice(&mut row), factor);
    }
    scaled
}

/// The numbers of a row.
pub fn slice<'r, T>(row: &'r mut ArrayViewMut1<'_, T>) -> &'r mut [T] {
    row.as_slice_mut().expect(CONTIGUOUS)
}

/// A left factor. A state sums over many tokens, so its products are never rounded to bfloat16.
pub fn lhs<T: Real>(x: ArrayView2<'_, T>) -> T::PackedLhs<'_> {
    T::pack_lhs(x, Precision::F32)
}

/// A left factor, from its transpose.
pub fn lhs_transposed<T: Real>(x: ArrayView2<'_, T>) -> T::PackedLhs<'_> {
    T::pack_lhs_transposed(x, Precision::F32)
}

/// A right factor.
pub fn rhs<T: Real>(x: ArrayView2<'_, T>) -> T::PackedRhs {
    T::pack_rhs(x, Precision::F32)
}

/// A right factor, from its transpose.
pub fn rhs_transposed<T: Real>(x: ArrayView2<'_, T>) -> T::PackedRhs {
    T::pack_rhs_transposed(x, Precision::F32)
}

/// The product of two factors, of this shape.
pub fn product<T: Real>(a: T::PackedLhs<'_>, b: &T::PackedRhs, shape: (usize, usize)) -> Array2<T> {
    let mut c = Array2::zeros(shape);
    T::multiply_single(c.view_mut(), false, &a, b);
    c
}
