//! One transformer block: attention and feed-forward part, each behind a norm and added to the residual stream.

use ndarray::{Array2, ArrayView2, Axis};
use rayon::prelude::*;

use super::attention::{self, Heads, Span};
use super::feed_forward;
use super::linear::Linear;
use super::norm::RmsNorm;
use super::rotary::{Angles, Rotary};
use crate::kernels::{Precision, Real, Stored, elementwise};

/// Token rows that one thread takes at a time.
const TILE: usize = 16;

const CONTIGUOUS: &str = "activations are row-major";
const WANTED: &str = "a gradient that was asked for";

/// The frozen weights of a block, with the trained terms beside them.
#[derive(Clone, Debug)]
pub struct Block<'a, T: Real> {
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
    z: Z<T, 3>,
}

/// What some matrices gave at the rows of their terms.
type Z<T, const N: usize> = [Option<Array2<T>>; N];

/// What is kept of one block's forward pass for the backward pass.
#[derive(Debug)]
pub(super) enum Kept<T: Real> {
    /// Its input alone, from which the rest is computed once more.
    Input(Array2<T>),
    /// All of it.
    Whole(Box<Saved<T>>),
}

/// What the backward pass needs of one block's forward pass. The inputs of the matrices are not among it.
#[derive(Debug)]
pub(super) struct Saved<T: Real> {
    x: Stored<T>,
    q: Stored<T>,
    k: Stored<T>,
    v: Stored<T>,
    z: Z<T, 3>,
    log_sums: Array2<T>,
    finished: Finished<T>,
    /// The rows that the block gave, when not all.
    wanted: Option<Vec<usize>>,
}

#[derive(Debug)]
struct Finished<T: Real> {
    mid: Stored<T>,
    gate: Stored<T>,
    up: Stored<T>,
    z: Z<T, 4>,
}

#[cfg(test)]
impl<T: Real> Saved<T> {
    /// How many bytes it holds.
    pub(super) fn bytes(&self) -> u64 {
        let f = &self.finished;
        let stored = [&self.x, &self.q, &self.k, &self.v, &f.mid, &f.gate, &f.up].map(Stored::bytes);
        let whole: usize = self.z.iter().chain(&f.z).flatten().chain([&self.log_sums]).map(Array2::len).sum();
        stored.iter().sum::<u64>() + (whole * size_of::<T>()) as u64
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
        let input = self.attn_norm.rows(x, self.q.precision());
        let (mut q, zq) = self.q.forward(&input);
        let (mut k, zk) = self.k.forward(&input);
        let (v, zv) = self.v.forward(&input);
        rotary.forward(&mut q, angles);
        rotary.forward(&mut k, angles);
        Projected { q, k, v, z: [zq, zk, zv] }
    }

    /// The block's output from its input and what attention gave, both `[tokens, ...]`.
    pub(super) fn finish(&self, x: Array2<T>, attended: ArrayView2<T>) -> Array2<T> {
        self.finish_keeping(x, attended, None).0
    }

    /// [`Self::finish`], and what is kept of it for products of the given precision.
    fn finish_keeping(
        &self,
        mut x: Array2<T>,
        attended: ArrayView2<T>,
        keep: Option<Precision>,
    ) -> (Array2<T>, Option<Finished<T>>) {
        let zo = add_product(&mut x, &self.o, &self.o.input(attended));
        let mid = keep.map(|precision| Stored::copy(x.view(), precision));
        let input = self.ffn_norm.rows(x.view(), self.gate.precision());
        let (gate, zgate) = self.gate.forward(&input);
        let (up, zup) = self.up.forward(&input);
        drop(input);
        let a = feed_forward::forward(&gate, &up, self.down.precision());
        let zdown = add_product(&mut x, &self.down, &a);
        let finished = keep.zip(mid).map(|(precision, mid)| {
            let [gate, up] = [gate, up].map(|x| Stored::keep(x, precision));
            Finished { mid, gate, up, z: [zo, zgate, zup, zdown] }
        });
        (x, finished)
    }

    /// `[tokens, d_model]` to the same, or to those rows that are `wanted` of it, keeping nothing.
    pub(super) fn forward(
        &self,
        x: Array2<T>,
        places: &Places<'_, T>,
        wanted: Option<&[usize]>,
    ) -> Array2<T> {
        let p = self.project(x.view(), places.rotary, places.angles);
        let (attended, _) =
            attention::forward(p.q.view(), p.k.view(), p.v.view(), places.spans, places.heads);
        let attended = select(attended, wanted);
        self.finish(select(x, wanted), attended.view())
    }

    /// [`Self::forward`], keeping what [`Self::backward`] needs.
    pub(super) fn forward_saving(
        &self,
        x: Array2<T>,
        places: &Places<'_, T>,
        wanted: Option<&[usize]>,
    ) -> (Array2<T>, Saved<T>) {
        let Projected { q, k, v, z } = self.project(x.view(), places.rotary, places.angles);
        let (attended, log_sums) =
            attention::forward(q.view(), k.view(), v.view(), places.spans, places.heads);
        let precision = places.heads.precision;
        let [q, k, v] = [q, k, v].map(|x| Stored::keep(x, precision));
        let kept = Stored::copy(x.view(), precision);
        let attended = select(attended, wanted);
        let (y, finished) = self.finish_keeping(select(x, wanted), attended.view(), Some(precision));
        let finished = finished.expect("it was to be kept");
        T::done(attended);
        let wanted = wanted.map(<[usize]>::to_vec);
        (y, Saved { x: kept, q, k, v, z, log_sums, finished, wanted })
    }

    /// Bytes that [`Self::forward_saving`] keeps of a token.
    pub(super) fn kept_bytes(&self, heads: Heads) -> u64 {
        let z = [&self.q, &self.k, &self.v, &self.o, &self.gate, &self.up, &self.down]
            .into_iter()
            .filter_map(|linear| linear.term.as_ref())
            .map(|term| term.rows.len());
        let (d, ff) = (self.down.weight().rows(), self.down.weight().cols());
        let (q, kv) = (heads.query * heads.dim, heads.key_value * heads.dim);
        let (stored, whole) = (2 * d + q + 2 * kv + 2 * ff, heads.query + z.sum::<usize>());
        stored as u64 * Stored::<T>::bytes_a_number(heads.precision) + (whole * size_of::<T>()) as u64
    }

    /// What [`Self::forward_saving`] kept, or would have.
    pub(super) fn whole(&self, kept: Kept<T>, places: &Places<'_, T>, wanted: Option<&[usize]>) -> Saved<T> {
        match kept {
            Kept::Whole(saved) => *saved,
            Kept::Input(x) => self.forward_saving(x, places, wanted).1,
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
        let Saved { x, q, k, v, z: [zq, zk, zv], log_sums, finished, wanted } = saved;
        let (dmid, zo) = self.feed_forward_backward(dy, finished, gradients);
        let attention_trains = [&self.q, &self.k, &self.v].iter().any(|l| l.term.is_some());
        if !want_dx && !attention_trains {
            self.o.backward(dmid.into(), zo.as_ref(), gradients, None);
            return None;
        }
        let mut dattended = None;
        self.o.backward(dmid.view().into(), zo.as_ref(), gradients, Some(&mut dattended));
        let tokens = log_sums.ncols();
        let dattended = spread(dattended.expect(WANTED), wanted.as_deref(), tokens);
        let pass = attention::Forward { q: &q, k: &k, v: &v, log_sums: log_sums.view() };
        let (mut dq, mut dk, dv) = attention::backward(&pass, dattended.view(), places.spans, places.heads);
        T::done(dattended);
        places.rotary.backward(&mut dq, places.angles);
        places.rotary.backward(&mut dk, places.angles);
        let mut dnormed = None;
        self.q.backward(dq.into(), zq.as_ref(), gradients, want_dx.then_some(&mut dnormed));
        self.k.backward(dk.into(), zk.as_ref(), gradients, want_dx.then_some(&mut dnormed));
        self.v.backward(dv.into(), zv.as_ref(), gradients, want_dx.then_some(&mut dnormed));
        dnormed.map(|dnormed| {
            let mut dx = spread(dmid, wanted.as_deref(), tokens);
            self.attn_norm.backward(&x, dnormed.view(), &mut dx);
            T::done(dnormed);
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
        self.down.backward(dy.view().into(), zdown.as_ref(), gradients, Some(&mut da));
        let (dgate, dup) = feed_forward::backward(&gate, &up, da.expect(WANTED));
        let mut dnormed = None;
        self.gate.backward(dgate.into(), zgate.as_ref(), gradients, Some(&mut dnormed));
        self.up.backward(dup.into(), zup.as_ref(), gradients, Some(&mut dnormed));
        let mut dmid = dy;
        let dnormed = dnormed.expect(WANTED);
        self.ffn_norm.backward(&mid, dnormed.view(), &mut dmid);
        T::done(dnormed);
        (dmid, zo)
    }
}

/// `sum += x`, on all threads.
fn add<T: Real>(sum: &mut Array2<T>, x: ArrayView2<T>) {
    let rows = sum.axis_chunks_iter_mut(Axis(0), TILE).into_par_iter().zip(x.axis_chunks_iter(Axis(0), TILE));
    rows.for_each(|(mut sum, x)| {
        let x = x.to_slice().expect(CONTIGUOUS);
        elementwise::add(sum.as_slice_mut().expect(CONTIGUOUS), x);
    });
}

/// `sum += x W^T`, with the term when there is one; its z.
fn add_product<T: Real>(sum: &mut Array2<T>, linear: &Linear<'_, T>, x: &T::Rows<'_>) -> Option<Array2<T>> {
    if linear.term.is_none() {
        linear.forward_onto(sum, x);
        return None;
    }
    let (y, z) = linear.forward(x);
    add(sum, y.view());
    T::done(y);
    z
}

/// These rows, or all.
fn select<T: Real>(x: Array2<T>, rows: Option<&[usize]>) -> Array2<T> {
    match rows {
        Some(rows) if rows.len() < x.nrows() => x.select(Axis(0), rows),
        _ => x,
    }
}

/// The inverse of [`select`]: `[tokens, n]` with zeros in the other rows.
fn spread<T: Real>(x: Array2<T>, rows: Option<&[usize]>, tokens: usize) -> Array2<T> {
    let Some(rows) = rows.filter(|rows| rows.len() < tokens) else { return x };
    let mut all = Array2::zeros((tokens, x.ncols()));
    rows.iter().zip(x.rows()).for_each(|(&row, x)| all.row_mut(row).assign(&x));
    all
}
