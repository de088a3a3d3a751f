//! An MLP that every token goes through beside a mixture of experts, each with norms of its own (Gemma 4's 26B):
//! norm_1(MLP(h)) + norm_2(experts(norm_in(x))), with x the residual stream, h the normed stream, and a router that reads
//! the stream through a norm of its own.

use ndarray::{Array2, ArrayView2};

use super::mixture::{MixtureActivations, MixtureOfExperts};
use super::mlp::{Mlp, MlpActivations};
use super::norm::{self, Norm};
use super::residual::add;
use super::terms::TermSink;
use crate::kernels::{Precision, Real, SavedActivation};

/// The frozen weights, and the terms of the MLP's matrices.
#[derive(Clone, Debug)]
pub struct MlpAndExperts<'a, T: Real> {
    /// The MLP.
    pub mlp: Mlp<'a, T>,
    /// Of the MLP's output.
    pub mlp_norm: Norm<T>,
    /// The experts that a router chooses.
    pub experts: MixtureOfExperts<'a, T>,
    /// Of the stream, for the experts.
    pub input_norm: Norm<T>,
    /// Of the experts' output.
    pub output_norm: Norm<T>,
    /// Of the stream, for the router.
    pub router_norm: Norm<T>,
}

/// What the backward pass needs of the forward pass.
#[derive(Debug)]
pub struct MlpAndExpertsActivations<T: Real> {
    mlp: MlpActivations<T>,
    experts: MixtureActivations<T>,
    /// The outputs of both before their norms, `[tokens, d_model]`.
    outs: [SavedActivation<T>; 2],
}

#[cfg(test)]
impl<T: Real> MlpAndExpertsActivations<T> {
    /// The bytes of activations that it holds.
    pub fn bytes(&self) -> u64 {
        self.mlp.bytes() + self.experts.bytes() + self.outs.iter().map(SavedActivation::bytes).sum::<u64>()
    }
}

/// The output `[tokens, d_model]`; the activations, if saved; and the z of the down projection's term.
type Forward<T> = (Array2<T>, Option<MlpAndExpertsActivations<T>>, Option<Array2<T>>);

impl<T: Real> MlpAndExperts<'_, T> {
    /// How many numbers of matrices a token is multiplied with.
    pub fn parameters_per_token(&self) -> u64 {
        let mlp: u64 = self.mlp.matrices().map(|linear| linear.weight().parameters()).sum();
        mlp + self.experts.parameters_per_token()
    }

    /// Values saved of a token for the backward pass: those that may be rounded to bfloat16, and others. Those of terms
    /// are not among them.
    pub fn activation_values(&self) -> (usize, usize) {
        let (experts, full) = self.experts.activation_values();
        (self.mlp.activation_values() + 2 * self.mlp.down.weight().rows() + experts, full)
    }

    /// From the stream x `[tokens, d_model]`, which the MLP reads through `norm`. With a precision, also the activations,
    /// saved for products of that precision.
    pub fn forward(&self, x: ArrayView2<T>, norm: Option<&Norm<T>>, save: Option<Precision>) -> Forward<T> {
        let packed = norm::pack(norm, x, self.mlp.up.precision());
        let (a, mlp) = self.mlp.forward(&packed, save);
        drop(packed);
        let (mlp_out, zdown) = self.mlp.down.forward(&a);
        drop(a);
        let [experts_in, router_in] = [&self.input_norm, &self.router_norm].map(|norm| norm.forward(x));
        let (experts_out, experts) = self.experts.forward(experts_in.view(), router_in.view(), save);
        let mut y = self.mlp_norm.forward(mlp_out.view());
        let normed = self.output_norm.forward(experts_out.view());
        add(&mut y, normed.view());
        [experts_in, router_in, normed].into_iter().for_each(T::recycle);
        let saved = save.zip(mlp).zip(experts).map(|((precision, mlp), experts)| {
            let outs = [mlp_out, experts_out].map(|out| SavedActivation::save(out, precision));
            MlpAndExpertsActivations { mlp, experts, outs }
        });
        (y, saved, zdown)
    }

    /// From g = dL/dy, what the down projection's term saved, the stream, and h if the MLP reads it: dL/dh, and dL/dx
    /// beside what goes through h, `[tokens, d_model]` each. Gives the gradients of terms to `sink`.
    pub fn backward(
        &self,
        g: ArrayView2<T>,
        saved: MlpAndExpertsActivations<T>,
        zdown: Option<&Array2<T>>,
        (stream, h): (&SavedActivation<T>, Option<ArrayView2<T>>),
        sink: &mut dyn TermSink<T>,
    ) -> [Array2<T>; 2] {
        let MlpAndExpertsActivations { mlp, experts, outs } = saved;
        let through = |norm: &Norm<T>, x: &SavedActivation<T>| {
            let mut dx = Array2::zeros(g.dim());
            norm.backward(x, g, &mut dx);
            dx
        };
        let dmlp = through(&self.mlp_norm, &outs[0]);
        let dh = self.mlp.backward(dmlp.into(), mlp, zdown, h, sink);
        let dexperts = through(&self.output_norm, &outs[1]);
        let [dinput, drouter] = self.experts.backward(dexperts.view(), experts, None, sink);
        let mut dx = Array2::zeros(g.dim());
        self.input_norm.backward(stream, dinput.view(), &mut dx);
        self.router_norm.backward(stream, drouter.view(), &mut dx);
        [dexperts, dinput, drouter].into_iter().for_each(T::recycle);
        [dh, dx]
    }
}
