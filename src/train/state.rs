//! What a run carries from one step to the next.

use ndarray::Array2;
use serde::{Deserialize, Serialize};

use super::optimizer::{AdamW, AdamWOptions};

/// The figures of a run so far. Where in which epoch it is, and whether its patience is over, follow from them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Tokens that went through the model in training.
    pub tokens: u64,
    /// Mean training loss of each step, nats a target token.
    pub losses: Vec<f64>,
    /// Number of steps and validation loss then, of the shrunk U, nats a target token.
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
    /// The figures so far.
    pub progress: Progress,
    /// The matrices U, not shrunk.
    pub matrices: Vec<Array2<f32>>,
    /// The optimizer's running means.
    pub adam: AdamW,
    /// The matrices U of the best validation, not shrunk; only where patience asks for them.
    pub best: Option<Vec<Array2<f32>>>,
}

impl State {
    /// Before the first step.
    pub fn new(options: AdamWOptions, matrices: Vec<Array2<f32>>) -> Self {
        let adam = AdamW::new(options, matrices.iter().map(|u| u.dim()));
        State { progress: Progress::default(), matrices, adam, best: None }
    }
}
