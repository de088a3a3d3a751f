//! The attention of a block: from normed inputs to the heads' outputs, forward and backward, and token by token
//! with a KV cache.

use std::ops::Range;

use ndarray::{Array2, ArrayView2, Axis, s};
use rayon::prelude::*;

use super::{AttentionConfig, ForwardActivations, backward, decode, forward};
use crate::kernels::activation::Sigmoid;
use crate::kernels::{Precision, Real, SavedActivation};
use crate::model::activation;
use crate::model::linear::Linear;
use crate::model::mixer::PassMetadata;
use crate::model::norm::Norm;
use crate::model::terms::TermSink;

const CONTIGUOUS: &str = "activations are row-major";

/// The frozen weights of attention, and the terms of its matrices. The output projection is the block's.
#[derive(Clone, Debug)]
pub struct Attention<'a, T: Real> {
    /// `[heads * head_dim, d_model]`, or with a [gate](Self::gated) `[heads * 2 * head_dim, d_model]`.
    pub q: Linear<'a, T>,
    /// `[kv_heads * head_dim, d_model]`.
    pub k: Linear<'a, T>,
    /// `[kv_heads * head_dim, d_model]`.
    pub v: Linear<'a, T>,
    /// QK-norm: of each head of q and of k, before RoPE.
    pub qk_norms: Option<[Norm<T>; 2]>,
    /// Whether the rows of each head of q are followed by those of a gate: the head's output is multiplied by the
    /// gate's sigmoid (Qiu et al. 2025, arXiv 2505.06708).
    pub gated: bool,
    /// A score of each query head that takes part in its softmax and has no value.
    pub sinks: Option<Vec<T>>,
    /// The length of the sliding window.
    pub window: Option<usize>,
    /// Which of the model's rotary embeddings rotates q and k.
    pub rope: Option<usize>,
}

/// What attention reads: q, k and v, `[tokens, heads * head_dim]` each, q and k after QK-norm, RoPE and
/// temperature.
struct Projected<T> {
    q: Array2<T>,
    k: Array2<T>,
    v: Array2<T>,
    /// q and k before QK-norm, if there is one.
    before_norm: Option<[Array2<T>; 2]>,
    /// The gate before its sigmoid, `[tokens, heads * head_dim]`.
    gate: Option<Array2<T>>,
    z: Z<T>,
}

/// What the terms of q, k and v saved, such as z of CURLoRA; see [`Term`](crate::model::Term).
type Z<T> = [Option<Array2<T>>; 3];

/// What the backward pass needs of the forward pass. The inputs of matrices are not among it.
#[derive(Debug)]
pub struct AttentionActivations<T: Real> {
    q: SavedActivation<T>,
    k: SavedActivation<T>,
    v: SavedActivation<T>,
    before_norm: Option<[SavedActivation<T>; 2]>,
    /// The gate, and what it multiplies.
    gate: Option<[SavedActivation<T>; 2]>,
    z: Z<T>,
    /// The log-sum-exp of the scores, `[query_heads, tokens]`.
    log_sums: Array2<T>,
}

#[cfg(test)]
impl<T: Real> AttentionActivations<T> {
    /// The bytes of activations that it holds.
    pub fn bytes(&self) -> u64 {
        let saved = [&self.q, &self.k, &self.v].into_iter();
        let saved = saved.chain(self.before_norm.iter().flatten()).chain(self.gate.iter().flatten());
        let full: usize = self.z.iter().flatten().chain([&self.log_sums]).map(Array2::len).sum();
        saved.map(SavedActivation::bytes).sum::<u64>() + (full * size_of::<T>()) as u64
    }
}

/// The keys and values that a block has computed, `[rows, kv_heads * head_dim]` each.
#[derive(Debug)]
pub struct KvCache<T> {
    keys: Array2<T>,
    values: Array2<T>,
}

impl<T: Real> KvCache<T> {
    /// For this many rows.
    pub fn new(rows: usize, width: usize) -> Self {
        Self { keys: Array2::zeros((rows, width)), values: Array2::zeros((rows, width)) }
    }

    /// Makes room for at least this many rows.
    pub fn grow(&mut self, rows: usize) {
        for cache in [&mut self.keys, &mut self.values] {
            let missing = rows.saturating_sub(cache.nrows());
            cache.append(Axis(0), Array2::zeros((missing, cache.ncols())).view()).expect("the same width");
        }
    }
}

impl<'a, T: Real> Attention<'a, T> {
    /// The matrix of this role: `q`, `k` or `v`.
    pub fn linear_mut(&mut self, role: &str) -> Option<&mut Linear<'a, T>> {
        match role {
            "q" => Some(&mut self.q),
            "k" => Some(&mut self.k),
            "v" => Some(&mut self.v),
            _ => None,
        }
    }

    /// The matrices that read the normed input.
    pub fn inputs_mut(&mut self) -> [&mut Linear<'a, T>; 3] {
        [&mut self.q, &mut self.k, &mut self.v]
    }

    /// [`Self::inputs_mut`], shared.
    pub fn inputs(&self) -> [&Linear<'a, T>; 3] {
        [&self.q, &self.k, &self.v]
    }

    /// Values saved of a token for the backward pass: those that may be rounded to bfloat16, and others.
    pub fn activation_values(&self, config: AttentionConfig) -> (usize, usize) {
        let (q, kv) = (config.query_heads * config.head_dim, config.kv_heads * config.head_dim);
        let before_norm = if self.qk_norms.is_some() { q + kv } else { 0 };
        let gate = if self.gated { 2 * q } else { 0 };
        (q + 2 * kv + before_norm + gate, config.query_heads)
    }

    /// The normed input `[tokens, d_model]` to the heads' outputs `[tokens, query_heads * head_dim]`. With a
    /// precision, also the activations, saved for products of that precision.
    pub fn forward(
        &self,
        input: &T::PackedLhs<'_>,
        metadata: &PassMetadata<'_, T>,
        save: Option<Precision>,
    ) -> (Array2<T>, Option<AttentionActivations<T>>) {
        let Projected { q, k, v, before_norm, gate, z } = self.project(input, metadata);
        let config = self.config(metadata.config);
        let (mut attended, log_sums) =
            forward(q.view(), k.view(), v.view(), metadata.sequences, self.sinks.as_deref(), config);
        let saved = |x| SavedActivation::save(x, config.precision);
        let gate = gate.map(|gate| {
            let product = activation::gated_by::<Sigmoid, T>(&gate, &attended);
            let before = std::mem::replace(&mut attended, product);
            save.is_some().then(|| [gate, before].map(saved))
        });
        let activations = save.map(|_| AttentionActivations {
            q: saved(q),
            k: saved(k),
            v: saved(v),
            before_norm: before_norm.map(|both| both.map(saved)),
            gate: gate.flatten(),
            z,
            log_sums,
        });
        (attended, activations)
    }

    /// [`Self::forward`] of tokens that follow those whose keys and values are in the cache, which gets theirs. The
    /// rows of `metadata` are the cache's.
    pub fn extend(
        &self,
        input: &T::PackedLhs<'_>,
        cache: &mut KvCache<T>,
        metadata: &PassMetadata<'_, T>,
    ) -> Array2<T> {
        let Projected { q, k, v, gate, .. } = self.project(input, metadata);
        for (cache, new) in [(&mut cache.keys, &k), (&mut cache.values, &v)] {
            for rows in metadata.sequences {
                cache.slice_mut(s![rows.own.clone(), ..]).assign(&new.slice(s![rows.queries.clone(), ..]));
            }
        }
        let config = self.config(metadata.config);
        let (q, k, v) = (q.view(), cache.keys.view(), cache.values.view());
        let attended = match metadata.sequences.iter().all(|rows| rows.queries.len() == 1) {
            true => {
                let keys: Vec<Range<usize>> =
                    metadata.sequences.iter().map(|rows| rows.prefix.start..rows.own.end).collect();
                decode(q, k, v, &keys, self.sinks.as_deref(), config)
            }
            false => forward(q, k, v, metadata.sequences, self.sinks.as_deref(), config).0,
        };
        match gate {
            Some(gate) => activation::gated_by::<Sigmoid, T>(&gate, &attended),
            None => attended,
        }
    }

    /// From dattended = dL/d(heads' outputs), and the normed input if a matrix reads it: gives the gradients of terms
    /// to `sink`, and adds the gradient with respect to the normed input to `dinput`, if given.
    pub fn backward(
        &self,
        mut dattended: Array2<T>,
        saved: AttentionActivations<T>,
        input: Option<ArrayView2<T>>,
        metadata: &PassMetadata<'_, T>,
        sink: &mut dyn TermSink<T>,
        mut dinput: Option<&mut Option<Array2<T>>>,
    ) {
        let AttentionActivations { q, k, v, before_norm, gate, z: [zq, zk, zv], log_sums } = saved;
        let config = self.config(metadata.config);
        let dgate = gate.map(|[gate, before]| {
            activation::gated_by_backward::<Sigmoid, T>(&gate, &before, &mut dattended)
        });
        let activations = ForwardActivations { q: &q, k: &k, v: &v, log_sums: log_sums.view() };
        let (mut dq, mut dk, dv) = backward(&activations, dattended.view(), metadata.sequences, config);
        T::recycle(dattended);
        metadata.factors.scale_queries(&mut dq);
        if let Some(i) = self.rope {
            metadata.ropes[i].backward(&mut dq, &metadata.factors.cos_sin[i]);
            metadata.ropes[i].backward(&mut dk, &metadata.factors.cos_sin[i]);
        }
        if let (Some([q_norm, k_norm]), Some([q, k])) = (&self.qk_norms, &before_norm) {
            for (norm, x, d) in [(q_norm, q, &mut dq), (k_norm, k, &mut dk)] {
                let mut dx = Array2::zeros(d.dim());
                norm.backward(x, d.view(), &mut dx);
                T::recycle(std::mem::replace(d, dx));
            }
        }
        if let Some(dgate) = dgate {
            let joined = join_gate(dq.view(), dgate.view(), config.head_dim);
            T::recycle(std::mem::replace(&mut dq, joined));
            T::recycle(dgate);
        }
        self.q.backward(dq.into(), zq.as_ref(), input, sink, dinput.as_deref_mut());
        self.k.backward(dk.into(), zk.as_ref(), input, sink, dinput.as_deref_mut());
        self.v.backward(dv.into(), zv.as_ref(), input, sink, dinput);
    }

    /// The attention of this block, from that of the model.
    fn config(&self, of_model: AttentionConfig) -> AttentionConfig {
        AttentionConfig { window: self.window, ..of_model }
    }

    fn project(&self, input: &T::PackedLhs<'_>, metadata: &PassMetadata<'_, T>) -> Projected<T> {
        let PassMetadata { ropes, factors, config, .. } = metadata;
        let (mut q, zq) = self.q.forward(input);
        let (mut k, zk) = self.k.forward(input);
        let (v, zv) = self.v.forward(input);
        let gate = self.gated.then(|| {
            let [own, gate] = split_gate(q.view(), config.head_dim);
            T::recycle(std::mem::replace(&mut q, own));
            gate
        });
        let before_norm = self.qk_norms.as_ref().map(|[q_norm, k_norm]| {
            let [normed_q, normed_k] = [q_norm.forward(q.view()), k_norm.forward(k.view())];
            [std::mem::replace(&mut q, normed_q), std::mem::replace(&mut k, normed_k)]
        });
        if let Some(i) = self.rope {
            ropes[i].forward(&mut q, &factors.cos_sin[i]);
            ropes[i].forward(&mut k, &factors.cos_sin[i]);
        }
        factors.scale_queries(&mut q);
        Projected { q, k, v, before_norm, gate, z: [zq, zk, zv] }
    }
}

/// The outputs of q `[tokens, heads * 2 * head_dim]` as queries and gates, `[tokens, heads * head_dim]` each.
fn split_gate<T: Real>(both: ArrayView2<T>, head_dim: usize) -> [Array2<T>; 2] {
    let shape = (both.nrows(), both.ncols() / 2);
    let mut parts = [T::pooled(shape), T::pooled(shape)];
    for (i, part) in parts.iter_mut().enumerate() {
        part.axis_iter_mut(Axis(0)).into_par_iter().zip(both.axis_iter(Axis(0))).for_each(
            |(mut part, both)| {
                let part = part.as_slice_mut().expect(CONTIGUOUS).chunks_exact_mut(head_dim);
                let heads = both.to_slice().expect(CONTIGUOUS).chunks_exact(2 * head_dim);
                part.zip(heads)
                    .for_each(|(part, head)| part.copy_from_slice(&head[i * head_dim..][..head_dim]));
            },
        );
    }
    parts
}

/// The inverse of [`split_gate`].
fn join_gate<T: Real>(queries: ArrayView2<T>, gates: ArrayView2<T>, head_dim: usize) -> Array2<T> {
    let mut both = T::pooled((queries.nrows(), 2 * queries.ncols()));
    for (i, part) in [queries, gates].into_iter().enumerate() {
        both.axis_iter_mut(Axis(0)).into_par_iter().zip(part.axis_iter(Axis(0))).for_each(
            |(mut both, part)| {
                let heads = both.as_slice_mut().expect(CONTIGUOUS).chunks_exact_mut(2 * head_dim);
                let part = part.to_slice().expect(CONTIGUOUS).chunks_exact(head_dim);
                heads
                    .zip(part)
                    .for_each(|(head, part)| head[i * head_dim..][..head_dim].copy_from_slice(part));
            },
        );
    }
    both
}
