//! Mamba-2 (Dao and Gu 2024, arXiv 2405.21060), forward and backward, and token by token. One matrix makes a gate z, values x,
//! keys B, queries C and time steps of the input. x, B and C pass through a short causal convolution and SiLU; the rule turns
//! them into outputs, head by head; D x is added, and what the gate leaves is normed, group by group.

use ndarray::{Array2, ArrayView2, Axis, s};
use rayon::prelude::*;

use super::activation;
use super::convolution::CausalConvolution;
use super::linear::Linear;
use super::norm::Norm;
use super::pass::Pass;
use super::recurrence::{Heads, Rule, RuleInputs, States};
use super::terms::TermSink;
use crate::base::StateSpaceConfig;
use crate::kernels::activation::{Silu, plain, plain_backward, sigmoid};
use crate::kernels::{Precision, Real, SavedActivation, elementwise};

const CONTIGUOUS: &str = "activations are row-major";

/// The frozen weights, and the term of the matrix. The output projection is the block's.
#[derive(Clone, Debug)]
pub struct Mamba2<'a, T: Real> {
    /// z, x, B, C and a time step for each head: `[outputs, d_model]`.
    pub input: Linear<'a, T>,
    /// Of x, B and C.
    pub convolution: CausalConvolution<T>,
    /// A, the factor of each head's decay, negative: `[heads]`.
    pub decay: Vec<T>,
    /// Added to the time steps: `[heads]`.
    pub step_bias: Vec<T>,
    /// D, `[heads]`.
    pub skip: Vec<T>,
    /// Of each group of the outputs, without factors.
    pub norm: Norm<T>,
    /// The factors of the norm of all groups, `[heads * head_dim]`.
    pub norm_factors: Vec<T>,
    pub config: StateSpaceConfig,
}

/// What the backward pass needs of the forward pass. The input of the matrix is not among it.
#[derive(Debug)]
pub struct Mamba2Activations<T: Real> {
    gate: SavedActivation<T>,
    /// x, B and C before the convolution.
    channels: SavedActivation<T>,
    /// The time steps, before their bias.
    steps: Array2<T>,
    /// The heads' outputs by the rule.
    out: SavedActivation<T>,
    /// What the term of the matrix saved, such as z of CURLoRA.
    z: Option<Array2<T>>,
}

#[cfg(test)]
impl<T: Real> Mamba2Activations<T> {
    /// The bytes of activations that it holds.
    pub fn bytes(&self) -> u64 {
        let saved: u64 = [&self.gate, &self.channels, &self.out].map(SavedActivation::bytes).iter().sum();
        let full = self.steps.len() + self.z.as_ref().map_or(0, Array2::len);
        saved + (full * size_of::<T>()) as u64
    }
}

/// What a block keeps of the tokens that each of some sequences has read.
#[derive(Debug)]
pub struct Mamba2Cache<T> {
    states: States<T>,
    /// The last inputs of the convolution of each sequence, as many as it reads.
    history: Vec<Array2<T>>,
}

impl<T: Real> Mamba2<'_, T> {
    /// Values saved of a token for the backward pass: those that may be rounded to bfloat16, and others. Those of terms
    /// are not among them.
    pub fn activation_values(&self) -> (usize, usize) {
        (2 * self.config.inner() + self.config.channels(), self.config.heads)
    }

    /// A cache for this many sequences that have read nothing.
    pub fn cache(&self, sequences: usize) -> Mamba2Cache<T> {
        let history = Array2::zeros((self.convolution.history(), self.config.channels()));
        Mamba2Cache { states: self.heads().states(sequences), history: vec![history; sequences] }
    }

    /// The numbers of a sequence's cache.
    pub fn cached_values(&self) -> u64 {
        (self.heads().state_values() + self.convolution.history() * self.config.channels()) as u64
    }

    fn heads(&self) -> Heads {
        let StateSpaceConfig { heads, head_dim, state, .. } = self.config;
        let columns = (0..heads).map(|head| self.config.columns(head)).collect();
        Heads { rule: Rule::Decay, columns, key_dim: state, value_dim: head_dim }
    }

    /// The normed input `[tokens, d_model]` to `[tokens, heads * head_dim]`. With a precision, also the activations, saved
    /// for products of that precision.
    pub fn forward(
        &self,
        input: &T::PackedLhs<'_>,
        pass: &Pass<'_, T>,
        save: Option<Precision>,
    ) -> (Array2<T>, Option<Mamba2Activations<T>>) {
        let (all, z) = self.input.forward(input);
        let [gate, channels, steps] = self.split(&all);
        T::recycle(all);
        let inputs = self.rule_inputs(self.convolution.forward(channels.view(), pass.sequences), &steps);
        let out = self.heads().outputs(&inputs, pass.sequences);
        let attended = self.gated_norm(&self.with_skip(&out, &inputs.mixed), &gate);
        inputs.recycle();
        let activations = save.map(|precision| {
            let [gate, channels, out] = [gate, channels, out].map(|x| SavedActivation::save(x, precision));
            Mamba2Activations { gate, channels, steps, out, z }
        });
        (attended, activations)
    }

    /// [`Self::forward`] of tokens that follow those that the cache has read, and which it reads, too. `slots` are the
    /// cache's sequences, one for each of `pass`.
    pub fn extend(
        &self,
        input: &T::PackedLhs<'_>,
        cache: &mut Mamba2Cache<T>,
        slots: &[usize],
        pass: &Pass<'_, T>,
    ) -> Array2<T> {
        let (all, _) = self.input.forward(input);
        let [gate, channels, steps] = self.split(&all);
        let convolved = self.convolution.extend(channels.view(), &mut cache.history, slots, pass.sequences);
        let inputs = self.rule_inputs(convolved, &steps);
        let out = self.heads().extend(&inputs, &mut cache.states, slots, pass.sequences);
        self.gated_norm(&self.with_skip(&out, &inputs.mixed), &gate)
    }

    /// From dattended = dL/d(output), and the normed input if the matrix reads it: gives the gradient of the term to `sink`,
    /// and adds the gradient with respect to the normed input to `dinput`, if given.
    pub fn backward(
        &self,
        dattended: Array2<T>,
        activations: Mamba2Activations<T>,
        input: Option<ArrayView2<T>>,
        pass: &Pass<'_, T>,
        sink: &mut dyn TermSink<T>,
        dinput: Option<&mut Option<Array2<T>>>,
    ) {
        let Mamba2Activations { gate, channels, steps, out, z } = activations;
        let (inner, width) = (self.config.inner(), self.config.channels());
        let convolved = self.convolution.forward(channels.to_array(width).view(), pass.sequences);
        let inputs = self.rule_inputs(convolved.clone(), &steps);
        let y = self.with_skip(&out.to_array(inner), &inputs.mixed);
        let (dy, dgate) = self.gated_norm_backward(dattended, y, &gate);
        let [mut dmixed, dg, dbeta] = self.heads().backward(&inputs, &dy, pass.sequences);
        inputs.recycle();
        // D x.
        let rows = dmixed.axis_iter_mut(Axis(0)).into_par_iter().zip(dy.axis_iter(Axis(0)));
        rows.for_each(|(mut dmixed, dy)| {
            let dx = dmixed.as_slice_mut().expect(CONTIGUOUS)[..inner].chunks_exact_mut(self.config.head_dim);
            let dy = dy.to_slice().expect(CONTIGUOUS).chunks_exact(self.config.head_dim);
            dx.zip(dy).zip(&self.skip).for_each(|((dx, dy), &skip)| elementwise::add_scaled(dx, skip, dy));
        });
        let rows = dmixed.axis_iter_mut(Axis(0)).into_par_iter().zip(convolved.axis_iter(Axis(0)));
        rows.for_each(|(mut d, convolved)| {
            let d = d.as_slice_mut().expect(CONTIGUOUS);
            plain_backward(Silu, convolved.to_slice().expect(CONTIGUOUS), d);
        });
        T::recycle(convolved);
        let dchannels = self.convolution.backward(dmixed.view(), dmixed.nrows(), pass.sequences);
        T::recycle(dmixed);
        let mut d = T::pooled((steps.nrows(), self.config.outputs()));
        d.slice_mut(s![.., ..inner]).assign(&dgate);
        d.slice_mut(s![.., inner..inner + width]).assign(&dchannels);
        for ((token, head), step) in steps.indexed_iter() {
            let dstep = dg[[head, token]] * self.decay[head] + dbeta[[head, token]];
            d[[token, inner + width + head]] = dstep * sigmoid(*step + self.step_bias[head]);
        }
        [dgate, dchannels, dy].into_iter().for_each(T::recycle);
        self.input.backward(d.into(), z.as_ref(), input, sink, dinput);
    }

    /// The matrix's outputs as gates, channels and time steps.
    fn split(&self, all: &Array2<T>) -> [Array2<T>; 3] {
        let (inner, width) = (self.config.inner(), self.config.channels());
        let ranges = [0..inner, inner..inner + width, inner + width..all.ncols()];
        ranges.map(|columns| all.slice(s![.., columns]).as_standard_layout().into_owned())
    }

    /// What the rule reads, from the convolution's output `[tokens, channels]` and the time steps.
    fn rule_inputs(&self, mut mixed: Array2<T>, steps: &Array2<T>) -> RuleInputs<T> {
        mixed.axis_iter_mut(Axis(0)).into_par_iter().for_each(|mut row| {
            let row = row.as_slice_mut().expect(CONTIGUOUS);
            let convolved = row.to_vec();
            plain(Silu, &convolved, row);
        });
        let beta = Array2::from_shape_fn((self.config.heads, steps.nrows()), |(head, token)| {
            let x = steps[[token, head]] + self.step_bias[head];
            // ln(1 + e^x), which does not overflow.
            x.max(T::zero()) + (-x.abs()).fast_exp().ln_1p()
        });
        let mut g = beta.clone();
        for (mut g, &decay) in g.rows_mut().into_iter().zip(&self.decay) {
            g.iter_mut().for_each(|g| *g *= decay);
        }
        RuleInputs { mixed, g, beta }
    }

    /// out + D x.
    fn with_skip(&self, out: &Array2<T>, mixed: &Array2<T>) -> Array2<T> {
        let mut y = out.clone();
        let rows = y.axis_iter_mut(Axis(0)).into_par_iter().zip(mixed.axis_iter(Axis(0)));
        rows.for_each(|(mut y, mixed)| {
            let y = y.as_slice_mut().expect(CONTIGUOUS).chunks_exact_mut(self.config.head_dim);
            let x = mixed.to_slice().expect(CONTIGUOUS).chunks_exact(self.config.head_dim);
            y.zip(x).zip(&self.skip).for_each(|((y, x), &skip)| elementwise::add_scaled(y, skip, x));
        });
        y
    }

    /// w norm(y SiLU(gate)), all `[tokens, heads * head_dim]`.
    fn gated_norm(&self, y: &Array2<T>, gate: &Array2<T>) -> Array2<T> {
        let gated = activation::gated_by(Silu, gate, y);
        let mut normed = self.norm.forward(gated.view());
        T::recycle(gated);
        self.scale_channels(&mut normed);
        normed
    }

    /// The gradients of y and of the gate from that of [`Self::gated_norm`].
    fn gated_norm_backward(
        &self,
        mut d: Array2<T>,
        y: Array2<T>,
        gate: &SavedActivation<T>,
    ) -> (Array2<T>, Array2<T>) {
        self.scale_channels(&mut d);
        let gated = activation::gated_by(Silu, &gate.to_array(d.ncols()), &y);
        let mut dy = Array2::zeros(d.dim());
        self.norm.backward(&SavedActivation::Full(gated), d.view(), &mut dy);
        T::recycle(d);
        let dgate = activation::gated_by_backward(Silu, gate, &SavedActivation::Full(y), &mut dy);
        (dy, dgate)
    }

    fn scale_channels(&self, x: &mut Array2<T>) {
        x.axis_iter_mut(Axis(0)).into_par_iter().for_each(|mut row| {
            row.iter_mut().zip(&self.norm_factors).for_each(|(x, &factor)| *x *= factor);
        });
    }
}
