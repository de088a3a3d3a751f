//! Penalties on what the trained matrices change, so that the model keeps what it knew.

use ndarray::Array2;

use super::anchor::Anchor;
use super::data;
use super::fisher::{EarlierTasks, Fisher, WeightFisher};
use crate::model::{Batch, Transformer};

/// Strength of an earlier task beside that of the base. It is a loss like that of the present task, so the whole
/// strength would leave little room to learn.
const EARLIER: f32 = 0.25;

/// What is added to the loss.
#[derive(Clone, Debug)]
pub enum Penalty<'a> {
    /// `lambda / 2 u^T F u`: what the change costs by the [Fisher information](Fisher). No pass more a step.
    Fisher {
        /// F at U = 0.
        fisher: Fisher,
        /// Tasks that are to be kept as well, each with a quarter of the strength.
        earlier: Option<EarlierTasks>,
        /// The strength.
        lambda: f32,
    },
    /// The same for the matrices that a LoRA changes.
    WeightFisher {
        /// F at B = 0.
        fisher: WeightFisher,
        /// The factor of the LoRA's change.
        scale: f32,
        /// The strength.
        lambda: f32,
    },
    /// `lambda KL(base || adapted)` a token, on one text of the anchor a step.
    Replay(Box<Replay<'a>>),
}

/// The divergence from the base on texts that the model is to keep.
#[derive(Clone, Debug)]
pub struct Replay<'a> {
    /// The base.
    pub reference: Transformer<'a, f32>,
    /// The texts.
    pub anchor: Anchor,
    /// The strength.
    pub lambda: f64,
    /// Seed of the order of texts.
    pub seed: u64,
}

impl Penalty<'_> {
    /// Adds the penalty's gradient with respect to each trained matrix, after `done` steps. The
    /// matrices are those of `model`.
    pub(super) fn add_to(
        &self,
        gradients: &mut [Array2<f32>],
        model: &Transformer<'_, f32>,
        matrices: &[Array2<f32>],
        done: u64,
    ) {
        let (own, factor) = match self {
            Penalty::Fisher { fisher, earlier, lambda } => {
                let mut own = fisher.times(matrices);
                if let Some(earlier) = earlier {
                    own.iter_mut()
                        .zip(earlier.times(matrices))
                        .for_each(|(own, more)| own.scaled_add(EARLIER, &more));
                }
                (own, *lambda)
            }
            Penalty::WeightFisher { fisher, scale, lambda } => (fisher.gradients(matrices, *scale), *lambda),
            Penalty::Replay(replay) => (replay.gradients(model, matrices, done), 1.0),
        };
        gradients.iter_mut().zip(&own).for_each(|(g, own)| g.scaled_add(factor, own));
    }
}

impl Replay<'_> {
    fn gradients(
        &self,
        model: &Transformer<'_, f32>,
        matrices: &[Array2<f32>],
        done: u64,
    ) -> Vec<Array2<f32>> {
        let texts = self.anchor.texts.len() as u64;
        let order = data::order(self.anchor.texts.len(), self.seed, done / texts);
        let text = &self.anchor.texts[order[(done % texts) as usize]];
        let mut batch = Batch::default();
        batch.push(&text.tokens, &text.loss_mask);
        let reference = self.reference.hidden_states(&batch);
        let weight = self.lambda / reference.nrows() as f64;
        let mut gradients: Vec<_> = matrices.iter().map(|u| Array2::zeros(u.dim())).collect();
        model.backward_from(model.forward_frozen(&batch), &batch, &mut gradients, |head, hidden| {
            head.kl_backward(hidden, reference.view(), weight)
        });
        gradients
    }
}
