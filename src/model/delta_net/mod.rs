//! Gated DeltaNet (Yang et al. 2024, arXiv 2412.06464), the linear attention of Qwen 3.5, forward and backward, and
//! token by token. Queries, keys and values pass through a short causal convolution and SiLU; queries and keys have
//! length 1; the gated delta rule turns them into outputs, which are normed and gated, head by head.

mod gates;

use ndarray::{Array2, ArrayView2, Axis};
use rayon::prelude::*;

pub use gates::Gates;

use super::activation;
use super::convolution::CausalConvolution;
use super::linear::Linear;
use super::norm::Norm;
use super::pass::Pass;
use super::recurrence::{Heads, Rule, RuleInputs, States};
use super::terms::TermSink;
use crate::base::DeltaNetConfig;
use crate::kernels::activation::{Silu, plain, plain_backward, sigmoid};
use crate::kernels::{Precision, Real, SavedActivation, elementwise, reduce};

const CONTIGUOUS: &str = "activations are row-major";

/// The frozen weights, and the terms of the matrices. The output projection is the block's.
#[derive(Clone, Debug)]
pub struct GatedDeltaNet<'a, T: Real> {
    /// Queries, keys and values: `[2 * key_heads * key_dim + value_heads * value_dim, d_model]`.
    pub qkv: Linear<'a, T>,
    /// The gate of the output: `[value_heads * value_dim, d_model]`.
    pub z: Linear<'a, T>,
    /// Beta, the strength of corrections before its sigmoid, and alpha, which decides the decay.
    pub gates: Gates<'a, T>,
    pub convolution: CausalConvolution<T>,
    /// The factor of each head's decay, negative: `[value_heads]`.
    pub decay: Vec<T>,
    /// Added to alpha: `[value_heads]`.
    pub decay_bias: Vec<T>,
    /// Of each head's output.
    pub norm: Norm<T>,
    pub heads: DeltaNetConfig,
}

/// What the backward pass needs of the forward pass. The inputs of matrices are not among it.
#[derive(Debug)]
pub struct DeltaNetActivations<T: Real> {
    /// The outputs of `qkv`.
    qkv: SavedActivation<T>,
    /// The outputs of `z`.
    z: SavedActivation<T>,
    /// The heads' outputs before their norm.
    out: SavedActivation<T>,
    /// The outputs of `beta` and `alpha`.
    gates: [Array2<T>; 2],
    /// What the terms of the matrices saved, such as z of CURLoRA.
    saved: Vec<Option<Array2<T>>>,
}

#[cfg(test)]
impl<T: Real> DeltaNetActivations<T> {
    /// The bytes of activations that it holds.
    pub fn bytes(&self) -> u64 {
        let saved = [&self.qkv, &self.z, &self.out].map(SavedActivation::bytes);
        let full: usize = self.gates.iter().chain(self.saved.iter().flatten()).map(Array2::len).sum();
        saved.iter().sum::<u64>() + (full * size_of::<T>()) as u64
    }
}

/// What a block keeps of the tokens that each of some sequences has read.
#[derive(Debug)]
pub struct DeltaNetCache<T> {
    states: States<T>,
    /// The last outputs of `qkv` of each sequence, as many as the convolution reads.
    history: Vec<Array2<T>>,
}

impl<'a, T: Real> GatedDeltaNet<'a, T> {
    /// The matrix of this role: `qkv`, `z`, or one of [`Self::gates`].
    pub fn linear_mut(&mut self, role: &str) -> Option<&mut Linear<'a, T>> {
        match role {
            "qkv" => Some(&mut self.qkv),
            "z" => Some(&mut self.z),
            _ => self.gates.linear_mut(role),
        }
    }

    /// The matrices that read the normed input.
    pub fn inputs_mut(&mut self) -> impl Iterator<Item = &mut Linear<'a, T>> {
        [&mut self.qkv, &mut self.z].into_iter().chain(self.gates.matrices_mut())
    }

    /// [`Self::inputs_mut`], shared.
    pub fn inputs(&self) -> impl Iterator<Item = &Linear<'a, T>> {
        [&self.qkv, &self.z].into_iter().chain(self.gates.matrices())
    }

    /// Values saved of a token for the backward pass: those that may be rounded to bfloat16, and others.
    pub fn activation_values(&self) -> (usize, usize) {
        let DeltaNetConfig { value_heads, value_dim, .. } = self.heads;
        (self.heads.channels() + 2 * value_heads * value_dim, 2 * value_heads)
    }

    /// A cache for this many sequences that have read nothing.
    pub fn cache(&self, sequences: usize) -> DeltaNetCache<T> {
        let history = || Array2::zeros((self.convolution.history(), self.heads.channels()));
        DeltaNetCache {
            states: self.recurrence().states(sequences),
            history: (0..sequences).map(|_| history()).collect(),
        }
    }

    /// The numbers of a sequence's cache.
    pub fn cached_values(&self) -> u64 {
        let history = self.convolution.history() * self.heads.channels();
        (self.recurrence().state_values() + history) as u64
    }

    fn recurrence(&self) -> Heads {
        let DeltaNetConfig { value_heads, key_dim, value_dim, .. } = self.heads;
        let columns = (0..value_heads).map(|head| self.heads.columns(head)).collect();
        Heads { rule: Rule::Delta, columns, key_dim, value_dim }
    }

    /// The normed input `[tokens, d_model]` to the heads' outputs `[tokens, value_heads * value_dim]`. With a
    /// precision, also the activations, saved for products of that precision.
    pub fn forward(
        &self,
        input: &T::PackedLhs<'_>,
        pass: &Pass<'_, T>,
        save: Option<Precision>,
    ) -> (Array2<T>, Option<DeltaNetActivations<T>>) {
        let [(qkv, saved_qkv), (z, saved_z)] = [&self.qkv, &self.z].map(|linear| linear.forward(input));
        let ([b, a], saved_gates) = self.gates.forward(input);
        let inputs = self.rule_inputs(self.convolution.forward(qkv.view(), pass.sequences), &b, &a);
        let out = self.recurrence().outputs(&inputs, pass.sequences);
        inputs.recycle();
        let attended = self.gated_norm(&out, &z);
        let activations = save.map(|precision| {
            let saved = |x| SavedActivation::save(x, precision);
            DeltaNetActivations {
                qkv: saved(qkv),
                z: saved(z),
                out: saved(out),
                gates: [b, a],
                saved: [saved_qkv, saved_z].into_iter().chain(saved_gates).collect(),
            }
        });
        (attended, activations)
    }

    /// [`Self::forward`] of tokens that follow those that the cache has read, and which it reads, too. `slots` are the
    /// cache's sequences, one for each of `pass`.
    pub fn extend(
        &self,
        input: &T::PackedLhs<'_>,
        cache: &mut DeltaNetCache<T>,
        slots: &[usize],
        pass: &Pass<'_, T>,
    ) -> Array2<T> {
        let [qkv, z] = [&self.qkv, &self.z].map(|linear| linear.forward(input).0);
        let ([b, a], _) = self.gates.forward(input);
        let convolved = self.convolution.extend(qkv.view(), &mut cache.history, slots, pass.sequences);
        let inputs = self.rule_inputs(convolved, &b, &a);
        let out = self.recurrence().extend(&inputs, &mut cache.states, slots, pass.sequences);
        self.gated_norm(&out, &z)
    }

    /// From dattended = dL/d(heads' outputs), and the normed input if a matrix reads it: gives the gradients of terms
    /// to `sink`, and adds the gradient with respect to the normed input to `dinput`, if given.
    pub fn backward(
        &self,
        dattended: Array2<T>,
        activations: DeltaNetActivations<T>,
        input: Option<ArrayView2<T>>,
        pass: &Pass<'_, T>,
        sink: &mut dyn TermSink<T>,
        mut dinput: Option<&mut Option<Array2<T>>>,
    ) {
        let DeltaNetActivations { qkv, z, out, gates: [b, a], saved } = activations;
        let (dout, dz) = self.gated_norm_backward(dattended, &out, &z);
        let qkv = qkv.to_array(self.heads.channels());
        let convolved = self.convolution.forward(qkv.view(), pass.sequences);
        T::recycle(qkv);
        let inputs = self.rule_inputs(convolved.clone(), &b, &a);
        let [mut dmixed, dg, dbeta] = self.recurrence().backward(&inputs, &dout, pass.sequences);
        T::recycle(dout);
        self.mix_backward(&convolved, &mut dmixed);
        T::recycle(convolved);
        inputs.recycle();
        let dqkv = self.convolution.backward(dmixed.view(), dmixed.nrows(), pass.sequences);
        T::recycle(dmixed);
        let (mut db, mut da) = (b, a);
        for ((token, head), b) in db.indexed_iter_mut() {
            let s = sigmoid(*b);
            *b = dbeta[[head, token]] * s * (T::one() - s);
        }
        for ((token, head), a) in da.indexed_iter_mut() {
            *a = dg[[head, token]] * self.decay[head] * sigmoid(*a + self.decay_bias[head]);
        }
        for ((linear, d), saved) in [&self.qkv, &self.z].into_iter().zip([dqkv, dz]).zip(&saved) {
            linear.backward(d.into(), saved.as_ref(), input, sink, dinput.as_deref_mut());
        }
        self.gates.backward([db, da], &saved[2..], input, sink, dinput);
    }

    /// What the rule reads, from the convolution's output `[tokens, channels]` and the outputs of `beta` and `alpha`.
    fn rule_inputs(&self, mut mixed: Array2<T>, b: &Array2<T>, a: &Array2<T>) -> RuleInputs<T> {
        mixed.axis_iter_mut(Axis(0)).into_par_iter().for_each(|mut row| {
            let row = row.as_slice_mut().expect(CONTIGUOUS);
            let convolved = row.to_vec();
            plain(Silu, &convolved, row);
            for (head, factor) in self.unit_heads(row) {
                let inverse = self.inverse_length(head);
                elementwise::scale(head, inverse * factor);
            }
        });
        let shape = (self.heads.value_heads, b.nrows());
        let g = |(head, token): (usize, usize)| {
            let x = a[[token, head]] + self.decay_bias[head];
            // ln(1 + e^x), which does not overflow.
            self.decay[head] * (x.max(T::zero()) + (-x.abs()).fast_exp().ln_1p())
        };
        RuleInputs {
            mixed,
            g: Array2::from_shape_fn(shape, g),
            beta: Array2::from_shape_fn(shape, |(head, token)| sigmoid(b[[token, head]])),
        }
    }

    /// The queries and keys of a token, each with its factor: queries are divided by the square root of their width.
    fn unit_heads<'r>(&self, row: &'r mut [T]) -> impl Iterator<Item = (&'r mut [T], T)> + use<'r, T> {
        let DeltaNetConfig { key_heads, key_dim, .. } = self.heads;
        let scale = T::from_f64(1.0 / (key_dim as f64).sqrt());
        let heads = row[..2 * key_heads * key_dim].chunks_exact_mut(key_dim).enumerate();
        heads.map(move |(i, head)| (head, if i < key_heads { scale } else { T::one() }))
    }

    fn inverse_length(&self, head: &[T]) -> T {
        T::from_f64(1.0 / (reduce::square_sum(head) + self.heads.eps).sqrt())
    }

    /// The gradient of the convolution's output, in place of that of what [`Self::rule_inputs`] made of it: with y = x / |x|,
    /// dx = (dy - y (y dy)) / |x|.
    fn mix_backward(&self, convolved: &Array2<T>, dmixed: &mut Array2<T>) {
        let rows = dmixed.axis_iter_mut(Axis(0)).into_par_iter().zip(convolved.axis_iter(Axis(0)));
        rows.for_each(|(mut d, convolved)| {
            let d = d.as_slice_mut().expect(CONTIGUOUS);
            let convolved = convolved.to_slice().expect(CONTIGUOUS);
            let mut x = vec![T::zero(); convolved.len()];
            plain(Silu, convolved, &mut x);
            let width = self.heads.key_dim;
            for ((d, factor), x) in self.unit_heads(d).zip(x.chunks_exact(width)) {
                let inverse = self.inverse_length(x);
                let along = reduce::dot(d, x) * inverse * inverse;
                elementwise::add_scaled(d, -along, x);
                elementwise::scale(d, inverse * factor);
            }
            plain_backward(Silu, convolved, d);
        });
    }

    /// norm(out) SiLU(z), all `[tokens, value_heads * value_dim]`.
    fn gated_norm(&self, out: &Array2<T>, z: &Array2<T>) -> Array2<T> {
        let normed = self.norm.forward(out.view());
        let attended = activation::gated_by(Silu, z, &normed);
        T::recycle(normed);
        attended
    }

    /// The gradients of out and z from that of [`Self::gated_norm`].
    fn gated_norm_backward(
        &self,
        mut d: Array2<T>,
        out: &SavedActivation<T>,
        z: &SavedActivation<T>,
    ) -> (Array2<T>, Array2<T>) {
        let whole = out.to_array(d.ncols());
        let normed = self.norm.forward(whole.view());
        T::recycle(whole);
        let dz = activation::gated_by_backward(Silu, z, &SavedActivation::Full(normed), &mut d);
        let mut dout = Array2::zeros(d.dim());
        self.norm.backward(out, d.view(), &mut dout);
        T::recycle(d);
        (dout, dz)
    }
}
