//! Causal grouped-query attention (GQA, Ainslie et al. 2023, arXiv 2305.13245) over ragged sequences, with an
//! optional sliding window, an optional soft cap of the scores and optional sinks, forward and backward.
//!
//! The sequences of a batch are concatenated along the rows without padding. Each token attends to its own
//! sequence up to itself, and before that to a prefix that its sequence may share with others. Queries are
//! processed in blocks, so at most [`BLOCK`] rows of scores exist at a time for each head. The backward pass
//! recomputes the scores from the log-sum-exp of each row, as FlashAttention does (arXiv 2205.14135).

mod decode;
mod keys_and_values;
mod layer;

use std::ops::Range;

use ndarray::{Array2, ArrayView1, ArrayView2, ArrayViewMut2, Axis, CowArray, Ix2, concatenate, s};
use rayon::prelude::*;

use crate::kernels::{Precision, Real, SavedActivation, elementwise, reduce, softmax};

pub use decode::decode;
pub use keys_and_values::{KeysAndValues, KvCache, OwnKeysAndValues};
pub use layer::{Attention, AttentionActivations};

/// Query rows whose scores exist at a time.
const BLOCK: usize = 64;

const CONTIGUOUS: &str = "rows of activations are contiguous";

/// The heads of an attention layer, and how it computes.
#[derive(Clone, Copy, Debug)]
pub struct AttentionConfig {
    /// Query heads.
    pub query_heads: usize,
    /// Key and value heads; divides `query_heads`.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// The factor of the scores.
    pub scale: f64,
    /// Scores s become `cap tanh(s / cap)`.
    pub soft_cap: Option<f64>,
    /// How many keys a query attends to, its own and those before; all when `None`.
    pub window: Option<usize>,
    /// What products are computed in.
    pub precision: Precision,
}

impl AttentionConfig {
    /// Query heads that share a key and value head.
    fn group_size(&self) -> usize {
        self.query_heads / self.kv_heads
    }

    /// Turns products of q and k into scores, up to the factor that is returned.
    fn score<T: Real>(&self, products: &mut [T]) -> T {
        let scale = T::from_f64(self.scale);
        let Some(cap) = self.soft_cap else { return scale };
        elementwise::soft_cap(products, scale, T::from_f64(cap));
        T::one()
    }

    /// Turns the products of a query and its keys into their softmax, with a sink's score beside theirs. Returns the
    /// log-sum-exp.
    fn softmax<T: Real>(&self, products: &mut [T], sink: Option<T>) -> T {
        let scale = self.score(products);
        let mut max = reduce::max(T::neg_infinity(), products) * scale;
        if let Some(sink) = sink.filter(|&sink| sink > max) {
            max = sink;
        }
        let mut sum = softmax::exp_shifted(products, scale, max);
        if let Some(sink) = sink {
            sum += (sink - max).exp();
        }
        elementwise::scale(products, T::one() / sum);
        max + sum.ln()
    }

    /// The keys that the query at this position attends to.
    fn visible_keys(&self, position: usize) -> Range<usize> {
        let first = self.window.map_or(0, |window| (position + 1).saturating_sub(window));
        first..position + 1
    }

    /// The columns of a head.
    fn columns(&self, head: usize) -> Range<usize> {
        head * self.head_dim..(head + 1) * self.head_dim
    }
}

/// Where one sequence is in q, k and v.
#[derive(Clone, Debug)]
pub struct SequenceRows {
    /// Its rows in q; sequences follow each other without a gap.
    pub queries: Range<usize>,
    /// Rows of k and v that all its queries attend to: a prefix shared with other sequences, or the KV cache.
    pub prefix: Range<usize>,
    /// Its own rows in k and v, one for each query. A query attends to its own row and those before.
    pub own: Range<usize>,
}

impl SequenceRows {
    /// How many keys its last query can attend to.
    fn keys(&self) -> usize {
        self.prefix.len() + self.own.len()
    }

    /// The rows of its keys or values, prefix first.
    fn gather<'x, T: Real>(&self, x: ArrayView2<'x, T>) -> CowArray<'x, T, Ix2> {
        if self.prefix.is_empty() {
            return x.slice_move(s![self.own.clone(), ..]).into();
        }
        // The KV cache: the prefix is directly before.
        if self.prefix.end == self.own.start {
            return x.slice_move(s![self.prefix.start..self.own.end, ..]).into();
        }
        let parts = [&self.prefix, &self.own].map(|rows| x.slice(s![rows.clone(), ..]));
        concatenate(Axis(0), &parts).expect("the same width").into()
    }
}

/// Every sequence with each of this many heads, by index.
fn sequence_heads(sequences: &[SequenceRows], heads: usize) -> Vec<(usize, usize)> {
    (0..sequences.len()).flat_map(|sequence| (0..heads).map(move |head| (sequence, head))).collect()
}

/// out = softmax(scale q k^T + mask) v for each head. From q `[tokens, query_heads * head_dim]`, k and v
/// `[keys, kv_heads * head_dim]`: out `[tokens, query_heads * head_dim]` and the log-sum-exp of each row of
/// scores `[query_heads, tokens]`, which the backward pass needs.
///
/// `sinks` has one more score for each query head, which takes its share of the softmax and has no value
/// (StreamingLLM, arXiv 2309.17453; gpt-oss). It is part of the log-sum-exp, so that the backward pass needs
/// nothing else of it.
pub fn forward<T: Real>(
    q: ArrayView2<T>,
    k: ArrayView2<T>,
    v: ArrayView2<T>,
    sequences: &[SequenceRows],
    sinks: Option<&[T]>,
    config: AttentionConfig,
) -> (Array2<T>, Array2<T>) {
    let operands: Vec<(T::PackedRhs, T::PackedRhs)> = sequence_heads(sequences, config.kv_heads)
        .into_par_iter()
        .map(|(sequence, kv)| {
            let [k, v] = [k, v].map(|x| sequences[sequence].gather(x.slice_move(s![.., config.columns(kv)])));
            (T::pack_rhs_transposed(k.view(), config.precision), T::pack_rhs(v.view(), config.precision))
        })
        .collect();
    let mut out = T::pooled(q.dim());
    let mut log_sums = Array2::zeros((config.query_heads, q.nrows()));
    let outs = tile(&mut out, sequences, config.head_dim, config.query_heads);
    let sums = split(log_sums.view_mut(), Axis(1), sequences.iter().map(|rows| rows.queries.len()))
        .into_iter()
        .flat_map(|rows| split(rows, Axis(0), std::iter::repeat_n(1, config.query_heads)));
    let tasks: Vec<_> =
        sequence_heads(sequences, config.query_heads).into_iter().zip(outs).zip(sums).collect();
    tasks.into_par_iter().for_each(|(((sequence, head), out), sums)| {
        let (keys, values) = &operands[sequence * config.kv_heads + head / config.group_size()];
        let sequence = &sequences[sequence];
        let q = q.slice(s![sequence.queries.clone(), config.columns(head)]);
        let sink = sinks.map(|sinks| sinks[head]);
        forward_head(q, (keys, values), sequence, (sink, config), out, sums);
    });
    (out, log_sums)
}

fn forward_head<T: Real>(
    q: ArrayView2<T>,
    (keys, values): (&T::PackedRhs, &T::PackedRhs),
    sequence: &SequenceRows,
    (sink, config): (Option<T>, AttentionConfig),
    mut out: ArrayViewMut2<T>,
    mut log_sums: ArrayViewMut2<T>,
) {
    let mut space = Array2::zeros((BLOCK.min(q.nrows()), sequence.keys()));
    for start in (0..q.nrows()).step_by(BLOCK) {
        let end = (start + BLOCK).min(q.nrows());
        let first = sequence.prefix.len() + start;
        let mut scores = space.slice_mut(s![..end - start, ..first + end - start]);
        let rows = T::pack_lhs(q.slice_move(s![start..end, ..]), config.precision);
        T::multiply_single(scores.view_mut(), false, &rows, keys);
        for (i, mut row) in scores.rows_mut().into_iter().enumerate() {
            let row = mask(row.as_slice_mut().expect(CONTIGUOUS), config.visible_keys(first + i));
            log_sums[[0, start + i]] = config.softmax(row, sink);
        }
        let rows = T::pack_lhs(scores.view(), config.precision);
        T::multiply_single(out.slice_mut(s![start..end, ..]), false, &rows, values);
    }
}

/// The visible part of a row of scores; the rest becomes zeros.
fn mask<T: Real>(row: &mut [T], visible: Range<usize>) -> &mut [T] {
    row[..visible.start].fill(T::zero());
    row[visible.end..].fill(T::zero());
    &mut row[visible]
}

/// What the backward pass needs of the forward pass.
pub struct ForwardActivations<'a, T: Real> {
    /// `[tokens, query_heads * head_dim]`.
    pub q: &'a SavedActivation<T>,
    /// `[tokens, kv_heads * head_dim]`.
    pub k: &'a SavedActivation<T>,
    /// `[tokens, kv_heads * head_dim]`.
    pub v: &'a SavedActivation<T>,
    /// `[query_heads, tokens]`.
    pub log_sums: ArrayView2<'a, T>,
}

/// From dout = dL/dout: dL/dq, dL/dk and dL/dv, shaped as q, k and v. Each sequence's own keys are the rows
/// of its queries. The query heads of a group, and the sequences that share a prefix, add to dk and dv in a
/// fixed order.
pub fn backward<T: Real>(
    forward: &ForwardActivations<'_, T>,
    dout: ArrayView2<T>,
    sequences: &[SequenceRows],
    config: AttentionConfig,
) -> (Array2<T>, Array2<T>, Array2<T>) {
    let (width, kv_width) = (config.query_heads * config.head_dim, config.kv_heads * config.head_dim);
    let operands: Vec<Operands<T>> = sequence_heads(sequences, config.kv_heads)
        .into_par_iter()
        .map(|(sequence, kv)| {
            let rows = [sequences[sequence].prefix.clone(), sequences[sequence].own.clone()];
            let [k, v] = [forward.k, forward.v].map(|x| gather_saved(x, kv_width, &rows, config.columns(kv)));
            Operands {
                k_transposed: T::pack_rhs_transposed(k.view(), config.precision),
                k: T::pack_rhs(k.view(), config.precision),
                v_transposed: T::pack_rhs_transposed(v.view(), config.precision),
            }
        })
        .collect();
    let mut dq = T::pooled((dout.nrows(), width));
    let tasks: Vec<_> = sequence_heads(sequences, config.query_heads)
        .into_iter()
        .zip(tile(&mut dq, sequences, config.head_dim, config.query_heads))
        .collect();
    let parts: Vec<[Array2<T>; 2]> = tasks
        .into_par_iter()
        .map(|((sequence, head), dq)| {
            let operands = &operands[sequence * config.kv_heads + head / config.group_size()];
            let (sequence, columns) = (&sequences[sequence], config.columns(head));
            let rows = std::slice::from_ref(&sequence.queries);
            let one = OneHead {
                q: gather_saved(forward.q, width, rows, columns.clone()),
                operands,
                dout: dout.slice(s![sequence.queries.clone(), columns]),
                log_sums: forward.log_sums.slice(s![head, sequence.queries.clone()]),
                prefix: sequence.prefix.len(),
                config,
            };
            one.backward(dq)
        })
        .collect();
    let [dk, dv] = [0, 1].map(|which| {
        let mut sum = T::pooled((dout.nrows(), kv_width));
        let columns = split(sum.view_mut(), Axis(1), std::iter::repeat_n(config.head_dim, config.kv_heads));
        columns.into_par_iter().enumerate().for_each(|(kv, mut sum)| {
            sum.fill(T::zero());
            for (i, sequence) in sequences.iter().enumerate() {
                let first = i * config.query_heads + kv * config.group_size();
                for part in &parts[first..first + config.group_size()] {
                    let (prefix, own) = part[which].view().split_at(Axis(0), sequence.prefix.len());
                    add(sum.slice_mut(s![sequence.prefix.clone(), ..]), prefix);
                    add(sum.slice_mut(s![sequence.own.clone(), ..]), own);
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

/// These columns of these rows of a saved array that is `width` wide.
fn gather_saved<T: Real>(
    x: &SavedActivation<T>,
    width: usize,
    rows: &[Range<usize>],
    columns: Range<usize>,
) -> Array2<T> {
    let mut numbers = Vec::with_capacity(rows.iter().map(Range::len).sum::<usize>() * columns.len());
    let mut space = Vec::new();
    for row in rows.iter().cloned().flatten() {
        let range = row * width + columns.start..row * width + columns.end;
        numbers.extend_from_slice(x.get(range, &mut space));
    }
    Array2::from_shape_vec((numbers.len() / columns.len(), columns.len()), numbers).expect("whole rows")
}

/// K^T, K and V^T of a sequence and a key and value head.
struct Operands<T: Real> {
    k_transposed: T::PackedRhs,
    k: T::PackedRhs,
    v_transposed: T::PackedRhs,
}

/// The backward pass of one query head of a sequence.
struct OneHead<'a, T: Real> {
    q: Array2<T>,
    operands: &'a Operands<T>,
    dout: ArrayView2<'a, T>,
    log_sums: ArrayView1<'a, T>,
    /// Keys before the first query's own.
    prefix: usize,
    config: AttentionConfig,
}

impl<T: Real> OneHead<'_, T> {
    /// With P the softmax: dV = P^T dO, dS = P (dO V^T - rowsum(P dO V^T)), dQ = s dS K, dK = s dS^T Q.
    /// Writes dq and returns dk and dv, `[keys, head_dim]` each.
    fn backward(&self, mut dq: ArrayViewMut2<T>) -> [Array2<T>; 2] {
        let (tokens, dim) = self.q.dim();
        let (precision, cap) = (self.config.precision, self.config.soft_cap.map(T::from_f64));
        let keys = self.prefix + tokens;
        let [mut dk, mut dv] = [0, 1].map(|_| Array2::zeros((keys, dim)));
        let [mut p_space, mut ds_space] = [0, 1].map(|_| Array2::zeros((BLOCK.min(tokens), keys)));
        let mut capped = Vec::new();
        for start in (0..tokens).step_by(BLOCK) {
            let end = (start + BLOCK).min(tokens);
            let first = self.prefix + start;
            let keys_end = first + end - start;
            let q = self.q.slice(s![start..end, ..]);
            let dout = self.dout.slice(s![start..end, ..]);
            let mut p = p_space.slice_mut(s![..end - start, ..keys_end]);
            T::multiply_single(p.view_mut(), false, &T::pack_lhs(q, precision), &self.operands.k_transposed);
            let mut ds = ds_space.slice_mut(s![..end - start, ..keys_end]);
            T::multiply_single(
                ds.view_mut(),
                false,
                &T::pack_lhs(dout, precision),
                &self.operands.v_transposed,
            );
            for (i, (mut p, mut ds)) in p.rows_mut().into_iter().zip(ds.rows_mut()).enumerate() {
                let (p, ds) = (p.as_slice_mut().expect(CONTIGUOUS), ds.as_slice_mut().expect(CONTIGUOUS));
                let visible = self.config.visible_keys(first + i);
                let (p, ds) = (mask(p, visible.clone()), mask(ds, visible));
                let factor = self.config.score(p);
                capped.clear();
                capped.extend_from_slice(if cap.is_some() { p } else { &[] });
                softmax::exp_shifted(p, factor, self.log_sums[start + i]);
                let scale = T::from_f64(self.config.scale);
                softmax::softmax_backward(p, reduce::dot(p, ds), scale, ds);
                if let Some(cap) = cap {
                    elementwise::soft_cap_backward(&capped, cap, ds);
                }
            }
            let (p, ds) = (p.view(), ds.view());
            let add_product = |x: &mut Array2<T>, rows: ArrayView2<'_, T>, of: ArrayView2<'_, T>| {
                let x = x.slice_mut(s![..keys_end, ..]);
                T::multiply_single(
                    x,
                    true,
                    &T::pack_lhs_transposed(rows, precision),
                    &T::pack_rhs(of, precision),
                );
            };
            add_product(&mut dv, p, dout);
            add_product(&mut dk, ds, q);
            let dq = dq.slice_mut(s![start..end, ..]);
            T::multiply_single(dq, false, &T::pack_lhs(ds, precision), &self.operands.k);
        }
        [dk, dv]
    }
}

/// A view split along an axis into parts of these lengths, which fill it.
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
            let (part, after) = whole.split_at(axis, length);
            rest = after;
            part
        })
        .collect()
}

/// An array of tokens split into one tile for each sequence and head, each `width` columns wide.
pub(super) fn tile<'a, T>(
    array: &'a mut Array2<T>,
    sequences: &[SequenceRows],
    width: usize,
    heads: usize,
) -> impl Iterator<Item = ArrayViewMut2<'a, T>> {
    split(array.view_mut(), Axis(0), sequences.iter().map(|rows| rows.queries.len()))
        .into_iter()
        .flat_map(move |rows| split(rows, Axis(1), std::iter::repeat_n(width, heads)))
}
