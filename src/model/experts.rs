//! A mixture of experts (Shazeer et al. 2017, arXiv 1701.06538; Mixtral, arXiv 2401.04088): every token goes through the
//! few feed-forward parts that its router likes best. All of it is frozen, but gradients go through, the router's too.

use ndarray::{Array2, ArrayView2, Axis};
use rayon::prelude::*;

use super::feed_forward;
use super::linear::Linear;
use crate::arch::Activation;
use crate::kernels::{Precision, Real, Stored, elementwise};

const CONTIGUOUS: &str = "activations are row-major";
const WANTED: &str = "a gradient that was asked for";

/// The frozen experts of a block.
#[derive(Clone, Debug)]
pub struct Experts<'a, T: Real> {
    /// `[experts, d_model]`.
    pub router: Linear<'a, T>,
    /// One feed-forward part each.
    pub experts: Vec<Expert<'a, T>>,
    /// How many of them a token goes through.
    pub used: usize,
    /// Whether their weights are made to sum to 1.
    pub normalized: bool,
    /// Their nonlinearity.
    pub activation: Activation,
}

/// One gated feed-forward part.
#[derive(Clone, Debug)]
pub struct Expert<'a, T: Real> {
    /// `[ff, d_model]`.
    pub gate: Linear<'a, T>,
    /// `[ff, d_model]`.
    pub up: Linear<'a, T>,
    /// `[d_model, ff]`.
    pub down: Linear<'a, T>,
}

/// What the backward pass needs of the forward pass.
#[derive(Debug)]
pub struct Kept<T: Real> {
    /// The router's softmax, `[tokens, experts]`.
    probabilities: Array2<T>,
    /// The tokens of each expert.
    visits: Vec<Visit<T>>,
}

/// The tokens that go through one expert, in order.
#[derive(Debug)]
struct Visit<T: Real> {
    tokens: Vec<usize>,
    /// What the expert's output is multiplied by for each of them.
    weights: Vec<T>,
    /// `[tokens here, ff]` both, when kept.
    gate_up: Option<[Stored<T>; 2]>,
}

#[cfg(test)]
impl<T: Real> Kept<T> {
    /// How many bytes of activations it holds.
    pub fn bytes(&self) -> u64 {
        let whole = self.probabilities.len() * size_of::<T>();
        whole as u64 + self.visits.iter().flat_map(|v| &v.gate_up).flatten().map(Stored::bytes).sum::<u64>()
    }
}

impl<'a, T: Real> Experts<'a, T> {
    /// All matrices.
    pub fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear<'a, T>> {
        let experts = self.experts.iter_mut().flat_map(|e| [&mut e.gate, &mut e.up, &mut e.down]);
        std::iter::once(&mut self.router).chain(experts)
    }

    /// Numbers that are kept of a token for the backward pass: those that may be rounded, and others.
    pub fn kept_numbers(&self) -> (usize, usize) {
        let ff = self.experts.first().map_or(0, |expert| expert.up.weight().rows());
        (2 * ff * self.used, self.experts.len())
    }

    /// x `[tokens, d_model]`, normed, to the same; and what is kept of it for products of the given precision.
    pub fn forward(&self, x: ArrayView2<T>, keep: Option<Precision>) -> (Array2<T>, Option<Kept<T>>) {
        let (mut probabilities, _) = self.router.forward(&self.router.input(x));
        probabilities.axis_iter_mut(Axis(0)).into_par_iter().for_each(|mut row| {
            let row = row.as_slice_mut().expect(CONTIGUOUS);
            let max = elementwise::max(T::neg_infinity(), row);
            let sum = elementwise::exp_shifted(row, T::one(), max);
            elementwise::scale(row, T::one() / sum);
        });
        let mut visits = self.visits(&probabilities);
        let mut y = Array2::zeros(x.dim());
        for (expert, visit) in self.experts.iter().zip(&mut visits) {
            if visit.tokens.is_empty() {
                continue;
            }
            let own = x.select(Axis(0), &visit.tokens);
            let rows = expert.up.input(own.view());
            let (gate, _) = expert.gate.forward(&rows);
            let (up, _) = expert.up.forward(&rows);
            drop(rows);
            let a = feed_forward::forward(self.activation, Some(&gate), &up, expert.down.precision());
            let (out, _) = expert.down.forward(&a);
            for ((&token, &weight), out) in visit.tokens.iter().zip(&visit.weights).zip(out.rows()) {
                y.row_mut(token).scaled_add(weight, &out);
            }
            visit.gate_up = keep.map(|precision| [gate, up].map(|x| Stored::keep(x, precision)));
        }
        (y, keep.map(|_| Kept { probabilities, visits }))
    }

    /// Which tokens go through each expert: those of the greatest probabilities, of equal ones the first.
    fn visits(&self, probabilities: &Array2<T>) -> Vec<Visit<T>> {
        let visit = || Visit { tokens: Vec::new(), weights: Vec::new(), gate_up: None };
        let mut visits: Vec<Visit<T>> = self.experts.iter().map(|_| visit()).collect();
        for (token, row) in probabilities.rows().into_iter().enumerate() {
            let mut order: Vec<usize> = (0..row.len()).collect();
            let descending = |a: &usize, b: &usize| row[*b].as_f64().total_cmp(&row[*a].as_f64());
            order.sort_by(descending);
            order.truncate(self.used);
            let sum = if self.normalized { order.iter().map(|&e| row[e]).sum() } else { T::one() };
            for expert in order {
                visits[expert].tokens.push(token);
                visits[expert].weights.push(row[expert] / sum);
            }
        }
        visits
    }

    /// dL/dx `[tokens, d_model]` from g = dL/dy. With out_e the output of an expert and w_e its weight, y = sum w_e out_e:
    /// dL/dw_e = g out_e = (W_down^T g) a_e, so that out_e need not be kept.
    pub fn backward(&self, g: ArrayView2<T>, kept: Kept<T>) -> Array2<T> {
        let Kept { probabilities, visits } = kept;
        let mut dx = Array2::zeros(g.dim());
        // None where a token does not go through an expert.
        let mut dweights = Array2::<Option<T>>::default(probabilities.dim());
        for (e, (expert, visit)) in self.experts.iter().zip(visits).enumerate() {
            let Some([gate, up]) = visit.gate_up else { continue };
            let mut da = None;
            expert.down.backward(g.select(Axis(0), &visit.tokens).into(), None, &mut [], Some(&mut da));
            let mut da = da.expect(WANTED);
            let ff = da.ncols();
            let dots: Vec<T> = da
                .axis_iter_mut(Axis(0))
                .into_par_iter()
                .zip(&visit.weights)
                .enumerate()
                .map(|(i, (mut da, &weight))| {
                    let (mut gates, mut ups, mut a) = (Vec::new(), Vec::new(), vec![T::zero(); ff]);
                    let range = i * ff..(i + 1) * ff;
                    let gate = gate.get(range.clone(), &mut gates);
                    feed_forward::value(self.activation, Some(gate), up.get(range, &mut ups), &mut a);
                    let da = da.as_slice_mut().expect(CONTIGUOUS);
                    let dot = elementwise::dot(da, &a);
                    elementwise::scale(da, weight);
                    dot
                })
                .collect();
            for (&token, dot) in visit.tokens.iter().zip(dots) {
                dweights[[token, e]] = Some(dot);
            }
            let (dgate, dup) = feed_forward::backward(self.activation, Some(&gate), &up, da);
            let mut down = None;
            expert.gate.backward(dgate.expect(WANTED).into(), None, &mut [], Some(&mut down));
            expert.up.backward(dup.into(), None, &mut [], Some(&mut down));
            for (&token, d) in visit.tokens.iter().zip(down.expect(WANTED).rows()) {
                let mut dx = dx.row_mut(token);
                dx += &d;
            }
        }
        let dlogits = self.router_backward(probabilities, &dweights);
        let mut through_router = None;
        self.router.backward(dlogits.into(), None, &mut [], Some(&mut through_router));
        dx += &through_router.expect(WANTED);
        dx
    }

    /// dL/dlogits of the router from dL/dw of the experts that are gone through: w = p / sum p over those, or w = p; p is
    /// the softmax.
    fn router_backward(&self, mut p: Array2<T>, dw: &Array2<Option<T>>) -> Array2<T> {
        for (mut p, dw) in p.rows_mut().into_iter().zip(dw.rows()) {
            let used = || dw.iter().zip(&p).filter_map(|(dw, &p)| dw.map(|dw| (dw, p)));
            let sum: T = if self.normalized { used().map(|(_, p)| p).sum() } else { T::one() };
            let mean: T = if self.normalized { used().map(|(dw, p)| dw * p / sum).sum() } else { T::zero() };
            let dp: Vec<T> = dw.iter().map(|dw| dw.map_or(T::zero(), |dw| (dw - mean) / sum)).collect();
            let pull: T = dp.iter().zip(&p).map(|(&dp, &p)| dp * p).sum();
            p.iter_mut().zip(dp).for_each(|(p, dp)| *p *= dp - pull);
        }
        p
    }
}
