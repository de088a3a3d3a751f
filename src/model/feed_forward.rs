//! The feed-forward network (FFN) of a block: one dense MLP, or a mixture of experts.

use ndarray::{Array2, ArrayView2, CowArray, Ix2};

use super::linear::Linear;
use super::mixture::{MixtureActivations, MixtureOfExperts};
use super::mlp::{Mlp, MlpActivations};
use super::mlp_and_experts::{MlpAndExperts, MlpAndExpertsActivations};
use super::norm::{self, Norm};
use super::residual::Residual;
use super::terms::TermSink;
use crate::kernels::{Precision, Real, SavedActivation};

/// The second part of a block.
#[derive(Clone, Debug)]
pub enum FeedForward<'a, T: Real> {
    /// One MLP for all tokens.
    Mlp(Box<Mlp<'a, T>>),
    /// Several MLPs, of which a router chooses a few for each token.
    Mixture(Box<MixtureOfExperts<'a, T>>),
    /// One MLP for all tokens beside such a mixture, each with norms of its own.
    Both(Box<MlpAndExperts<'a, T>>),
}

/// The activations that the backward pass needs.
#[derive(Debug)]
pub enum FeedForwardActivations<T: Real> {
    /// Of an MLP.
    Mlp(Box<MlpActivations<T>>),
    /// Of a mixture of experts.
    Mixture(Box<MixtureActivations<T>>),
    /// Of an MLP and of a mixture of experts beside it.
    Both(Box<MlpAndExpertsActivations<T>>),
}

#[cfg(test)]
impl<T: Real> FeedForwardActivations<T> {
    /// The bytes of activations that it holds.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Mlp(saved) => saved.bytes(),
            Self::Mixture(saved) => saved.bytes(),
            Self::Both(saved) => saved.bytes(),
        }
    }
}

/// The activations, if saved; the z of the down projection's term; and the output, where a norm follows it.
type Saved<T> = (Option<FeedForwardActivations<T>>, Option<Array2<T>>, Option<Array2<T>>);

impl<'a, T: Real> FeedForward<'a, T> {
    /// The MLP that all tokens go through. Its matrices may have terms; those of other experts are always frozen.
    fn for_all(&self) -> Option<&Mlp<'a, T>> {
        match self {
            Self::Mlp(mlp) => Some(mlp),
            Self::Mixture(mixture) => mixture.shared.as_ref().map(|shared| &shared.mlp),
            Self::Both(both) => Some(&both.mlp),
        }
    }

    /// [`Self::for_all`], to be changed.
    fn for_all_mut(&mut self) -> Option<&mut Mlp<'a, T>> {
        match self {
            Self::Mlp(mlp) => Some(mlp),
            Self::Mixture(mixture) => mixture.shared.as_mut().map(|shared| &mut shared.mlp),
            Self::Both(both) => Some(&mut both.mlp),
        }
    }

    /// The matrix of this role: `gate`, `up` or `down`.
    pub fn linear_mut(&mut self, role: &str) -> Option<&mut Linear<'a, T>> {
        let mlp = self.for_all_mut()?;
        match role {
            "gate" => mlp.gate.as_mut(),
            "up" => Some(&mut mlp.up),
            "down" => Some(&mut mlp.down),
            _ => None,
        }
    }

    /// The matrices that may have a term, in the order in which a pass reads them; the last one is `down`.
    pub fn adaptable_mut(&mut self) -> Vec<&mut Linear<'a, T>> {
        self.for_all_mut().into_iter().flat_map(Mlp::matrices_mut).collect()
    }

    /// [`Self::adaptable_mut`], shared.
    pub fn adaptable(&self) -> Vec<&Linear<'a, T>> {
        self.for_all().into_iter().flat_map(Mlp::matrices).collect()
    }

    /// How many numbers of matrices a token is multiplied with.
    pub fn parameters_per_token(&self) -> u64 {
        match self {
            Self::Mlp(mlp) => mlp.matrices().map(|linear| linear.weight().parameters()).sum(),
            Self::Mixture(mixture) => mixture.parameters_per_token(),
            Self::Both(both) => both.parameters_per_token(),
        }
    }

    /// Calls `change` with every matrix.
    pub fn each_linear_mut(&mut self, change: &mut dyn FnMut(&mut Linear<'a, T>)) {
        match self {
            Self::Mlp(mlp) => mlp.matrices_mut().for_each(change),
            Self::Mixture(mixture) => mixture.linears_mut().for_each(change),
            Self::Both(both) => both.mlp.matrices_mut().chain(both.experts.linears_mut()).for_each(change),
        }
    }

    /// Values saved of a token for the backward pass: those that may be rounded to bfloat16, and others.
    pub fn activation_values(&self) -> (usize, usize) {
        match self {
            Self::Mlp(mlp) => (mlp.activation_values(), 0),
            Self::Mixture(mixture) => mixture.activation_values(),
            Self::Both(both) => both.activation_values(),
        }
    }

    /// Adds the network's output for the normed `input`, or the normed x, to x `[tokens, d_model]` through the
    /// residual connection. With a precision, also saves the activations for products of that precision.
    pub fn add_to(
        &self,
        x: &mut Array2<T>,
        input: Option<&Array2<T>>,
        norm: Option<&Norm<T>>,
        residual: &Residual<T>,
        save: Option<Precision>,
    ) -> Saved<T> {
        match self {
            Self::Mlp(mlp) => {
                let packed = norm::pack(norm, input.unwrap_or(x).view(), mlp.up.precision());
                let (a, saved) = mlp.forward(&packed, save);
                drop(packed);
                let (zdown, out) = residual.add_product(x, &mlp.down, &a);
                (saved.map(|saved| FeedForwardActivations::Mlp(Box::new(saved))), zdown, out)
            }
            Self::Mixture(mixture) => {
                let input = input.unwrap_or(x);
                let normed = norm.map(|norm| norm.forward(input.view()));
                let normed = normed.as_ref().unwrap_or(input).view();
                let (y, saved) = mixture.forward(normed, normed, save);
                let out = residual.add(x, y);
                (saved.map(|saved| FeedForwardActivations::Mixture(Box::new(saved))), None, out)
            }
            Self::Both(both) => {
                let (y, saved, zdown) = both.forward(input.unwrap_or(x).view(), norm, save);
                let out = residual.add(x, y);
                (saved.map(|saved| FeedForwardActivations::Both(Box::new(saved))), zdown, out)
            }
        }
    }

    /// Whether [`Self::backward`] needs the normed input.
    pub fn reads_input(&self) -> bool {
        self.for_all().is_some_and(Mlp::reads_input)
    }

    /// dL/dh `[tokens, d_model]` with respect to the normed input h, from g = dL/dy, what the down projection's term
    /// saved, the input before its norm, and h if the network [reads it](Self::reads_input); and dL/d(input) beside what
    /// goes through h, if there is any. Gives the gradients of terms to `sink`.
    pub fn backward(
        &self,
        g: CowArray<T, Ix2>,
        saved: FeedForwardActivations<T>,
        zdown: Option<&Array2<T>>,
        (input, h): (&SavedActivation<T>, Option<ArrayView2<T>>),
        sink: &mut dyn TermSink<T>,
    ) -> (Array2<T>, Option<Array2<T>>) {
        match (self, saved) {
            (Self::Mlp(mlp), FeedForwardActivations::Mlp(saved)) => {
                (mlp.backward(g, *saved, zdown, h, sink), None)
            }
            (Self::Mixture(mixture), FeedForwardActivations::Mixture(saved)) => {
                let [mut dh, through_router] = mixture.backward(g.view(), *saved, h, sink);
                dh += &through_router;
                (dh, None)
            }
            (Self::Both(both), FeedForwardActivations::Both(saved)) => {
                let [dh, dinput] = both.backward(g.view(), *saved, zdown, (input, h), sink);
                (dh, Some(dinput))
            }
            _ => unreachable!("the activations are those of this network"),
        }
    }
}
