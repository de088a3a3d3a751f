//! The router of a mixture of experts (Shazeer et al. 2017, arXiv 1701.06538): which experts a token goes through,
//! and the weight of each. With the logits l = W x, the probabilities p are their softmax or, each for itself, their
//! sigmoid (DeepSeek-V3, arXiv 2412.19437). The experts of the largest p + b are chosen, with a bias b that has a say
//! in nothing else (arXiv 2408.15664), and their weights are f p / (a + sum of the chosen p), or f p.

use ndarray::{Array2, ArrayView2, Axis};
use rayon::prelude::*;

use super::linear::Linear;
use crate::arch::Gating;
use crate::kernels::activation::sigmoid;
use crate::kernels::{Real, elementwise, reduce, softmax};

const CONTIGUOUS: &str = "activations are row-major";
const WANTED: &str = "a gradient that was asked for";

/// The frozen router of a block.
#[derive(Clone, Debug)]
pub struct Router<'a, T: Real> {
    /// `[experts, d_model]`.
    pub matrix: Linear<'a, T>,
    /// What makes p of the logits.
    pub gating: Gating,
    /// b, `[experts]`.
    pub selection_bias: Option<Vec<T>>,
    /// The groups that the experts are divided into, and how many of them a token's experts are in: those whose two best
    /// experts have the largest sums.
    pub groups: [usize; 2],
    /// How many experts a token goes through.
    pub top_k: usize,
    /// Whether the weights are divided by the sum of the chosen p.
    pub normalized: bool,
    /// a.
    pub added_to_sum: T,
    /// f.
    pub scale: T,
    /// Factors of the weights of each expert, `[experts]`.
    pub scales: Option<Vec<T>>,
}

impl<T: Real> Router<'_, T> {
    /// p `[tokens, experts]` from x `[tokens, d_model]`.
    pub fn probabilities(&self, x: ArrayView2<T>) -> Array2<T> {
        let (mut p, _) = self.matrix.forward(&self.matrix.input(x));
        p.axis_iter_mut(Axis(0)).into_par_iter().for_each(|mut row| {
            let row = row.as_slice_mut().expect(CONTIGUOUS);
            match self.gating {
                Gating::Sigmoid => row.iter_mut().for_each(|logit| *logit = sigmoid(*logit)),
                Gating::Softmax => {
                    let max = reduce::max(T::neg_infinity(), row);
                    let sum = softmax::exp_shifted(row, T::one(), max);
                    elementwise::scale(row, T::one() / sum);
                }
            }
        });
        p
    }

    /// The experts of a token, and their weights, from its p. Of equal experts, the first are chosen.
    pub fn chosen(&self, p: &[T]) -> Vec<(usize, T)> {
        let mut scores: Vec<f64> = p.iter().map(|p| p.as_f64()).collect();
        if let Some(bias) = &self.selection_bias {
            // In the precision of the pass, as other programs add it.
            scores = p.iter().zip(bias).map(|(&p, &bias)| (p + bias).as_f64()).collect();
        }
        let best = |scores: &[f64], count: usize| {
            let mut order: Vec<usize> = (0..scores.len()).collect();
            order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
            order.truncate(count);
            order
        };
        let [groups, used] = self.groups;
        if groups > 1 {
            let length = scores.len() / groups;
            let of_group = |own: &[f64]| best(own, 2).into_iter().map(|expert| own[expert]).sum();
            let of_groups: Vec<f64> = scores.chunks(length).map(of_group).collect();
            let kept = best(&of_groups, used);
            for (group, own) in scores.chunks_mut(length).enumerate() {
                if !kept.contains(&group) {
                    own.fill(f64::NEG_INFINITY);
                }
            }
        }
        let chosen = best(&scores, self.top_k);
        let sum = match self.normalized {
            true => chosen.iter().map(|&expert| p[expert]).sum::<T>() + self.added_to_sum,
            false => T::one(),
        };
        chosen.into_iter().map(|expert| (expert, p[expert] / sum * self.factor(expert))).collect()
    }

    /// The factor of an expert's weight.
    fn factor(&self, expert: usize) -> T {
        self.scales.as_ref().map_or(T::one(), |scales| scales[expert]) * self.scale
    }

    /// dL/dx `[tokens, d_model]` from p `[tokens, experts]` and the dL/dw of each token's experts, `None` elsewhere. With
    /// v = p / s without the factors, s = a + sum of the chosen p: dL/dp = (dL/dv - sum of dL/dv v) / s.
    pub fn backward(&self, mut p: Array2<T>, dw: &Array2<Option<T>>) -> Array2<T> {
        for (mut p, dw) in p.rows_mut().into_iter().zip(dw.rows()) {
            let own = |(expert, (&dw, &p)): (usize, (&Option<T>, &T))| Some((dw? * self.factor(expert), p));
            let chosen = || dw.iter().zip(&p).enumerate().filter_map(own);
            let (sum, mean): (T, T) = match self.normalized {
                true => {
                    let sum = chosen().map(|(_, p)| p).sum::<T>() + self.added_to_sum;
                    (sum, chosen().map(|(dv, p)| dv * p / sum).sum())
                }
                false => (T::one(), T::zero()),
            };
            let of_expert = |(expert, dw): (usize, &Option<T>)| {
                dw.map_or(T::zero(), |dw| (dw * self.factor(expert) - mean) / sum)
            };
            let dp: Vec<T> = dw.iter().enumerate().map(of_expert).collect();
            match self.gating {
                Gating::Softmax => {
                    let pull: T = dp.iter().zip(&p).map(|(&dp, &p)| dp * p).sum();
                    p.iter_mut().zip(dp).for_each(|(p, dp)| *p *= dp - pull);
                }
                Gating::Sigmoid => p.iter_mut().zip(dp).for_each(|(p, dp)| *p *= dp * (T::one() - *p)),
            }
        }
        let mut dx = None;
        self.matrix.backward_frozen(p.into(), &mut dx);
        dx.expect(WANTED)
    }
}
