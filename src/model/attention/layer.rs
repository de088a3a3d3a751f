//! The attention of a block: from normed inputs to the heads' outputs, forward and backward, and token by token
//! with a KV cache.

use std::ops::Range;

use ndarray::{Array2, ArrayView2, Axis, s};
use rayon::prelude::*;

use super::keys_and_values::{
    KeysAndValues, KeysAndValuesActivations, KvCache, OwnKeysAndValues, ProjectedKeysAndValues,
};
use super::{AttentionConfig, ForwardActivations, backward, decode, forward};
use crate::kernels::activation::Sigmoid;
use crate::kernels::{Precision, Real, SavedActivation};
use crate::model::activation;
use crate::model::linear::Linear;
use crate::model::norm::Norm;
use crate::model::pass::Pass;
use crate::model::residual::add;
use crate::model::terms::TermSink;

const CONTIGUOUS: &str = "activations are row-major";

/// The frozen weights of attention, and the terms of its matrices. The output projection is the block's.
#[derive(Clone, Debug)]
pub struct Attention<'a, T: Real> {
    /// `[heads * head_dim, d_model]`, or with a [gate](Self::gated) `[heads * 2 * head_dim, d_model]`.
    pub q: Linear<'a, T>,
    /// Of each head of q (QK-norm).
    pub q_norm: Option<Norm<T>>,
    /// Whether queries and keys are normed after their rotation; else before it.
    pub norms_rotated: bool,
    /// The keys and values.
    pub keys_and_values: KeysAndValues<'a, T>,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
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

/// The queries, `[tokens, heads * head_dim]`, after QK-norm, RoPE and temperature.
struct Queries<T> {
    q: Array2<T>,
    /// q before QK-norm, if there is one.
    before_norm: Option<Array2<T>>,
    /// The gate before its sigmoid, `[tokens, heads * head_dim]`.
    gate: Option<Array2<T>>,
    /// What the term of q saved, such as z of CURLoRA; see [`Term`](crate::model::Term).
    z: Option<Array2<T>>,
}

/// What the backward pass needs of the forward pass. The inputs of matrices are not among it.
#[derive(Debug)]
pub struct AttentionActivations<T: Real> {
    q: SavedActivation<T>,
    before_norm: Option<SavedActivation<T>>,
    /// The gate, and what it multiplies.
    gate: Option<[SavedActivation<T>; 2]>,
    z: Option<Array2<T>>,
    /// None if they are an earlier block's.
    keys_and_values: Option<KeysAndValuesActivations<T>>,
    /// The log-sum-exp of the scores, `[query_heads, tokens]`.
    log_sums: Array2<T>,
}

#[cfg(test)]
impl<T: Real> AttentionActivations<T> {
    /// The bytes of activations that it holds.
    pub fn bytes(&self) -> u64 {
        let saved = std::iter::once(&self.q).chain(&self.before_norm).chain(self.gate.iter().flatten());
        let full: usize = self.z.iter().chain([&self.log_sums]).map(Array2::len).sum();
        let keys_and_values = self.keys_and_values.as_ref().map_or(0, KeysAndValuesActivations::bytes);
        saved.map(SavedActivation::bytes).sum::<u64>() + keys_and_values + (full * size_of::<T>()) as u64
    }
}

impl<'a, T: Real> Attention<'a, T> {
    /// The matrix of this role: `q`, `k` or `v`.
    pub fn linear_mut(&mut self, role: &str) -> Option<&mut Linear<'a, T>> {
        match (role, &mut self.keys_and_values) {
            ("q", _) => Some(&mut self.q),
            ("k", KeysAndValues::Own(own)) => Some(&mut own.k),
            ("v", KeysAndValues::Own(own)) => own.v.as_mut(),
            _ => None,
        }
    }

    /// The matrices that read the normed input.
    pub fn inputs_mut(&mut self) -> Vec<&mut Linear<'a, T>> {
        let own = match &mut self.keys_and_values {
            KeysAndValues::Own(own) => Some(own.matrices_mut()),
            KeysAndValues::Block(_) => None,
        };
        std::iter::once(&mut self.q).chain(own.into_iter().flatten()).collect()
    }

    /// [`Self::inputs_mut`], shared.
    pub fn inputs(&self) -> Vec<&Linear<'a, T>> {
        std::iter::once(&self.q).chain(self.own().into_iter().flat_map(|own| own.matrices())).collect()
    }

    /// Its own keys and values.
    fn own(&self) -> Option<&OwnKeysAndValues<'a, T>> {
        match &self.keys_and_values {
            KeysAndValues::Own(own) => Some(own),
            KeysAndValues::Block(_) => None,
        }
    }

    /// The entries of a token's keys, if they are its own.
    pub fn own_width(&self) -> usize {
        self.own().map_or(0, |own| own.k.weight().rows())
    }

    /// Values saved of a token for the backward pass: those that may be rounded to bfloat16, and others. Those of terms
    /// are not among them.
    pub fn activation_values(&self, config: AttentionConfig) -> (usize, usize) {
        let q = config.query_heads * self.head_dim;
        let before_norm = if self.q_norm.is_some() { q } else { 0 };
        let gate = if self.gated { 2 * q } else { 0 };
        let own = self.own().map_or(0, OwnKeysAndValues::activation_values);
        (q + before_norm + gate + own, config.query_heads)
    }

    /// The normed input `[tokens, d_model]` to the heads' outputs `[tokens, query_heads * head_dim]`. With a
    /// precision, also the activations, saved for products of that precision.
    pub fn forward(
        &self,
        input: &T::PackedLhs<'_>,
        pass: &mut Pass<'_, T>,
        save: Option<Precision>,
    ) -> (Array2<T>, Option<AttentionActivations<T>>) {
        let Queries { q, before_norm, gate, z } = self.queries(input, pass);
        let config = self.config(pass.config);
        let own = self.own().map(|own| self.own_keys_and_values(own, input, pass));
        let width = config.kv_heads * config.head_dim;
        let others = match &self.keys_and_values {
            KeysAndValues::Own(_) => None,
            KeysAndValues::Block(block) => {
                Some(pass.shared.of(*block).each_ref().map(|saved| saved.to_array(width)))
            }
        };
        let [k, v] = match (&own, &others) {
            (Some(own), _) => [&own.k, &own.v],
            (None, Some([k, v])) => [k, v],
            (None, None) => unreachable!("keys are a block's own or another's"),
        };
        let (mut attended, log_sums) =
            forward(q.view(), k.view(), v.view(), pass.sequences, self.sinks.as_deref(), config);
        others.into_iter().flatten().for_each(T::recycle);
        let saved = |x| SavedActivation::save(x, config.precision);
        let gate = gate.map(|gate| {
            let product = activation::gated_by(Sigmoid, &gate, &attended);
            let before = std::mem::replace(&mut attended, product);
            save.is_some().then(|| [gate, before].map(saved))
        });
        let activations = save.map(|_| AttentionActivations {
            q: saved(q),
            before_norm: before_norm.map(saved),
            gate: gate.flatten(),
            z,
            keys_and_values: own.map(|own| own.save(config.precision)),
            log_sums,
        });
        (attended, activations)
    }

    /// [`Self::forward`] of tokens that follow those whose keys and values are in the cache, which gets theirs. The
    /// rows of `pass` are the cache's. It is the cache of the block that the keys and values are from.
    pub fn extend(&self, input: &T::PackedLhs<'_>, cache: &mut KvCache<T>, pass: &Pass<'_, T>) -> Array2<T> {
        let Queries { q, gate, .. } = self.queries(input, pass);
        if let Some(own) = self.own() {
            let ProjectedKeysAndValues { k, v, .. } = own.project(input, &|k| self.rotate(k, pass));
            for (cache, new) in [(&mut cache.keys, &k), (&mut cache.values, &v)] {
                for rows in pass.sequences {
                    let mut cache = cache.slice_mut(s![rows.own.clone(), ..]);
                    cache.assign(&new.slice(s![rows.queries.clone(), ..]));
                }
            }
        }
        let config = self.config(pass.config);
        let (q, k, v) = (q.view(), cache.keys.view(), cache.values.view());
        let attended = match pass.sequences.iter().all(|rows| rows.queries.len() == 1) {
            true => {
                let keys: Vec<Range<usize>> =
                    pass.sequences.iter().map(|rows| rows.prefix.start..rows.own.end).collect();
                decode(q, k, v, &keys, self.sinks.as_deref(), config)
            }
            false => forward(q, k, v, pass.sequences, self.sinks.as_deref(), config).0,
        };
        match gate {
            Some(gate) => activation::gated_by(Sigmoid, &gate, &attended),
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
        pass: &mut Pass<'_, T>,
        sink: &mut dyn TermSink<T>,
        mut dinput: Option<&mut Option<Array2<T>>>,
    ) {
        let AttentionActivations { q, before_norm, gate, z, keys_and_values, log_sums } = saved;
        let config = self.config(pass.config);
        let dgate =
            gate.map(|[gate, before]| activation::gated_by_backward(Sigmoid, &gate, &before, &mut dattended));
        let [k, v] = match (&keys_and_values, &self.keys_and_values) {
            (Some(own), _) => [&own.k, &own.v],
            (None, KeysAndValues::Block(block)) => pass.shared.of(*block).each_ref(),
            (None, KeysAndValues::Own(_)) => unreachable!("a block saves its own keys"),
        };
        let activations = ForwardActivations { q: &q, k, v, log_sums: log_sums.view() };
        let (mut dq, mut dk, mut dv) = backward(&activations, dattended.view(), pass.sequences, config);
        T::recycle(dattended);
        pass.factors.scale_queries(&mut dq);
        if !self.norms_rotated {
            self.rotate_back(&mut dq, pass);
        }
        if let (Some(norm), Some(before)) = (&self.q_norm, &before_norm) {
            let mut dx = Array2::zeros(dq.dim());
            norm.backward(before, dq.view(), &mut dx);
            T::recycle(std::mem::replace(&mut dq, dx));
        }
        if self.norms_rotated {
            self.rotate_back(&mut dq, pass);
        }
        if let Some(dgate) = dgate {
            let joined = join_gate(dq.view(), dgate.view(), config.head_dim);
            T::recycle(std::mem::replace(&mut dq, joined));
            T::recycle(dgate);
        }
        self.q.backward(dq.into(), z.as_ref(), input, sink, dinput.as_deref_mut());
        match (&self.keys_and_values, keys_and_values) {
            (KeysAndValues::Own(own), Some(saved)) => {
                let later = own.shared_as.and_then(|block| pass.shared.take_gradients(block));
                for (sum, later) in [&mut dk, &mut dv].into_iter().zip(later.into_iter().flatten()) {
                    add(sum, later.view());
                    T::recycle(later);
                }
                own.backward([dk, dv], saved, input, (sink, &|d| self.rotate_back(d, pass)), dinput);
            }
            (KeysAndValues::Block(block), _) => pass.shared.add_gradients(*block, [dk, dv]),
            (KeysAndValues::Own(_), None) => unreachable!("a block saves its own keys"),
        }
    }

    /// The attention of this block, from that of the model.
    fn config(&self, of_model: AttentionConfig) -> AttentionConfig {
        let Self { kv_heads, head_dim, window, .. } = *self;
        AttentionConfig { kv_heads, head_dim, window, ..of_model }
    }

    fn queries(&self, input: &T::PackedLhs<'_>, pass: &Pass<'_, T>) -> Queries<T> {
        let (mut q, z) = self.q.forward(input);
        let gate = self.gated.then(|| {
            let [own, gate] = split_gate(q.view(), self.head_dim);
            T::recycle(std::mem::replace(&mut q, own));
            gate
        });
        let norm = |q: &mut Array2<T>| {
            let normed = self.q_norm.as_ref()?.forward(q.view());
            Some(std::mem::replace(q, normed))
        };
        let before_norm = match self.norms_rotated {
            true => {
                self.rotate(&mut q, pass);
                norm(&mut q)
            }
            false => {
                let before = norm(&mut q);
                self.rotate(&mut q, pass);
                before
            }
        };
        pass.factors.scale_queries(&mut q);
        Queries { q, before_norm, gate, z }
    }

    /// Its own keys and values, of which the pass keeps those that later blocks read.
    fn own_keys_and_values(
        &self,
        own: &OwnKeysAndValues<'a, T>,
        input: &T::PackedLhs<'_>,
        pass: &mut Pass<'_, T>,
    ) -> ProjectedKeysAndValues<T> {
        let made = own.project(input, &|k| self.rotate(k, pass));
        if let Some(block) = own.shared_as {
            pass.shared.keep(block, [&made.k, &made.v], pass.config.precision);
        }
        made
    }

    fn rotate(&self, x: &mut Array2<T>, pass: &Pass<'_, T>) {
        if let Some(i) = self.rope {
            pass.ropes[i].forward(x, &pass.factors.cos_sin[i], self.head_dim);
        }
    }

    fn rotate_back(&self, d: &mut Array2<T>, pass: &Pass<'_, T>) {
        if let Some(i) = self.rope {
            pass.ropes[i].backward(d, &pass.factors.cos_sin[i], self.head_dim);
        }
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
