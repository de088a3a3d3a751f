//! The rule of Mamba-2 (Dao and Gu 2024, arXiv 2405.21060) for one head, forward and backward: linear attention with a
//! decay.
//!
//! A state S `[key_dim, value_dim]` maps keys to values. Each token lets it decay, and adds its value for its key:
//!
//! ```text
//! S_t = e^(g_t) S_(t-1) + beta_t k_t v_t^T,    o_t = S_t^T q_t
//! ```
//!
//! Tokens are processed in chunks of [`CHUNK`](super::chunk::CHUNK). With S the state before a chunk, G the running sum of g
//! in it, D_ij = e^(G_i - G_j), tril the part on and below the diagonal, and U = beta * V,
//!
//! ```text
//! P = tril(D * Q K^T),  O = e^G * (Q S) + P U,    S' = e^(G_last) S + (e^(G_last - G) * K)^T U
//! ```
//!
//! where `*` multiplies elements, or each row by its token's number. The backward pass computes the chunks again, and
//! keeps their states only while it goes through one head of one sequence.

use std::ops::Range;

use ndarray::{Array2, ArrayView2, ArrayViewMut2, s};

use super::chunk::{
    CONTIGUOUS, Chunk, HeadGradients, HeadInputs, chunks, decays, lhs, lhs_transposed, product, read, rhs,
    rhs_transposed, scaled_rows, slice,
};
use crate::kernels::{Real, elementwise, reduce};

/// Takes the state `[key_dim, value_dim]` past all tokens, and writes each token's output, if asked:
/// `[tokens, value_dim]`.
pub fn forward<T: Real>(
    inputs: &HeadInputs<T>,
    state: &mut Array2<T>,
    mut out: Option<ArrayViewMut2<'_, T>>,
) {
    for range in chunks(inputs.g.len()) {
        let out = out.as_mut().map(|out| out.slice_mut(s![range.clone(), ..]));
        if range.len() == 1 {
            step(inputs, range.start, state, out);
            continue;
        }
        let chunk = Chunk::new(inputs, range);
        if let Some(mut out) = out {
            out.assign(&chunk.output(inputs, &rhs(state.view())));
        }
        chunk.advance(inputs, state);
    }
}

/// From dout = dL/dout `[tokens, value_dim]` and the gradient of the state after the last token, if it is used:
/// all gradients. `state` is that before the first token.
pub fn backward<T: Real>(
    inputs: &HeadInputs<T>,
    mut state: Array2<T>,
    dout: ArrayView2<T>,
    dstate: Option<Array2<T>>,
) -> HeadGradients<T> {
    let passed: Vec<(Chunk<T>, Array2<T>)> = chunks(inputs.g.len())
        .map(|range| {
            let before = state.clone();
            let chunk = Chunk::new(inputs, range);
            chunk.advance(inputs, &mut state);
            (chunk, before)
        })
        .collect();
    let mut gradients = HeadGradients::zeros(inputs, dstate.unwrap_or_else(|| Array2::zeros(state.dim())));
    for (chunk, before) in passed.iter().rev() {
        let dout = dout.slice(s![chunk.tokens.clone(), ..]).to_owned();
        chunk.backward(inputs, before.view(), dout.view(), &mut gradients);
    }
    gradients
}

/// One token, by the rule itself.
fn step<T: Real>(
    inputs: &HeadInputs<T>,
    token: usize,
    state: &mut Array2<T>,
    out: Option<ArrayViewMut2<'_, T>>,
) {
    let mut u = inputs.v.row(token).to_vec();
    elementwise::scale(&mut u, inputs.beta[token]);
    let decay = inputs.g[token].fast_exp();
    for (mut row, &k) in state.rows_mut().into_iter().zip(inputs.k.row(token)) {
        let row = slice(&mut row);
        elementwise::scale(row, decay);
        elementwise::add_scaled(row, k, &u);
    }
    let Some(mut out) = out else { return };
    read(inputs, token, state, out.row_mut(0));
}

impl<T: Real> Chunk<T> {
    /// From its tokens alone.
    fn new(inputs: &HeadInputs<T>, tokens: Range<usize>) -> Self {
        let [q, k, v] = [&inputs.q, &inputs.k, &inputs.v].map(|x| x.slice(s![tokens.clone(), ..]));
        let (decay, since_start, until_end) = decays(&inputs.g[tokens.clone()]);
        let mut p = product::<T>(lhs(q), &rhs_transposed(k), (tokens.len(), tokens.len()));
        p.zip_mut_with(&decay, |p, &decay| *p *= decay);
        let u = scaled_rows(v, &inputs.beta[tokens.clone()]);
        Self { tokens, decay, p, u, since_start, until_end }
    }

    /// Writes the chunk's part of the gradients; that of the state, which is that after the chunk, becomes that before
    /// it.
    fn backward(
        &self,
        inputs: &HeadInputs<T>,
        state: ArrayView2<T>,
        dout: ArrayView2<T>,
        gradients: &mut HeadGradients<T>,
    ) {
        let tokens = self.tokens.clone();
        let [q, k] = [&inputs.q, &inputs.k].map(|x| x.slice(s![tokens.clone(), ..]));
        let (packed_dout, packed_k) = (rhs(dout), rhs(k));
        let dstate = &mut gradients.state;

        // U: from O by P, and from the state after the chunk.
        let late_k = scaled_rows(k, &self.until_end);
        let mut du = product::<T>(lhs(late_k.view()), &rhs(dstate.view()), self.u.dim());
        T::multiply_single(du.view_mut(), true, &lhs_transposed(self.p.view()), &packed_dout);
        for (i, du) in du.rows().into_iter().enumerate() {
            let (du, v) = (du.to_slice().expect(CONTIGUOUS), inputs.v.row(tokens.start + i));
            gradients.beta[tokens.start + i] = reduce::dot(du, v.to_slice().expect(CONTIGUOUS));
        }
        let dv = scaled_rows(du.view(), &inputs.beta[tokens.clone()]);
        gradients.v.slice_mut(s![tokens.clone(), ..]).assign(&dv);

        // M = dP * D is the gradient of Q K^T.
        let mut m = product::<T>(lhs(dout), &rhs_transposed(self.u.view()), self.p.dim());
        let mut dg = vec![T::zero(); tokens.len()];
        for i in 0..tokens.len() {
            for j in 0..tokens.len() {
                if j <= i {
                    let pull = m[[i, j]] * self.p[[i, j]];
                    dg[i] += pull;
                    dg[j] -= pull;
                }
                m[[i, j]] *= self.decay[[i, j]];
            }
        }

        // Q, by O.
        let from_state = product::<T>(lhs(dout), &rhs_transposed(state), q.dim());
        let mut dq = gradients.q.slice_mut(s![tokens.clone(), ..]);
        T::multiply_single(dq.view_mut(), false, &lhs(m.view()), &packed_k);
        for (i, mut dq) in dq.rows_mut().into_iter().enumerate() {
            let from_state = from_state.row(i).to_slice().expect(CONTIGUOUS);
            elementwise::add_scaled(slice(&mut dq), self.since_start[i], from_state);
            dg[i] += self.since_start[i] * reduce::dot(q.row(i).to_slice().expect(CONTIGUOUS), from_state);
        }

        // K, by the product, and by the state after the chunk.
        let mut dk = gradients.k.slice_mut(s![tokens.clone(), ..]);
        T::multiply_single(dk.view_mut(), false, &lhs_transposed(m.view()), &rhs(q));
        let from_state = product::<T>(lhs(self.u.view()), &rhs_transposed(dstate.view()), k.dim());
        let mut dlast = T::zero();
        for (i, mut dk) in dk.rows_mut().into_iter().enumerate() {
            let from_state = from_state.row(i).to_slice().expect(CONTIGUOUS);
            elementwise::add_scaled(slice(&mut dk), self.until_end[i], from_state);
            let pull = self.until_end[i] * reduce::dot(k.row(i).to_slice().expect(CONTIGUOUS), from_state);
            dg[i] -= pull;
            dlast += pull;
        }

        // The state before the chunk.
        let both = state.iter().zip(&*dstate).map(|(&state, &d)| state * d).sum::<T>();
        dlast += self.whole_decay() * both;
        elementwise::scale(dstate.as_slice_mut().expect(CONTIGUOUS), self.whole_decay());
        let early_q = scaled_rows(q, &self.since_start);
        T::multiply_single(dstate.view_mut(), true, &lhs_transposed(early_q.view()), &packed_dout);

        // G is the running sum of g.
        let mut sum = dlast;
        for (i, dg) in dg.iter().enumerate().rev() {
            sum += *dg;
            gradients.g[tokens.start + i] = sum;
        }
    }
}
