//! The state of a run between two steps.

use ndarray::Array2;
use serde::{Deserialize, Serialize};

use super::optimizer::{AdamW, AdamWOptions};

/// The metrics of a run so far. Its place in the epoch, and whether its patience is over, follow from them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Tokens that went through the model in training.
    pub tokens: u64,
    /// Mean training loss of each step, nats a target token.
    pub losses: Vec<f64>,
    /// The validation loss before the first step.
    #[serde(default)]
    pub initial_validation: Option<f64>,
    /// Steps done and the validation loss after them, with U shrunk, nats a target token.
    pub validation: Vec<(u64, f64)>,
}

impl Progress {
    /// Steps done.
    pub fn steps(&self) -> u64 {
        self.losses.len() as u64
    }

    /// The steps at the last validation.
    pub fn validated(&self) -> Option<u64> {
        self.validation.last().map(|(steps, _)| *steps)
    }
}

/// A run between two steps. Each list of matrices is in the order of the model's trained ones.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// The metrics so far.
    pub progress: Progress,
    /// The matrices U, not shrunk.
    pub matrices: Vec<Array2<f32>>,
    /// The optimizer's running means.
    pub adam: AdamW,
    /// The matrices U of the best validation after a step, not shrunk.
    pub best: Option<Vec<Array2<f32>>>,
}

impl State {
    /// The state before the first step.
    pub fn new(options: AdamWOptions, matrices: Vec<Array2<f32>>) -> Self {
        let adam = AdamW::new(options, matrices.iter().map(|u| u.dim()));
        State { progress: Progress::default(), matrices, adam, best: None }
    }
}
