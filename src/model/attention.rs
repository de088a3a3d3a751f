//! Causal grouped-query attention over ragged sequences, in windows where there are such, forward and backward.
//!
//! Sequences lie one behind another in the rows, without padding; each attends within itself, and to a context that it may
//! share with others. Queries go in blocks, so that scores never take more than `BLOCK` rows, and the backward pass
//! computes them again from the logarithm of the softmax's sum (as FlashAttention does, arXiv 2205.14135).

use std::ops::Range;

use ndarray::{Array2, ArrayView1, ArrayView2, ArrayViewMut2, Axis, CowArray, Ix2, concatenate, s};
use rayon::prelude::*;

use crate::kernels::{Precision, Real, Stored, elementwise};

/// Query rows whose scores are held at a time.
const BLOCK: usize = 64;

const CONTIGUOUS: &str = "rows of activations are contiguous";

/// How the columns of q, k and v divide into heads, and how they are multiplied.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    /// Query heads.
    pub query: usize,
    /// Key and value heads; divides `query`.
    pub key_value: usize,
    /// Width of a head.
    pub dim: usize,
    /// What scores are multiplied by.
    pub scale: f64,
    /// Scores s become `cap tanh(s / cap)`.
    pub cap: Option<f64>,
    /// How many keys, its own and those before, a query sees; all when `None`.
    pub window: Option<usize>,
    /// What products are computed in.
    pub precision: Precision,
}

impl Heads {
    fn group(&self) -> usize {
        self.query / self.key_value
    }

    /// Turn products of q and k into scores, but for the factor that is returned.
    fn score<T: Real>(&self, products: &mut [T]) -> T {
        let scale = T::from_f64(self.scale);
        let Some(cap) = self.cap else { return scale };
        elementwise::soft_cap(products, scale, T::from_f64(cap));
        T::one()
    }

    /// The keys that the query behind `before` others sees.
    fn seen(&self, before: usize) -> Range<usize> {
        let first = self.window.map_or(0, |window| (before + 1).saturating_sub(window));
        first..before + 1
    }

    /// The columns of a head.
    fn columns(&self, head: usize) -> Range<usize> {
        head * self.dim..(head + 1) * self.dim
    }

    /// Every span with each of so many heads, by their indices.
    fn of_spans(spans: &[Span], heads: usize) -> Vec<(usize, usize)> {
        (0..spans.len()).flat_map(|span| (0..heads).map(move |head| (span, head))).collect()
    }
}

/// One sequence.
#[derive(Clone, Debug)]
pub struct Span {
    /// Its rows in q; spans follow each other without a gap.
    pub queries: Range<usize>,
    /// Rows of k and v before its own, which all its queries see.
    pub context: Range<usize>,
    /// Its own rows in k and v, one a query; each query sees its own and those before.
    pub own: Range<usize>,
}

impl Span {
    /// How many keys its last query sees.
    fn keys(&self) -> usize {
        self.context.len() + self.own.len()
    }

    /// The rows of its keys or values.
    fn seen<'x, T: Real>(&self, x: ArrayView2<'x, T>) -> CowArray<'x, T, Ix2> {
        if self.context.is_empty() {
            return x.slice_move(s![self.own.clone(), ..]).into();
        }
        // As those of one sequence that is read token by token.
        if self.context.end == self.own.start {
            return x.slice_move(s![self.context.start..self.own.end, ..]).into();
        }
        let parts = [&self.context, &self.own].map(|rows| x.slice(s![rows.clone(), ..]));
        concatenate(Axis(0), &parts).expect("the same width").into()
    }
}

/// Attend. q `[tokens, query * dim]`, k and v `[keys, key_value * dim]` to the output `[tokens, query * dim]` and the
/// logarithm of each softmax's sum `[query, tokens]`, which the backward pass needs.
pub fn forward<T: Real>(
    q: ArrayView2<T>,
    k: ArrayView2<T>,
    v: ArrayView2<T>,
    spans: &[Span],
    heads: Heads,
) -> (Array2<T>, Array2<T>) {
    let operands: Vec<(T::Panels, T::Panels)> = Heads::of_spans(spans, heads.key_value)
        .into_par_iter()
        .map(|(span, kv)| {
            let [k, v] = [k, v].map(|x| spans[span].seen(x.slice_move(s![.., heads.columns(kv)])));
            (T::panels_across(k.view(), heads.precision), T::panels(v.view(), heads.precision))
        })
        .collect();
    let mut out = T::space(q.dim());
    let mut log_sums = Array2::zeros((heads.query, q.nrows()));
    let outs = tile(&mut out, spans, heads.dim, heads.query);
    let sums = split(log_sums.view_mut(), Axis(1), spans.iter().map(|s| s.queries.len()))
        .into_iter()
        .flat_map(|rows| split(rows, Axis(0), std::iter::repeat_n(1, heads.query)));
    let tasks: Vec<_> = Heads::of_spans(spans, heads.query).into_iter().zip(outs).zip(sums).collect();
    tasks.into_par_iter().for_each(|(((span, head), out), sums)| {
        let (keys, values) = &operands[span * heads.key_value + head / heads.group()];
        let span = &spans[span];
        let q = q.slice(s![span.queries.clone(), heads.columns(head)]);
        forward_head(q, keys, values, span, heads, out, sums);
    });
    (out, log_sums)
}

fn forward_head<T: Real>(
    q: ArrayView2<T>,
    keys: &T::Panels,
    values: &T::Panels,
    span: &Span,
    heads: Heads,
    mut out: ArrayViewMut2<T>,
    mut log_sums: ArrayViewMut2<T>,
) {
    let mut space = Array2::zeros((BLOCK.min(q.nrows()), span.keys()));
    for start in (0..q.nrows()).step_by(BLOCK) {
        let end = (start + BLOCK).min(q.nrows());
        let before = span.context.len() + start;
        let mut scores = space.slice_mut(s![..end - start, ..before + end - start]);
        let rows = T::rows(q.slice_move(s![start..end, ..]), heads.precision);
        T::multiply_here(scores.view_mut(), false, &rows, keys);
        for (i, mut row) in scores.rows_mut().into_iter().enumerate() {
            let row = only(row.as_slice_mut().expect(CONTIGUOUS), heads.seen(before + i));
            let scale = heads.score(row);
            let max = elementwise::max(T::neg_infinity(), row) * scale;
            let sum = elementwise::exp_shifted(row, scale, max);
            elementwise::scale(row, T::one() / sum);
            log_sums[[0, start + i]] = max + sum.ln();
        }
        let rows = T::rows(scores.view(), heads.precision);
        T::multiply_here(out.slice_mut(s![start..end, ..]), false, &rows, values);
    }
}

/// These of a row's numbers; the others become zeros.
fn only<T: Real>(row: &mut [T], seen: Range<usize>) -> &mut [T] {
    row[..seen.start].fill(T::zero());
    row[seen.end..].fill(T::zero());
    &mut row[seen]
}

/// What the forward pass saw and gave.
pub struct Forward<'a, T: Real> {
    /// `[tokens, query * dim]`.
    pub q: &'a Stored<T>,
    /// `[tokens, key_value * dim]`.
    pub k: &'a Stored<T>,
    /// `[tokens, key_value * dim]`.
    pub v: &'a Stored<T>,
    /// `[query, tokens]`.
    pub log_sums: ArrayView2<'a, T>,
}

/// From dout = dL/dout: dL/dq, dL/dk and dL/dv, shaped as q, k and v. Every span's own keys are its queries' rows. What
/// the query heads of a key head, and the spans of a context, add to dk and dv is added in a fixed order.
pub fn backward<T: Real>(
    pass: &Forward<'_, T>,
    dout: ArrayView2<T>,
    spans: &[Span],
    heads: Heads,
) -> (Array2<T>, Array2<T>, Array2<T>) {
    let (width, kv_width) = (heads.query * heads.dim, heads.key_value * heads.dim);
    let operands: Vec<Operands<T>> = Heads::of_spans(spans, heads.key_value)
        .into_par_iter()
        .map(|(span, kv)| {
            let rows = [spans[span].context.clone(), spans[span].own.clone()];
            let [k, v] = [pass.k, pass.v].map(|x| part(x, kv_width, &rows, heads.columns(kv)));
            Operands {
                keys: T::panels_across(k.view(), heads.precision),
                keys_upright: T::panels(k.view(), heads.precision),
                values: T::panels_across(v.view(), heads.precision),
            }
        })
        .collect();
    let mut dq = T::space((dout.nrows(), width));
    let tasks: Vec<_> = Heads::of_spans(spans, heads.query)
        .into_iter()
        .zip(tile(&mut dq, spans, heads.dim, heads.query))
        .collect();
    let parts: Vec<[Array2<T>; 2]> = tasks
        .into_par_iter()
        .map(|((span, head), dq)| {
            let operands = &operands[span * heads.key_value + head / heads.group()];
            let (span, columns) = (&spans[span], heads.columns(head));
            let rows = std::slice::from_ref(&span.queries);
            let one = OneHead {
                q: part(pass.q, width, rows, columns.clone()),
                operands,
                dout: dout.slice(s![span.queries.clone(), columns]),
                log_sums: pass.log_sums.slice(s![head, span.queries.clone()]),
                context: span.context.len(),
                heads,
            };
            one.backward(dq)
        })
        .collect();
    let [dk, dv] = [0, 1].map(|which| {
        let mut sum = T::space((dout.nrows(), kv_width));
        let columns = split(sum.view_mut(), Axis(1), std::iter::repeat_n(heads.dim, heads.key_value));
        columns.into_par_iter().enumerate().for_each(|(kv, mut sum)| {
            sum.fill(T::zero());
            for (i, span) in spans.iter().enumerate() {
                let first = i * heads.query + kv * heads.group();
                for part in &parts[first..first + heads.group()] {
                    let (context, own) = part[which].view().split_at(Axis(0), span.context.len());
                    add(sum.slice_mut(s![span.context.clone(), ..]), context);
                    add(sum.slice_mut(s![span.own.clone(), ..]), own);
                }
            }
        });
        sum
    });
    (dq, dk, dv)
}

fn add<T: Real>(mut sum: ArrayViewMut2<T>, x: ArrayView2<T>) {
    for (mut sum, x) in sum.rows_mut().into_iter().zip(x.rows()) {
        elementwise::add(sum.as_slice_mut().expect(CONTIGUOUS), x.to_slice().expect(CONTIGUOUS));
    }
}

/// These columns of these rows of an array that is `width` wide.
fn part<T: Real>(x: &Stored<T>, width: usize, rows: &[Range<usize>], columns: Range<usize>) -> Array2<T> {
    let mut numbers = Vec::with_capacity(rows.iter().map(Range::len).sum::<usize>() * columns.len());
    let mut space = Vec::new();
    for row in rows.iter().cloned().flatten() {
        let place = row * width + columns.start..row * width + columns.end;
        numbers.extend_from_slice(x.get(place, &mut space));
    }
    Array2::from_shape_vec((numbers.len() / columns.len(), columns.len()), numbers).expect("whole rows")
}

/// K^T, K and V^T of a span and a key head.
struct Operands<T: Real> {
    keys: T::Panels,
    keys_upright: T::Panels,
    values: T::Panels,
}

struct OneHead<'a, T: Real> {
    q: Array2<T>,
    operands: &'a Operands<T>,
    dout: ArrayView2<'a, T>,
    log_sums: ArrayView1<'a, T>,
    /// Keys before the first query's own.
    context: usize,
    heads: Heads,
}

impl<T: Real> OneHead<'_, T> {
    /// With P the softmax: dV = P^T dO, dS = P (dO V^T - rowsum(P dO V^T)), dQ = s dS K, dK = s dS^T Q. Writes dq and
    /// gives dk and dv, `[keys, dim]` each.
    fn backward(&self, mut dq: ArrayViewMut2<T>) -> [Array2<T>; 2] {
        let (tokens, dim) = self.q.dim();
        let (precision, cap) = (self.heads.precision, self.heads.cap.map(T::from_f64));
        let keys = self.context + tokens;
        let [mut dk, mut dv] = [0, 1].map(|_| Array2::zeros((keys, dim)));
        let [mut p_space, mut ds_space] = [0, 1].map(|_| Array2::zeros((BLOCK.min(tokens), keys)));
        let mut capped = Vec::new();
        for start in (0..tokens).step_by(BLOCK) {
            let end = (start + BLOCK).min(tokens);
            let before = self.context + start;
            let seen = before + end - start;
            let q = self.q.slice(s![start..end, ..]);
            let dout = self.dout.slice(s![start..end, ..]);
            let mut p = p_space.slice_mut(s![..end - start, ..seen]);
            T::multiply_here(p.view_mut(), false, &T::rows(q, precision), &self.operands.keys);
            let mut ds = ds_space.slice_mut(s![..end - start, ..seen]);
            T::multiply_here(ds.view_mut(), false, &T::rows(dout, precision), &self.operands.values);
            for (i, (mut p, mut ds)) in p.rows_mut().into_iter().zip(ds.rows_mut()).enumerate() {
                let (p, ds) = (p.as_slice_mut().expect(CONTIGUOUS), ds.as_slice_mut().expect(CONTIGUOUS));
                let visible = self.heads.seen(before + i);
                let (p, ds) = (only(p, visible.clone()), only(ds, visible));
                let factor = self.heads.score(p);
                capped.clear();
                capped.extend_from_slice(if cap.is_some() { p } else { &[] });
                elementwise::exp_shifted(p, factor, self.log_sums[start + i]);
                let scale = T::from_f64(self.heads.scale);
                elementwise::softmax_backward(p, elementwise::dot(p, ds), scale, ds);
                if let Some(cap) = cap {
                    elementwise::soft_cap_backward(&capped, cap, ds);
                }
            }
            let (p, ds) = (p.view(), ds.view());
            let below = |x: &mut Array2<T>, rows: ArrayView2<'_, T>, of: ArrayView2<'_, T>| {
                let x = x.slice_mut(s![..seen, ..]);
                T::multiply_here(x, true, &T::rows_across(rows, precision), &T::panels(of, precision));
            };
            below(&mut dv, p, dout);
            below(&mut dk, ds, q);
            let dq = dq.slice_mut(s![start..end, ..]);
            T::multiply_here(dq, false, &T::rows(ds, precision), &self.operands.keys_upright);
        }
        [dk, dv]
    }
}

/// A view cut along an axis into pieces of these lengths, which fill it.
fn split<'a, T>(
    view: ArrayViewMut2<'a, T>,
    axis: Axis,
    lengths: impl Iterator<Item = usize>,
) -> Vec<ArrayViewMut2<'a, T>> {
    let mut rest = view;
    lengths
        .map(|length| {
            let whole =
                std::mem::replace(&mut rest, ArrayViewMut2::from_shape((0, 0), &mut []).expect("empty"));
            let (piece, after) = whole.split_at(axis, length);
            rest = after;
            piece
        })
        .collect()
}

/// An array of tokens cut into one tile a span and head, each `width` columns wide.
fn tile<'a, T>(
    array: &'a mut Array2<T>,
    spans: &[Span],
    width: usize,
    heads: usize,
) -> impl Iterator<Item = ArrayViewMut2<'a, T>> {
    split(array.view_mut(), Axis(0), spans.iter().map(|s| s.queries.len()))
        .into_iter()
        .flat_map(move |rows| split(rows, Axis(1), std::iter::repeat_n(width, heads)))
}
