//! The sublayer that mixes tokens: attention, or what stands in its place, and its output projection.

use ndarray::{Array2, ArrayView2};

use super::{norm_backward, scatter_rows};
use crate::kernels::{Precision, Real, SavedActivation};
use crate::model::attention::AttentionConfig;
use crate::model::linear::Linear;
use crate::model::mixer::{Mixer, MixerActivations, MixerCache};
use crate::model::norm::{self, Norm};
use crate::model::pass::Pass;
use crate::model::residual::Residual;
use crate::model::terms::TermSink;

const WANTED: &str = "a gradient that was asked for";

/// The frozen weights, and the terms of the matrices.
#[derive(Clone, Debug)]
pub struct MixingSublayer<'a, T: Real> {
    /// Of its input.
    pub norm: Option<Norm<T>>,
    /// What mixes the tokens.
    pub mixer: Mixer<'a, T>,
    /// The output projection.
    pub o: Linear<'a, T>,
    /// How its output is added.
    pub residual: Residual<T>,
}

/// The activations that the backward pass needs. The inputs of matrices are not among them.
#[derive(Debug)]
pub struct MixingActivations<T: Real> {
    of_all: OfAllRows<T>,
    of_output: OfOutputRows<T>,
}

/// The activations of all tokens.
#[derive(Debug)]
pub struct OfAllRows<T: Real> {
    /// The input, `[tokens, d_model]`.
    x: SavedActivation<T>,
    mixer: MixerActivations<T>,
}

/// The activations of the rows that the block returns.
#[derive(Debug)]
pub struct OfOutputRows<T: Real> {
    /// The heads' outputs, if the term of `o` reads them.
    attended: Option<SavedActivation<T>>,
    /// The output of `o`, if a norm follows.
    out: Option<SavedActivation<T>>,
    /// What the term of `o` saved.
    zo: Option<Array2<T>>,
}

impl<T: Real> MixingActivations<T> {
    /// Of the two steps of the forward pass.
    pub fn new(of_all: OfAllRows<T>, of_output: OfOutputRows<T>) -> Self {
        Self { of_all, of_output }
    }

    /// The bytes of activations that it holds.
    #[cfg(test)]
    pub fn bytes(&self) -> u64 {
        let OfOutputRows { attended, out, zo } = &self.of_output;
        let saved = std::iter::once(&self.of_all.x).chain(attended).chain(out);
        let z = zo.as_ref().map_or(0, Array2::len) * size_of::<T>();
        saved.map(SavedActivation::bytes).sum::<u64>() + self.of_all.mixer.bytes() + z as u64
    }
}

impl<'a, T: Real> MixingSublayer<'a, T> {
    /// The matrix of this role, such as `q` or `o`.
    pub fn linear_mut(&mut self, role: &str) -> Option<&mut Linear<'a, T>> {
        match role {
            "o" => Some(&mut self.o),
            _ => self.mixer.linear_mut(role),
        }
    }

    /// Its matrices, in the order in which a pass reads them; the last one is `o`.
    pub fn linears_mut(&mut self) -> Vec<&mut Linear<'a, T>> {
        let mut linears = self.mixer.inputs_mut();
        linears.push(&mut self.o);
        linears
    }

    /// [`Self::linears_mut`], shared.
    pub fn linears(&self) -> Vec<&Linear<'a, T>> {
        let mut linears = self.mixer.inputs();
        linears.push(&self.o);
        linears
    }

    /// Values saved of a token for the backward pass: those that may be rounded to bfloat16, and others. Those of terms
    /// are not among them.
    pub fn activation_values(&self, config: AttentionConfig) -> (usize, usize) {
        let d = self.o.weight().rows();
        let (mixer, full) = self.mixer.activation_values(config);
        let attended = if self.o.reads_input() { self.o.weight().cols() } else { 0 };
        let out = if self.residual.norm.is_some() { d } else { 0 };
        (d + mixer + attended + out, full)
    }

    /// x `[tokens, d_model]`, normed and packed.
    fn input(&self, x: ArrayView2<T>) -> T::PackedLhs<'static> {
        norm::pack(self.norm.as_ref(), x, self.mixer.precision())
    }

    /// The heads' outputs `[tokens, n]`, of which `o` reads n, from x `[tokens, d_model]`. With a precision, also the
    /// activations, saved for products of that precision.
    pub fn mix(
        &self,
        x: ArrayView2<T>,
        pass: &mut Pass<'_, T>,
        save: Option<Precision>,
    ) -> (Array2<T>, Option<OfAllRows<T>>) {
        let (attended, mixer) = self.mixer.forward(&self.input(x), pass, save);
        let saved = mixer.zip(save);
        let saved =
            saved.map(|(mixer, precision)| OfAllRows { x: SavedActivation::save_copy(x, precision), mixer });
        (attended, saved)
    }

    /// [`Self::mix`] of tokens that follow those in the cache, which gets them, too; see [`Mixer::extend`].
    pub fn extend(
        &self,
        x: ArrayView2<T>,
        cache: &mut MixerCache<T>,
        slots: &[usize],
        pass: &Pass<'_, T>,
    ) -> Array2<T> {
        self.mixer.extend(&self.input(x), cache, slots, pass)
    }

    /// Adds the projection of the heads' outputs to x `[rows, d_model]`. With a precision, also saves the activations for
    /// products of that precision.
    pub fn add_to(
        &self,
        x: &mut Array2<T>,
        attended: ArrayView2<T>,
        save: Option<Precision>,
    ) -> Option<OfOutputRows<T>> {
        let (zo, out) = self.residual.add_product(x, &self.o, &self.o.input(attended));
        save.map(|precision| OfOutputRows {
            attended: self.o.reads_input().then(|| SavedActivation::save_copy(attended, precision)),
            out: out.map(|out| SavedActivation::save(out, precision)),
            zo,
        })
    }

    /// The gradient of what the sublayer adds, from that of the sum `[rows, d_model]`.
    pub fn added_gradient(&self, dsum: ArrayView2<T>, saved: &MixingActivations<T>) -> Array2<T> {
        self.residual.backward(dsum, saved.of_output.out.as_ref()).into_owned()
    }

    /// From dsum = dL/d(x + what it adds) of these rows of the pass, or of all; and from the gradient of what it adds, if
    /// that is not [made of it](Self::added_gradient). Gives the gradients of terms to `sink`, and returns dL/dx
    /// `[tokens, d_model]` when `want_dx`.
    pub fn backward(
        &self,
        dsum: Array2<T>,
        dadded: Option<Array2<T>>,
        saved: MixingActivations<T>,
        (pass, rows): (&mut Pass<'_, T>, Option<&[usize]>),
        sink: &mut dyn TermSink<T>,
        want_dx: bool,
    ) -> Option<Array2<T>> {
        let MixingActivations {
            of_all: OfAllRows { x, mixer },
            of_output: OfOutputRows { attended, out, zo },
        } = saved;
        let d_model = self.o.weight().rows();
        let dout = match dadded {
            Some(dadded) => dadded.into(),
            None => self.residual.backward(dsum.view(), out.as_ref()),
        };
        let attended = attended.map(|attended| attended.to_array(self.o.weight().cols()));
        let attended = attended.as_ref().map(|attended| attended.view());
        let inputs = self.mixer.inputs();
        if !want_dx && !inputs.iter().any(|linear| linear.term.is_some()) {
            self.o.backward(dout, zo.as_ref(), attended, sink, None);
            return None;
        }
        let mut dattended = None;
        self.o.backward(dout, zo.as_ref(), attended, sink, Some(&mut dattended));
        let tokens = pass.tokens();
        let dattended = scatter_rows(dattended.expect(WANTED), rows, tokens);
        let reads = inputs.iter().any(|linear| linear.reads_input());
        let normed = reads.then(|| norm::input(self.norm.as_ref(), &x, d_model));
        let input = normed.as_ref().map(|normed| normed.view());
        let mut dnormed = None;
        self.mixer.backward(dattended, mixer, input, pass, sink, want_dx.then_some(&mut dnormed));
        dnormed.map(|dnormed| {
            let mut dx = scatter_rows(dsum, rows, tokens);
            norm_backward(self.norm.as_ref(), &x, dnormed, &mut dx);
            dx
        })
    }
}
