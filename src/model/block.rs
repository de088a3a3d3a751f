//! One transformer block: attention and feed-forward part, each with its norms, added to the residual stream.

use ndarray::{Array2, ArrayView2, Axis};

use super::attention::{self, Heads, Span};
use super::dense::{self, Dense};
use super::experts::{self, Experts};
use super::linear::Linear;
use super::norm::{self, Norm};
use super::residual::{Residual, add};
use super::rotary::{Angles, Rotary};
use crate::kernels::{Precision, Real, Stored};

const WANTED: &str = "a gradient that was asked for";

/// The frozen weights of a block, with the trained terms beside them.
#[derive(Clone, Debug)]
pub struct Block<'a, T: Real> {
    pub(super) attn_norm: Option<Norm<T>>,
    pub(super) q: Linear<'a, T>,
    pub(super) k: Linear<'a, T>,
    pub(super) v: Linear<'a, T>,
    /// Of q and of k, before they are rotated.
    pub(super) head_norms: Option<[Norm<T>; 2]>,
    pub(super) o: Linear<'a, T>,
    pub(super) attn_residual: Residual<T>,
    pub(super) ffn_norm: Option<Norm<T>>,
    pub(super) feed_forward: FeedForward<'a, T>,
    pub(super) ffn_residual: Residual<T>,
    /// How many tokens a token sees.
    pub(super) window: Option<usize>,
    /// Which of the model's rotary embeddings turns q and k.
    pub(super) rotary: Option<usize>,
}

/// The second part of a block.
#[derive(Clone, Debug)]
pub(super) enum FeedForward<'a, T: Real> {
    Dense(Box<Dense<'a, T>>),
    Experts(Box<Experts<'a, T>>),
}

/// What attention reads: `[tokens, heads * dim]` each, q and k already normed and rotated.
#[derive(Clone, Debug)]
pub(super) struct Projected<T> {
    pub q: Array2<T>,
    pub k: Array2<T>,
    pub v: Array2<T>,
    /// q and k before their norms, where they have such.
    raw: Option<[Array2<T>; 2]>,
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
    raw: Option<[Stored<T>; 2]>,
    z: Z<T, 3>,
    log_sums: Array2<T>,
    finished: Finished<T>,
    /// The rows that the block gave, when not all.
    wanted: Option<Vec<usize>>,
}

#[derive(Debug)]
struct Finished<T: Real> {
    /// What the attention's output matrix gave, where a norm follows.
    attn_out: Option<Stored<T>>,
    mid: Stored<T>,
    feed_forward: KeptFeedForward<T>,
    /// What the feed-forward part gave, where a norm follows.
    ffn_out: Option<Stored<T>>,
    zo: Option<Array2<T>>,
    zdown: Option<Array2<T>>,
}

#[derive(Debug)]
enum KeptFeedForward<T: Real> {
    Dense(dense::Kept<T>),
    Experts(experts::Kept<T>),
}

#[cfg(test)]
impl<T: Real> Saved<T> {
    /// How many bytes of activations it holds.
    pub(super) fn bytes(&self) -> u64 {
        let f = &self.finished;
        let stored = [&self.x, &self.q, &self.k, &self.v, &f.mid].into_iter();
        let stored = stored.chain(self.raw.iter().flatten()).chain(&f.attn_out).chain(&f.ffn_out);
        let z = self.z.iter().flatten().chain(&f.zo).chain(&f.zdown).chain([&self.log_sums]);
        let inner = match &f.feed_forward {
            KeptFeedForward::Dense(kept) => kept.bytes(),
            KeptFeedForward::Experts(kept) => kept.bytes(),
        };
        stored.map(Stored::bytes).sum::<u64>()
            + inner
            + (z.map(Array2::len).sum::<usize>() * size_of::<T>()) as u64
    }
}

/// Where the tokens stand: shared by all blocks of a pass.
pub(super) struct Places<'a, T> {
    pub spans: &'a [Span],
    /// One for each of `rotaries`.
    pub angles: &'a [Angles<T>],
    pub rotaries: &'a [Rotary],
    pub heads: Heads,
}

impl<'a, T: Real> Block<'a, T> {
    /// The matrix that has this role: `q`, `k`, `v`, `o`, `gate`, `up` or `down`.
    pub(super) fn linear_mut(&mut self, role: &str) -> Option<&mut Linear<'a, T>> {
        match role {
            "q" => Some(&mut self.q),
            "k" => Some(&mut self.k),
            "v" => Some(&mut self.v),
            "o" => Some(&mut self.o),
            _ => match (&mut self.feed_forward, role) {
                (FeedForward::Dense(dense), "gate") => dense.gate.as_mut(),
                (FeedForward::Dense(dense), "up") => Some(&mut dense.up),
                (FeedForward::Dense(dense), "down") => Some(&mut dense.down),
                _ => None,
            },
        }
    }

    /// The matrices that terms may stand beside, in the order in which they are read.
    pub(super) fn adaptable_mut(&mut self) -> Vec<&mut Linear<'a, T>> {
        let mut linears = vec![&mut self.q, &mut self.k, &mut self.v, &mut self.o];
        if let FeedForward::Dense(dense) = &mut self.feed_forward {
            linears.extend(&mut dense.gate);
            linears.extend([&mut dense.up, &mut dense.down]);
        }
        linears
    }

    fn adaptable(&self) -> Vec<&Linear<'a, T>> {
        let mut linears = vec![&self.q, &self.k, &self.v, &self.o];
        if let FeedForward::Dense(dense) = &self.feed_forward {
            linears.extend(&dense.gate);
            linears.extend([&dense.up, &dense.down]);
        }
        linears
    }

    /// The slot and the shape of U of each term.
    pub(super) fn terms(&self) -> impl Iterator<Item = (usize, (usize, usize))> {
        self.adaptable()
            .into_iter()
            .filter_map(|linear| linear.term.as_ref())
            .map(|term| (term.slot, term.u.dim()))
    }

    /// Compute all products in this precision.
    pub(super) fn set_precision(&mut self, precision: Precision) {
        self.adaptable_mut().into_iter().for_each(|linear| linear.set_precision(precision));
        if let FeedForward::Experts(experts) = &mut self.feed_forward {
            experts.linears_mut().for_each(|linear| linear.set_precision(precision));
        }
    }

    /// x `[tokens, d_model]` to q, k and v.
    pub(super) fn project(
        &self,
        x: ArrayView2<T>,
        rotaries: &[Rotary],
        angles: &[Angles<T>],
    ) -> Projected<T> {
        let input = norm::rows(self.attn_norm.as_ref(), x, self.q.precision());
        let (mut q, zq) = self.q.forward(&input);
        let (mut k, zk) = self.k.forward(&input);
        let (v, zv) = self.v.forward(&input);
        let raw = self.head_norms.as_ref().map(|[q_norm, k_norm]| {
            let normed = [q_norm.forward(q.view()), k_norm.forward(k.view())];
            let [new_q, new_k] = normed;
            [std::mem::replace(&mut q, new_q), std::mem::replace(&mut k, new_k)]
        });
        if let Some(i) = self.rotary {
            rotaries[i].forward(&mut q, &angles[i]);
            rotaries[i].forward(&mut k, &angles[i]);
        }
        Projected { q, k, v, raw, z: [zq, zk, zv] }
    }

    /// How this block attends.
    pub(super) fn heads(&self, of_model: Heads) -> Heads {
        Heads { window: self.window, ..of_model }
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
        let (zo, attn_out) = self.attn_residual.add_product(&mut x, &self.o, &self.o.input(attended));
        let mid = keep.map(|precision| Stored::copy(x.view(), precision));
        let (kept, zdown, ffn_out) = match &self.feed_forward {
            FeedForward::Dense(dense) => {
                let input = norm::rows(self.ffn_norm.as_ref(), x.view(), dense.up.precision());
                let (a, kept) = dense.forward(&input, keep);
                drop(input);
                let (zdown, out) = self.ffn_residual.add_product(&mut x, &dense.down, &a);
                (kept.map(KeptFeedForward::Dense), zdown, out)
            }
            FeedForward::Experts(experts) => {
                let normed = self.ffn_norm.as_ref().map(|norm| norm.forward(x.view()));
                let (y, kept) =
                    experts.forward(normed.as_ref().map_or(x.view(), |normed| normed.view()), keep);
                let out = self.ffn_residual.add(&mut x, y);
                (kept.map(KeptFeedForward::Experts), None, out)
            }
        };
        let finished = keep.zip(mid).zip(kept).map(|((precision, mid), feed_forward)| {
            let [attn_out, ffn_out] =
                [attn_out, ffn_out].map(|out| out.map(|out| Stored::keep(out, precision)));
            Finished { attn_out, mid, feed_forward, ffn_out, zo, zdown }
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
        let p = self.project(x.view(), places.rotaries, places.angles);
        let heads = self.heads(places.heads);
        let (attended, _) = attention::forward(p.q.view(), p.k.view(), p.v.view(), places.spans, heads);
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
        let Projected { q, k, v, raw, z } = self.project(x.view(), places.rotaries, places.angles);
        let heads = self.heads(places.heads);
        let (attended, log_sums) = attention::forward(q.view(), k.view(), v.view(), places.spans, heads);
        let precision = heads.precision;
        let [q, k, v] = [q, k, v].map(|x| Stored::keep(x, precision));
        let raw = raw.map(|raw| raw.map(|x| Stored::keep(x, precision)));
        let kept = Stored::copy(x.view(), precision);
        let attended = select(attended, wanted);
        let (y, finished) = self.finish_keeping(select(x, wanted), attended.view(), Some(precision));
        let finished = finished.expect("it was to be kept");
        T::done(attended);
        let wanted = wanted.map(<[usize]>::to_vec);
        (y, Saved { x: kept, q, k, v, raw, z, log_sums, finished, wanted })
    }

    /// Bytes that [`Self::forward_saving`] keeps of a token.
    pub(super) fn kept_bytes(&self, heads: Heads) -> u64 {
        let z: usize = self
            .adaptable()
            .iter()
            .filter_map(|linear| linear.term.as_ref())
            .map(|term| term.rows.len())
            .sum();
        let d = self.o.weight().rows();
        let (q, kv) = (heads.query * heads.dim, heads.key_value * heads.dim);
        let raw = if self.head_norms.is_some() { q + kv } else { 0 };
        let outs = [&self.attn_residual, &self.ffn_residual].iter().filter(|r| r.norm.is_some()).count() * d;
        let (inner, inner_whole) = match &self.feed_forward {
            FeedForward::Dense(dense) => {
                (dense.down.weight().cols() * (1 + usize::from(dense.gate.is_some())), 0)
            }
            FeedForward::Experts(experts) => experts.kept_numbers(),
        };
        let (stored, whole) = (2 * d + q + 2 * kv + raw + outs + inner, heads.query + z + inner_whole);
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
        let Saved { x, q, k, v, raw, z: [zq, zk, zv], log_sums, finished, wanted } = saved;
        let Finished { attn_out, mid, feed_forward, ffn_out, zo, zdown } = finished;
        let dffn = self.ffn_residual.backward(dy.view(), ffn_out.as_ref());
        let dnormed = match (&self.feed_forward, feed_forward) {
            (FeedForward::Dense(dense), KeptFeedForward::Dense(kept)) => {
                dense.backward(dffn, kept, zdown.as_ref(), gradients)
            }
            (FeedForward::Experts(experts), KeptFeedForward::Experts(kept)) => {
                experts.backward(dffn.view(), kept)
            }
            _ => unreachable!("what was kept is this block's"),
        };
        let mut dmid = dy;
        norm_backward(self.ffn_norm.as_ref(), &mid, dnormed, &mut dmid);
        let dout = self.attn_residual.backward(dmid.view(), attn_out.as_ref());
        let attention_trains = [&self.q, &self.k, &self.v].iter().any(|l| l.term.is_some());
        if !want_dx && !attention_trains {
            self.o.backward(dout, zo.as_ref(), gradients, None);
            return None;
        }
        let mut dattended = None;
        self.o.backward(dout, zo.as_ref(), gradients, Some(&mut dattended));
        let tokens = log_sums.ncols();
        let dattended = spread(dattended.expect(WANTED), wanted.as_deref(), tokens);
        let pass = attention::Forward { q: &q, k: &k, v: &v, log_sums: log_sums.view() };
        let heads = self.heads(places.heads);
        let (mut dq, mut dk, dv) = attention::backward(&pass, dattended.view(), places.spans, heads);
        T::done(dattended);
        if let Some(i) = self.rotary {
            places.rotaries[i].backward(&mut dq, &places.angles[i]);
            places.rotaries[i].backward(&mut dk, &places.angles[i]);
        }
        if let (Some([q_norm, k_norm]), Some([q, k])) = (&self.head_norms, &raw) {
            for (norm, x, d) in [(q_norm, q, &mut dq), (k_norm, k, &mut dk)] {
                let mut before = Array2::zeros(d.dim());
                norm.backward(x, d.view(), &mut before);
                T::done(std::mem::replace(d, before));
            }
        }
        let mut dnormed = None;
        self.q.backward(dq.into(), zq.as_ref(), gradients, want_dx.then_some(&mut dnormed));
        self.k.backward(dk.into(), zk.as_ref(), gradients, want_dx.then_some(&mut dnormed));
        self.v.backward(dv.into(), zv.as_ref(), gradients, want_dx.then_some(&mut dnormed));
        dnormed.map(|dnormed| {
            let mut dx = spread(dmid, wanted.as_deref(), tokens);
            norm_backward(self.attn_norm.as_ref(), &x, dnormed, &mut dx);
            dx
        })
    }
}

/// Adds to `dx` what comes through a norm of x from dL/dnormed, or through none.
fn norm_backward<T: Real>(norm: Option<&Norm<T>>, x: &Stored<T>, dnormed: Array2<T>, dx: &mut Array2<T>) {
    match norm {
        Some(norm) => norm.backward(x, dnormed.view(), dx),
        None => add(dx, dnormed.view()),
    }
    T::done(dnormed);
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
