//! One transformer block: attention and feed-forward part, each behind a norm and added to the residual stream.

use ndarray::{Array2, ArrayView2};

use super::attention::{self, Heads, Span};
use super::feed_forward;
use super::linear::Linear;
use super::norm::RmsNorm;
use super::rotary::{Angles, Rotary};
use crate::kernels::Real;

const WANTED: &str = "a gradient that was asked for";

/// The frozen weights of a block, with the trained terms beside them.
#[derive(Clone, Debug)]
pub struct Block<'a, T> {
    pub(super) attn_norm: RmsNorm<T>,
    pub(super) q: Linear<'a, T>,
    pub(super) k: Linear<'a, T>,
    pub(super) v: Linear<'a, T>,
    pub(super) o: Linear<'a, T>,
    pub(super) ffn_norm: RmsNorm<T>,
    pub(super) gate: Linear<'a, T>,
    pub(super) up: Linear<'a, T>,
    pub(super) down: Linear<'a, T>,
}

/// What attention reads: `[tokens, heads * dim]` each, q and k already rotated.
#[derive(Clone, Debug)]
pub(super) struct Projected<T> {
    pub q: Array2<T>,
    pub k: Array2<T>,
    pub v: Array2<T>,
    z: [Option<Array2<T>>; 3],
}

/// What is kept of one block's forward pass for the backward pass.
#[derive(Debug)]
pub(super) enum Kept<T> {
    /// Its input alone, from which the rest is computed once more.
    Input(Array2<T>),
    /// All of it.
    Whole(Box<Saved<T>>),
}

/// What the backward pass needs of one block's forward pass. The inputs of the matrices are not among it.
#[derive(Debug)]
pub(super) struct Saved<T> {
    x: Array2<T>,
    projected: Projected<T>,
    attended: Array2<T>,
    log_sums: Array2<T>,
    finished: Finished<T>,
}

#[derive(Debug)]
struct Finished<T> {
    mid: Array2<T>,
    gate: Array2<T>,
    up: Array2<T>,
    z: [Option<Array2<T>>; 4],
}

#[cfg(test)]
impl<T> Saved<T> {
    /// How many numbers it holds.
    pub(super) fn numbers(&self) -> usize {
        let (p, f) = (&self.projected, &self.finished);
        let arrays = [&self.x, &p.q, &p.k, &p.v, &self.attended, &self.log_sums, &f.mid, &f.gate, &f.up];
        let z = p.z.iter().chain(&f.z).flatten();
        arrays.into_iter().chain(z).map(Array2::len).sum()
    }
}

/// Where the tokens stand: shared by all blocks of a pass.
pub(super) struct Places<'a, T> {
    pub spans: &'a [Span],
    pub angles: &'a Angles<T>,
    pub rotary: &'a Rotary,
    pub heads: Heads,
}

impl<'a, T: Real> Block<'a, T> {
    /// The matrices by the last part of their canonical names.
    pub(super) fn linear_mut(&mut self, part: &str) -> Option<&mut Linear<'a, T>> {
        Some(match part {
            "attn_q" => &mut self.q,
            "attn_k" => &mut self.k,
            "attn_v" => &mut self.v,
            "attn_output" => &mut self.o,
            "ffn_gate" => &mut self.gate,
            "ffn_up" => &mut self.up,
            "ffn_down" => &mut self.down,
            _ => return None,
        })
    }

    /// All matrices.
    pub(super) fn linears_mut(&mut self) -> [&mut Linear<'a, T>; 7] {
        [&mut self.q, &mut self.k, &mut self.v, &mut self.o, &mut self.gate, &mut self.up, &mut self.down]
    }

    /// x `[tokens, d_model]` to q, k and v.
    pub(super) fn project(&self, x: ArrayView2<T>, rotary: &Rotary, angles: &Angles<T>) -> Projected<T> {
        let normed = self.attn_norm.forward(x);
        let input = self.q.input(normed.view());
        let (mut q, zq) = self.q.forward(&input);
        let (mut k, zk) = self.k.forward(&input);
        let (v, zv) = self.v.forward(&input);
        rotary.forward(&mut q, angles);
        rotary.forward(&mut k, angles);
        Projected { q, k, v, z: [zq, zk, zv] }
    }

    /// The block's output from its input and what attention gave, both `[tokens, ...]`.
    pub(super) fn finish(&self, x: ArrayView2<T>, attended: ArrayView2<T>) -> Array2<T> {
        self.finish_saving(x, attended).0
    }

    fn finish_saving(&self, x: ArrayView2<T>, attended: ArrayView2<T>) -> (Array2<T>, Finished<T>) {
        let (mut mid, zo) = self.o.forward(&self.o.input(attended));
        mid += &x;
        let normed = self.ffn_norm.forward(mid.view());
        let input = self.gate.input(normed.view());
        let (gate, zgate) = self.gate.forward(&input);
        let (up, zup) = self.up.forward(&input);
        let a = feed_forward::forward(&gate, &up);
        let (mut y, zdown) = self.down.forward(&self.down.input(a.view()));
        y += &mid;
        (y, Finished { mid, gate, up, z: [zo, zgate, zup, zdown] })
    }

    /// `[tokens, d_model]` to `[tokens, d_model]`, keeping nothing.
    pub(super) fn forward(&self, x: Array2<T>, places: &Places<'_, T>) -> Array2<T> {
        let p = self.project(x.view(), places.rotary, places.angles);
        let (attended, _) =
            attention::forward(p.q.view(), p.k.view(), p.v.view(), places.spans, places.heads);
        self.finish(x.view(), attended.view())
    }

    /// [`Self::forward`], keeping what [`Self::backward`] needs.
    pub(super) fn forward_saving(&self, x: Array2<T>, places: &Places<'_, T>) -> (Array2<T>, Saved<T>) {
        let projected = self.project(x.view(), places.rotary, places.angles);
        let (q, k, v) = (projected.q.view(), projected.k.view(), projected.v.view());
        let (attended, log_sums) = attention::forward(q, k, v, places.spans, places.heads);
        let (y, finished) = self.finish_saving(x.view(), attended.view());
        (y, Saved { x, projected, attended, log_sums, finished })
    }

    /// Numbers that [`Self::forward_saving`] keeps of a token.
    pub(super) fn kept_numbers(&self, heads: Heads) -> usize {
        let z = [&self.q, &self.k, &self.v, &self.o, &self.gate, &self.up, &self.down]
            .into_iter()
            .filter_map(|linear| linear.term.as_ref())
            .map(|term| term.rows.len());
        let (d, ff) = (self.down.weight().rows(), self.down.weight().cols());
        let (q, kv) = (heads.query * heads.dim, heads.key_value * heads.dim);
        2 * d + 2 * q + 2 * kv + heads.query + 2 * ff + z.sum::<usize>()
    }

    /// What [`Self::forward_saving`] kept, or would have.
    pub(super) fn whole(&self, kept: Kept<T>, places: &Places<'_, T>) -> Saved<T> {
        match kept {
            Kept::Whole(saved) => *saved,
            Kept::Input(x) => self.forward_saving(x, places).1,
        }
    }

    /// From dy = dL/dy: adds the gradients of this block's terms, and gives dL/dx when `want_dx`; both
    /// `[tokens, d_model]`.
    pub(super) fn backward(
        &self,
        dy: Array2<T>,
        saved: Saved<T>,
        places: &Places<'_, T>,
        gradients: &mut [Array2<T>],
        want_dx: bool,
    ) -> Option<Array2<T>> {
        let Saved { x, projected, attended, log_sums, finished } = saved;
        let dmid = self.feed_forward_backward(dy, finished, gradients);
        let attention_trains = [&self.q, &self.k, &self.v].iter().any(|l| l.term.is_some());
        if !want_dx && !attention_trains {
            self.o.backward(dmid.0, dmid.1.as_ref(), gradients, None);
            return None;
        }
        let (dmid, zo) = dmid;
        let mut dattended = None;
        self.o.backward(dmid.clone(), zo.as_ref(), gradients, Some(&mut dattended));
        let dattended = dattended.expect(WANTED);
        let pass = attention::Forward {
            q: projected.q.view(),
            k: projected.k.view(),
            v: projected.v.view(),
            out: attended.view(),
            log_sums: log_sums.view(),
        };
        let (mut dq, mut dk, dv) = attention::backward(&pass, dattended.view(), places.spans, places.heads);
        places.rotary.backward(&mut dq, places.angles);
        places.rotary.backward(&mut dk, places.angles);
        let mut dnormed = None;
        let [zq, zk, zv] = &projected.z;
        self.q.backward(dq, zq.as_ref(), gradients, want_dx.then_some(&mut dnormed));
        self.k.backward(dk, zk.as_ref(), gradients, want_dx.then_some(&mut dnormed));
        self.v.backward(dv, zv.as_ref(), gradients, want_dx.then_some(&mut dnormed));
        dnormed.map(|dnormed| {
            let mut dx = dmid;
            self.attn_norm.backward(x.view(), dnormed.view(), &mut dx);
            dx
        })
    }

    /// dL/dmid, and the z of the attention's output matrix, which is next in line.
    fn feed_forward_backward(
        &self,
        dy: Array2<T>,
        finished: Finished<T>,
        gradients: &mut [Array2<T>],
    ) -> (Array2<T>, Option<Array2<T>>) {
        let Finished { mid, gate, up, z: [zo, zgate, zup, zdown] } = finished;
        let mut da = None;
        self.down.backward(dy.clone(), zdown.as_ref(), gradients, Some(&mut da));
        let (dgate, dup) = feed_forward::backward(gate, &up, da.expect(WANTED));
        let mut dnormed = None;
        self.gate.backward(dgate, zgate.as_ref(), gradients, Some(&mut dnormed));
        self.up.backward(dup, zup.as_ref(), gradients, Some(&mut dnormed));
        let mut dmid = dy;
        self.ffn_norm.backward(mid.view(), dnormed.expect(WANTED).view(), &mut dmid);
        (dmid, zo)
    }
}
