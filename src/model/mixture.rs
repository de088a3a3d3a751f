//! A sparse mixture of experts (Shazeer et al. 2017, arXiv 1701.06538; Mixtral, arXiv 2401.04088): a router
//! sends each token through its top-k of the experts, each an MLP. Their weights are frozen; gradients pass
//! through the experts and through the router. Every token may go through a further MLP, which can be adapted.

use ndarray::{Array2, ArrayView2, Axis};
use rayon::prelude::*;

use super::activation;
use super::linear::Linear;
use super::router::Router;
use super::shared_expert::{SharedExpert, SharedExpertActivations};
use super::terms::TermSink;
use crate::kernels::{Precision, Real, SavedActivation, elementwise, reduce};

const CONTIGUOUS: &str = "activations are row-major";
const WANTED: &str = "a gradient that was asked for";

/// The frozen experts of a block.
#[derive(Clone, Debug)]
pub struct MixtureOfExperts<'a, T: Real> {
    /// It chooses a token's experts.
    pub router: Router<'a, T>,
    /// The MLPs.
    pub experts: Vec<Expert<'a, T>>,
    /// The activation function of the experts.
    pub activation: activation::Function,
    /// `[latent, d_model]` and `[d_model, latent]`: what makes the experts' input of x, and the output of theirs, where they
    /// have a stream of their own.
    pub latent: Option<[Linear<'a, T>; 2]>,
    /// The expert that every token goes through.
    pub shared: Option<SharedExpert<'a, T>>,
}

/// One MLP.
#[derive(Clone, Debug)]
pub struct Expert<'a, T: Real> {
    /// `[ff, d_model]`, if it is gated.
    pub gate: Option<Linear<'a, T>>,
    /// `[ff, d_model]`.
    pub up: Linear<'a, T>,
    /// `[d_model, ff]`.
    pub down: Linear<'a, T>,
}

/// What the backward pass needs of the forward pass.
#[derive(Debug)]
pub struct MixtureActivations<T: Real> {
    /// The router's probabilities, `[tokens, experts]`.
    probabilities: Array2<T>,
    /// The tokens of each expert.
    assignments: Vec<Assignment<T>>,
    shared: Option<SharedExpertActivations<T>>,
}

/// The tokens that are routed to one expert, in order.
#[derive(Debug)]
struct Assignment<T: Real> {
    tokens: Vec<usize>,
    /// The factor of the expert's output for each of them.
    weights: Vec<T>,
    /// The outputs of gate, if the expert has one, and up, `[tokens here, ff]` each, when saved.
    gate_up: Option<(Option<SavedActivation<T>>, SavedActivation<T>)>,
}

#[cfg(test)]
impl<T: Real> MixtureActivations<T> {
    /// The bytes of activations that it holds.
    pub fn bytes(&self) -> u64 {
        let full = self.probabilities.len() * size_of::<T>();
        full as u64
            + self
                .assignments
                .iter()
                .flat_map(|v| &v.gate_up)
                .flat_map(|(gate, up)| gate.iter().chain([up]))
                .map(SavedActivation::bytes)
                .sum::<u64>()
            + self.shared.as_ref().map_or(0, SharedExpertActivations::bytes)
    }
}

impl<'a, T: Real> MixtureOfExperts<'a, T> {
    /// All matrices.
    pub fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear<'a, T>> {
        let experts = self.experts.iter_mut().flat_map(|e| e.gate.iter_mut().chain([&mut e.up, &mut e.down]));
        let shared = self.shared.iter_mut().flat_map(SharedExpert::linears_mut);
        let latent = self.latent.iter_mut().flatten();
        std::iter::once(&mut self.router.matrix).chain(latent).chain(experts).chain(shared)
    }

    /// How many numbers of matrices a token is multiplied with: those of the router and of its experts.
    pub fn parameters_per_token(&self) -> u64 {
        let expert = |e: &Expert<'_, T>| {
            e.gate.iter().chain([&e.up, &e.down]).map(|linear| linear.weight().parameters()).sum()
        };
        let latent = self.latent.iter().flatten().map(|linear| linear.weight().parameters());
        self.router.matrix.weight().parameters()
            + latent.sum::<u64>()
            + self.router.top_k as u64 * self.experts.first().map_or(0, expert)
            + self.shared.as_ref().map_or(0, SharedExpert::parameters_per_token)
    }

    /// Values saved of a token for the backward pass: those that may be rounded to bfloat16, and others.
    pub fn activation_values(&self) -> (usize, usize) {
        let of_expert =
            |e: &Expert<'_, T>| e.gate.iter().chain([&e.up]).map(|linear| linear.weight().rows()).sum();
        let inner: usize = self.experts.first().map_or(0, of_expert);
        let (shared, full) = self.shared.as_ref().map_or((0, 0), SharedExpert::activation_values);
        (inner * self.router.top_k + shared, self.experts.len() + full)
    }

    /// x `[tokens, d_model]`, normed, to y `[tokens, d_model]`, with the router's input, which may be x. With a precision,
    /// also the activations, saved for products of that precision.
    pub fn forward(
        &self,
        x: ArrayView2<T>,
        router_input: ArrayView2<T>,
        save: Option<Precision>,
    ) -> (Array2<T>, Option<MixtureActivations<T>>) {
        let probabilities = self.router.probabilities(router_input);
        let mut assignments = self.route(&probabilities);
        let own = self.latent.as_ref().map(|[down, _]| down.forward(&down.input(x)).0);
        let read = own.as_ref().map_or(x, |own| own.view());
        let mut y = Array2::zeros(read.dim());
        for (expert, assignment) in self.experts.iter().zip(&mut assignments) {
            if assignment.tokens.is_empty() {
                continue;
            }
            let own = read.select(Axis(0), &assignment.tokens);
            let rows = expert.up.input(own.view());
            let gate = expert.gate.as_ref().map(|gate| gate.forward(&rows).0);
            let (up, _) = expert.up.forward(&rows);
            drop(rows);
            let a = activation::forward(self.activation, gate.as_ref(), &up, expert.down.precision());
            let (out, _) = expert.down.forward(&a);
            for ((&token, &weight), out) in assignment.tokens.iter().zip(&assignment.weights).zip(out.rows())
            {
                y.row_mut(token).scaled_add(weight, &out);
            }
            assignment.gate_up = save.map(|precision| {
                let saved = |x| SavedActivation::save(x, precision);
                (gate.map(saved), saved(up))
            });
        }
        let mut y = match &self.latent {
            Some([_, up]) => up.forward(&up.input(y.view())).0,
            None => y,
        };
        let shared = self.shared.as_ref().and_then(|shared| shared.add_to(&mut y, x, save));
        (y, save.map(|_| MixtureActivations { probabilities, assignments, shared }))
    }

    /// The tokens of each expert.
    fn route(&self, probabilities: &Array2<T>) -> Vec<Assignment<T>> {
        let assignment = || Assignment { tokens: Vec::new(), weights: Vec::new(), gate_up: None };
        let mut assignments: Vec<Assignment<T>> = self.experts.iter().map(|_| assignment()).collect();
        for (token, row) in probabilities.rows().into_iter().enumerate() {
            for (expert, weight) in self.router.chosen(row.to_slice().expect(CONTIGUOUS)) {
                assignments[expert].tokens.push(token);
                assignments[expert].weights.push(weight);
            }
        }
        assignments
    }

    /// dL/dx and dL/d(router's input), `[tokens, d_model]` each, from g = dL/dy. With out_e the output of expert e and w_e its weight,
    /// y = sum w_e out_e. dL/dw_e = g out_e = (W_down^T g) a_e + g b_down, so out_e is not saved. x, normed, is given if
    /// the shared expert reads it; `sink` gets the gradients of its terms.
    pub fn backward(
        &self,
        g: ArrayView2<T>,
        saved: MixtureActivations<T>,
        x: Option<ArrayView2<T>>,
        sink: &mut dyn TermSink<T>,
    ) -> [Array2<T>; 2] {
        let MixtureActivations { probabilities, assignments, shared } = saved;
        let through_latent = |linear: &Linear<'_, T>, g: ArrayView2<T>| {
            let mut dx = None;
            linear.backward_frozen(g.into(), &mut dx);
            dx.expect(WANTED)
        };
        let own = self.latent.as_ref().map(|[_, up]| through_latent(up, g));
        let dread = own.as_ref().map_or(g, |own| own.view());
        let mut dx = Array2::zeros(dread.dim());
        // None where a token is not routed to the expert.
        let mut dweights = Array2::<Option<T>>::default(probabilities.dim());
        for (e, (expert, assignment)) in self.experts.iter().zip(assignments).enumerate() {
            let Some((gate, up)) = assignment.gate_up else { continue };
            let own = dread.select(Axis(0), &assignment.tokens);
            let of_bias: Vec<T> = match expert.down.bias() {
                Some(bias) => own
                    .rows()
                    .into_iter()
                    .map(|g| reduce::dot(g.to_slice().expect(CONTIGUOUS), bias))
                    .collect(),
                None => vec![T::zero(); own.nrows()],
            };
            let mut da = None;
            expert.down.backward_frozen(own.into(), &mut da);
            let mut da = da.expect(WANTED);
            let ff = da.ncols();
            let dots: Vec<T> = da
                .axis_iter_mut(Axis(0))
                .into_par_iter()
                .zip(&assignment.weights)
                .enumerate()
                .map(|(i, (mut da, &weight))| {
                    let (mut gates, mut ups, mut a) = (Vec::new(), Vec::new(), vec![T::zero(); ff]);
                    let range = i * ff..(i + 1) * ff;
                    let gate = gate.as_ref().map(|gate| gate.get(range.clone(), &mut gates));
                    activation::value(self.activation, gate, up.get(range, &mut ups), &mut a);
                    let da = da.as_slice_mut().expect(CONTIGUOUS);
                    let dot = reduce::dot(da, &a);
                    elementwise::scale(da, weight);
                    dot
                })
                .collect();
            for ((&token, dot), of_bias) in assignment.tokens.iter().zip(dots).zip(of_bias) {
                dweights[[token, e]] = Some(dot + of_bias);
            }
            let (dgate, dup) = activation::backward(self.activation, gate.as_ref(), &up, da);
            let mut dx_here = None;
            if let Some((gate, dgate)) = expert.gate.as_ref().zip(dgate) {
                gate.backward_frozen(dgate.into(), &mut dx_here);
            }
            expert.up.backward_frozen(dup.into(), &mut dx_here);
            for (&token, d) in assignment.tokens.iter().zip(dx_here.expect(WANTED).rows()) {
                let mut dx = dx.row_mut(token);
                dx += &d;
            }
        }
        if let Some([down, _]) = &self.latent {
            dx = through_latent(down, dx.view());
        }
        let through_router = self.router.backward(probabilities, &dweights);
        if let (Some(shared), Some(saved)) = (&self.shared, shared) {
            dx += &shared.backward(g, saved, x, sink);
        }
        [dx, through_router]
    }
}
