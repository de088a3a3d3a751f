//! Causal grouped-query attention over ragged sequences, forward and backward.
//!
//! Sequences lie one behind another in the rows, without padding; each attends within itself. Queries go in blocks, so
//! that scores never take more than `BLOCK` rows, and the backward pass computes them again from the logarithm of the
//! softmax's sum (as FlashAttention does, arXiv 2205.14135).

use std::ops::Range;

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, Zip, s};
use rayon::prelude::*;

use crate::kernels::{Real, elementwise, matmul_single};

/// Query rows whose scores are held at a time.
const BLOCK: usize = 64;

/// How the columns of q, k and v divide into heads.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    /// Query heads.
    pub query: usize,
    /// Key and value heads; divides `query`.
    pub key_value: usize,
    /// Width of a head.
    pub dim: usize,
}

impl Heads {
    fn group(&self) -> usize {
        self.query / self.key_value
    }

    fn scale<T: Real>(&self) -> T {
        T::from_f64(1.0 / (self.dim as f64).sqrt())
    }
}

/// One sequence: its rows in q, and its rows in k and v, of which the last query sees all.
#[derive(Clone, Debug)]
pub struct Span {
    /// Rows of q; spans follow each other without a gap.
    pub queries: Range<usize>,
    /// Rows of k and v: at least as many.
    pub keys: Range<usize>,
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
    let mut out = Array2::zeros(q.dim());
    let mut log_sums = Array2::zeros((heads.query, q.nrows()));
    let outs = tile(&mut out, spans, heads.dim, heads.query);
    let sums = split(log_sums.view_mut(), Axis(1), spans.iter().map(|s| s.queries.len()))
        .into_iter()
        .flat_map(|rows| split(rows, Axis(0), std::iter::repeat_n(1, heads.query)));
    let places = spans.iter().flat_map(|span| (0..heads.query).map(move |head| (span, head)));
    let tasks: Vec<_> = places.zip(outs).zip(sums).collect();
    tasks.into_par_iter().for_each(|(((span, head), out), sums)| {
        let kv = head / heads.group();
        let q = q.slice(s![span.queries.clone(), head * heads.dim..(head + 1) * heads.dim]);
        let columns = kv * heads.dim..(kv + 1) * heads.dim;
        let k = k.slice(s![span.keys.clone(), columns.clone()]);
        let v = v.slice(s![span.keys.clone(), columns]);
        forward_head(q, k, v, heads.scale(), out, sums);
    });
    (out, log_sums)
}

fn forward_head<T: Real>(
    q: ArrayView2<T>,
    k: ArrayView2<T>,
    v: ArrayView2<T>,
    scale: T,
    mut out: ArrayViewMut2<T>,
    mut log_sums: ArrayViewMut2<T>,
) {
    let before = k.nrows() - q.nrows();
    for start in (0..q.nrows()).step_by(BLOCK) {
        let end = (start + BLOCK).min(q.nrows());
        let seen = before + end;
        let mut scores = Array2::zeros((end - start, seen));
        matmul_single(scores.view_mut(), false, q.slice(s![start..end, ..]), k.slice(s![..seen, ..]).t());
        for (i, mut row) in scores.rows_mut().into_iter().enumerate() {
            let visible = before + start + i + 1;
            let (row, hidden) = row.as_slice_mut().expect("a fresh array").split_at_mut(visible);
            hidden.fill(T::zero());
            let max = elementwise::max(T::neg_infinity(), row) * scale;
            let sum = elementwise::exp_shifted(row, scale, max);
            let inverse = T::one() / sum;
            row.iter_mut().for_each(|x| *x *= inverse);
            log_sums[[0, start + i]] = max + sum.ln();
        }
        matmul_single(out.slice_mut(s![start..end, ..]), false, scores.view(), v.slice(s![..seen, ..]));
    }
}

/// What the forward pass saw and gave.
pub struct Forward<'a, T> {
    /// `[tokens, query * dim]`.
    pub q: ArrayView2<'a, T>,
    /// `[tokens, key_value * dim]`.
    pub k: ArrayView2<'a, T>,
    /// `[tokens, key_value * dim]`.
    pub v: ArrayView2<'a, T>,
    /// `[tokens, query * dim]`.
    pub out: ArrayView2<'a, T>,
    /// `[query, tokens]`.
    pub log_sums: ArrayView2<'a, T>,
}

/// From dout = dL/dout: dL/dq, dL/dk and dL/dv, shaped as q, k and v. Every span's keys are its queries' rows. One task a
/// sequence and key head: its query heads add to dk and dv in a fixed order.
pub fn backward<T: Real>(
    pass: &Forward<'_, T>,
    dout: ArrayView2<T>,
    spans: &[Span],
    heads: Heads,
) -> (Array2<T>, Array2<T>, Array2<T>) {
    let (mut dq, mut dk, mut dv) =
        (Array2::zeros(pass.q.dim()), Array2::zeros(pass.k.dim()), Array2::zeros(pass.v.dim()));
    let width = heads.group() * heads.dim;
    let places = spans.iter().flat_map(|span| (0..heads.key_value).map(move |kv| (span, kv)));
    let tasks: Vec<_> = places
        .zip(tile(&mut dq, spans, width, heads.key_value))
        .zip(tile(&mut dk, spans, heads.dim, heads.key_value))
        .zip(tile(&mut dv, spans, heads.dim, heads.key_value))
        .collect();
    tasks.into_par_iter().for_each(|((((span, kv), mut dq), mut dk), mut dv)| {
        let rows = span.queries.clone();
        let k = pass.k.slice(s![rows.clone(), kv * heads.dim..(kv + 1) * heads.dim]);
        let v = pass.v.slice(s![rows.clone(), kv * heads.dim..(kv + 1) * heads.dim]);
        for member in 0..heads.group() {
            let head = kv * heads.group() + member;
            let columns = head * heads.dim..(head + 1) * heads.dim;
            let one = OneHead {
                q: pass.q.slice(s![rows.clone(), columns.clone()]),
                k,
                v,
                out: pass.out.slice(s![rows.clone(), columns.clone()]),
                dout: dout.slice(s![rows.clone(), columns]),
                log_sums: pass.log_sums.slice(s![head..head + 1, rows.clone()]),
                scale: heads.scale(),
            };
            let dq = dq.slice_mut(s![.., member * heads.dim..(member + 1) * heads.dim]);
            one.backward(dq, dk.view_mut(), dv.view_mut());
        }
    });
    (dq, dk, dv)
}

struct OneHead<'a, T> {
    q: ArrayView2<'a, T>,
    k: ArrayView2<'a, T>,
    v: ArrayView2<'a, T>,
    out: ArrayView2<'a, T>,
    dout: ArrayView2<'a, T>,
    log_sums: ArrayView2<'a, T>,
    scale: T,
}

impl<T: Real> OneHead<'_, T> {
    /// With P the softmax: dV += P^T dO, dS = P (dO V^T - rowsum(dO O)), dQ = s dS K, dK += s dS^T Q.
    fn backward(&self, mut dq: ArrayViewMut2<T>, mut dk: ArrayViewMut2<T>, mut dv: ArrayViewMut2<T>) {
        for start in (0..self.q.nrows()).step_by(BLOCK) {
            let end = (start + BLOCK).min(self.q.nrows());
            let q = self.q.slice(s![start..end, ..]);
            let dout = self.dout.slice(s![start..end, ..]);
            let (k, v) = (self.k.slice(s![..end, ..]), self.v.slice(s![..end, ..]));
            let mut p = Array2::zeros((end - start, end));
            matmul_single(p.view_mut(), false, q, k.t());
            for (i, mut row) in p.rows_mut().into_iter().enumerate() {
                let log_sum = self.log_sums[[0, start + i]];
                let (row, hidden) = row.as_slice_mut().expect("a fresh array").split_at_mut(start + i + 1);
                hidden.fill(T::zero());
                elementwise::exp_shifted(row, self.scale, log_sum);
            }
            matmul_single(dv.slice_mut(s![..end, ..]), true, p.t(), dout);
            let mut ds = Array2::zeros(p.dim());
            matmul_single(ds.view_mut(), false, dout, v.t());
            let out = self.out.slice(s![start..end, ..]);
            for (((mut ds, p), out), dout) in
                ds.rows_mut().into_iter().zip(p.rows()).zip(out.rows()).zip(dout.rows())
            {
                let dot: T = out.iter().zip(dout).map(|(&o, &d)| o * d).sum();
                Zip::from(&mut ds).and(p).for_each(|ds, &p| *ds = p * (*ds - dot) * self.scale);
            }
            matmul_single(dq.slice_mut(s![start..end, ..]), false, ds.view(), k);
            matmul_single(dk.slice_mut(s![..end, ..]), true, ds.t(), q);
        }
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
