//! The gated delta rule (Yang et al. 2024, arXiv 2412.06464) of one head, forward and backward.
//!
//! A state S `[key_dim, value_dim]` maps keys to values. Each token lets it decay, and corrects what it gives for the
//! token's key towards the token's value:
//!
//! ```text
//! S_t = e^(g_t) S_(t-1) + beta_t k_t (v_t - e^(g_t) S_(t-1)^T k_t)^T,    o_t = S_t^T q_t
//! ```
//!
//! Tokens are processed in chunks of [`CHUNK`](super::chunk::CHUNK). With S the state before a chunk, G the running sum of g in it,
//! D_ij = e^(G_i - G_j), and tril the part below the diagonal,
//!
//! ```text
//! B = tril(D * K K^T),  P = tril(D * Q K^T) with its diagonal,  W = V - e^G * (K S)
//! (I + beta * B) U = beta * W
//! O = e^G * (Q S) + P U,    S' = e^(G_last) S + (e^(G_last - G) * K)^T U
//! ```
//!
//! where `*` multiplies elements, or each row by its token's number. The backward pass computes the chunks again, and
//! keeps their states only while it goes through one head of one sequence.

use std::ops::Range;

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, s};

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
        let before = rhs(state.view());
        let Corrected { chunk, .. } = Corrected::new(inputs, range, &before);
        if let Some(mut out) = out {
            out.assign(&chunk.output(inputs, &before));
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
    let passed: Vec<(Corrected<T>, Array2<T>)> = chunks(inputs.g.len())
        .map(|range| {
            let before = state.clone();
            let corrected = Corrected::new(inputs, range, &rhs(before.view()));
            corrected.chunk.advance(inputs, &mut state);
            (corrected, before)
        })
        .collect();
    let mut gradients = HeadGradients::zeros(inputs, dstate.unwrap_or_else(|| Array2::zeros(state.dim())));
    for (corrected, before) in passed.iter().rev() {
        let dout = dout.slice(s![corrected.chunk.tokens.clone(), ..]).to_owned();
        corrected.backward(inputs, before.view(), dout.view(), &mut gradients);
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
    let (k, v) = (inputs.k.row(token), inputs.v.row(token));
    let decay = inputs.g[token].fast_exp();
    let mut given = vec![T::zero(); v.len()];
    for (mut row, &k) in state.rows_mut().into_iter().zip(k) {
        let row = row.as_slice_mut().expect(CONTIGUOUS);
        elementwise::scale(row, decay);
        elementwise::add_scaled(&mut given, k, row);
    }
    let beta = inputs.beta[token];
    let correction: Vec<T> = v.iter().zip(&given).map(|(&v, &given)| beta * (v - given)).collect();
    for (mut row, &k) in state.rows_mut().into_iter().zip(k) {
        elementwise::add_scaled(row.as_slice_mut().expect(CONTIGUOUS), k, &correction);
    }
    let Some(mut out) = out else { return };
    read(inputs, token, state, out.row_mut(0));
}

/// What a chunk computes from its tokens and the state before it.
struct Corrected<T> {
    chunk: Chunk<T>,
    b: Array2<T>,
    /// K S.
    given: Array2<T>,
    w: Array2<T>,
}

impl<T: Real> Corrected<T> {
    /// From the packed state before it.
    fn new(inputs: &HeadInputs<T>, tokens: Range<usize>, state: &T::PackedRhs) -> Self {
        let [q, k, v] = [&inputs.q, &inputs.k, &inputs.v].map(|x| x.slice(s![tokens.clone(), ..]));
        let beta = &inputs.beta[tokens.clone()];
        let (decay, since_start, until_end) = decays(&inputs.g[tokens.clone()]);
        let keys = rhs_transposed(k);
        let [mut p, mut b] = [q, k].map(|x| product::<T>(lhs(x), &keys, (tokens.len(), tokens.len())));
        for (i, ((mut p, mut b), decay)) in
            p.rows_mut().into_iter().zip(b.rows_mut()).zip(decay.rows()).enumerate()
        {
            p.iter_mut().zip(decay).for_each(|(p, &decay)| *p *= decay);
            b.iter_mut().zip(decay).for_each(|(b, &decay)| *b *= decay);
            b[i] = T::zero();
        }
        let given = product::<T>(lhs(k), state, v.dim());
        let mut w = v.to_owned();
        for ((mut w, given), &decay) in w.rows_mut().into_iter().zip(given.rows()).zip(&since_start) {
            elementwise::add_scaled(slice(&mut w), -decay, given.to_slice().expect(CONTIGUOUS));
        }
        let mut u = w.clone();
        for (i, &beta) in beta.iter().enumerate() {
            let (solved, mut rest) = u.view_mut().split_at(Axis(0), i);
            let mut row = rest.row_mut(0);
            let row = slice(&mut row);
            for (solved, &b) in solved.rows().into_iter().zip(b.row(i)) {
                elementwise::add_scaled(row, -b, solved.to_slice().expect(CONTIGUOUS));
            }
            elementwise::scale(row, beta);
        }
        Self { chunk: Chunk { tokens, decay, p, u, since_start, until_end }, b, given, w }
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
        let chunk = &self.chunk;
        let tokens = chunk.tokens.clone();
        let [q, k] = [&inputs.q, &inputs.k].map(|x| x.slice(s![tokens.clone(), ..]));
        let beta = &inputs.beta[tokens.clone()];
        let square = (tokens.len(), tokens.len());
        let (packed_dout, packed_k) = (rhs(dout), rhs(k));
        let (state_transposed, u_transposed) = (rhs_transposed(state), rhs_transposed(chunk.u.view()));
        let dstate = &mut gradients.state;

        // U: from O by P, and from the state after the chunk.
        let late_k = scaled_rows(k, &chunk.until_end);
        let mut dr = product::<T>(lhs(late_k.view()), &rhs(dstate.view()), chunk.u.dim());
        T::multiply_single(dr.view_mut(), true, &lhs_transposed(chunk.p.view()), &packed_dout);
        // R = beta * W: (I + beta * B)^T dR = dU.
        for i in (0..tokens.len()).rev() {
            let (mut rest, done) = dr.view_mut().split_at(Axis(0), i + 1);
            let mut row = rest.row_mut(i);
            let row = slice(&mut row);
            for (j, done) in (i + 1..tokens.len()).zip(done.rows()) {
                elementwise::add_scaled(row, -beta[j] * self.b[[j, i]], done.to_slice().expect(CONTIGUOUS));
            }
        }
        let [dp, da] = [dout, dr.view()].map(|d| product::<T>(lhs(d), &u_transposed, square));

        // M = dP * D is the gradient of Q K^T, and N, the sum of beta dA * D and its transpose, that of one K in K K^T.
        let [mut m, mut n] = [Array2::zeros(square), Array2::zeros(square)];
        let mut dg = vec![T::zero(); tokens.len()];
        for (i, &beta) in beta.iter().enumerate() {
            let mut through_beta = T::zero();
            for j in 0..=i {
                m[[i, j]] = dp[[i, j]] * chunk.decay[[i, j]];
                let mut pull = dp[[i, j]] * chunk.p[[i, j]];
                if j < i {
                    let da = -da[[i, j]];
                    n[[i, j]] = beta * da * chunk.decay[[i, j]];
                    n[[j, i]] = n[[i, j]];
                    through_beta += da * self.b[[i, j]];
                    pull += beta * da * self.b[[i, j]];
                }
                dg[i] += pull;
                dg[j] -= pull;
            }
            let [dr, w] = [&dr, &self.w].map(|x| x.row(i).to_slice().expect(CONTIGUOUS));
            gradients.beta[tokens.start + i] = through_beta + reduce::dot(dr, w);
        }

        // Q, by O.
        let from_state = product::<T>(lhs(dout), &state_transposed, q.dim());
        let mut dq = gradients.q.slice_mut(s![tokens.clone(), ..]);
        T::multiply_single(dq.view_mut(), false, &lhs(m.view()), &packed_k);
        for (i, mut dq) in dq.rows_mut().into_iter().enumerate() {
            let from_state = from_state.row(i).to_slice().expect(CONTIGUOUS);
            elementwise::add_scaled(slice(&mut dq), chunk.since_start[i], from_state);
            dg[i] += chunk.since_start[i] * q.row(i).iter().zip(from_state).map(|(&q, &d)| q * d).sum::<T>();
        }

        // V, and K S by W.
        let dw = scaled_rows(dr.view(), beta);
        let mut dgiven = dw.clone();
        for (i, mut dgiven) in dgiven.rows_mut().into_iter().enumerate() {
            let given = self.given.row(i).to_slice().expect(CONTIGUOUS);
            let dgiven = slice(&mut dgiven);
            elementwise::scale(dgiven, -chunk.since_start[i]);
            dg[i] += reduce::dot(dgiven, given);
        }
        gradients.v.slice_mut(s![tokens.clone(), ..]).assign(&dw);

        // K: by W, by both products, and by the state after the chunk.
        let mut dk = gradients.k.slice_mut(s![tokens.clone(), ..]);
        T::multiply_single(dk.view_mut(), false, &lhs(dgiven.view()), &state_transposed);
        T::multiply_single(dk.view_mut(), true, &lhs_transposed(m.view()), &rhs(q));
        T::multiply_single(dk.view_mut(), true, &lhs(n.view()), &packed_k);
        let from_state = product::<T>(lhs(chunk.u.view()), &rhs_transposed(dstate.view()), k.dim());
        let mut dlast = T::zero();
        for (i, mut dk) in dk.rows_mut().into_iter().enumerate() {
            let from_state = from_state.row(i).to_slice().expect(CONTIGUOUS);
            elementwise::add_scaled(slice(&mut dk), chunk.until_end[i], from_state);
            let pull = chunk.until_end[i] * k.row(i).iter().zip(from_state).map(|(&k, &d)| k * d).sum::<T>();
            dg[i] -= pull;
            dlast += pull;
        }

        // The state before the chunk.
        let both = state.iter().zip(&*dstate).map(|(&state, &d)| state * d).sum::<T>();
        dlast += chunk.whole_decay() * both;
        elementwise::scale(dstate.as_slice_mut().expect(CONTIGUOUS), chunk.whole_decay());
        let early_q = scaled_rows(q, &chunk.since_start);
        T::multiply_single(dstate.view_mut(), true, &lhs_transposed(early_q.view()), &packed_dout);
        T::multiply_single(dstate.view_mut(), true, &lhs_transposed(k), &rhs(dgiven.view()));

        // G is the running sum of g.
        let mut sum = dlast;
        for (i, dg) in dg.iter().enumerate().rev() {
            sum += *dg;
            gradients.g[tokens.start + i] = sum;
        }
    }
}
