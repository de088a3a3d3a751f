//! How to train.

use std::path::PathBuf;

use super::optimizer::AdamWOptions;

/// How to train. `TrainOptions { max_steps: Some(100), ..TrainOptions::default() }` changes what differs.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainOptions {
    /// Passes over the data.
    pub epochs: u64,
    /// Ends the run early, with a schedule of that length.
    pub max_steps: Option<u64>,
    /// Examples a step.
    pub batch_size: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// The optimizer's constants.
    pub adamw: AdamWOptions,
    /// Upper limit of the joint norm of the gradients.
    pub clip: f64,
    /// Factor on what U has gained when the run ends: a point between the start and the result of training.
    /// It forgets less at the same loss than a lower learning rate does (Wortsman et al. 2021, arXiv
    /// 2109.01903).
    pub shrink: f32,
    /// Seed of the order of examples.
    pub seed: u64,
    /// Steps between validations; `None` for one epoch.
    pub valid_every: Option<u64>,
    /// Ends the run after this many validations without an improvement, and keeps the best.
    pub patience: Option<u64>,
    /// Steps between checkpoints.
    pub save_every: Option<u64>,
    /// Upper limit of the bytes to keep: activations for the backward pass, then weights prepared for
    /// products.
    pub memory: u64,
    /// A folder for the file of hidden states that is kept from one epoch to the next.
    pub scratch: PathBuf,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self {
            epochs: 2,
            max_steps: None,
            batch_size: 8,
            learning_rate: 1.5e-3,
            adamw: AdamWOptions::default(),
            clip: 1.0,
            shrink: 0.55,
            seed: 0,
            valid_every: None,
            patience: None,
            save_every: None,
            memory: 400_000_000,
            scratch: std::env::temp_dir(),
        }
    }
}

impl TrainOptions {
    /// Steps of a run over `examples` examples.
    pub fn steps(&self, examples: usize) -> u64 {
        let whole = self.epochs.saturating_mul(self.steps_of_epoch(examples));
        self.max_steps.map_or(whole, |max| whole.min(max))
    }

    /// Steps of one epoch.
    pub(super) fn steps_of_epoch(&self, examples: usize) -> u64 {
        examples.div_ceil(self.batch_size) as u64
    }
}
