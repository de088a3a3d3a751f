//! How to train.

use std::path::PathBuf;

use super::optimizer::AdamWOptions;
use crate::{Error, Result};

/// How to train. `TrainOptions { max_steps: Some(100), ..TrainOptions::default() }` changes what differs.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainOptions {
    /// Passes over the data. Default: 2.
    pub epochs: u64,
    /// Ends the run after this many steps, with a schedule of that length. Default: `None`, all epochs.
    pub max_steps: Option<u64>,
    /// Examples a step. Default: 8.
    pub batch_size: usize,
    /// Peak learning rate; see [`Schedule`](super::schedule::Schedule). Default: 1.5e-3.
    pub learning_rate: f64,
    /// The optimizer's constants. Default: [`AdamWOptions::default`].
    pub adamw: AdamWOptions,
    /// Upper limit of the joint norm of the gradients, infinity for none. A [`Penalty`](super::Penalty) is added
    /// after it, so a limit below the usual norms makes the penalty weigh more. Default: 1.
    pub clip: f64,
    /// Factor on what U has gained when the run ends: a point between the start and the result of training.
    /// It forgets less at the same loss than a lower learning rate does (Wortsman et al. 2021, arXiv
    /// 2109.01903). Default: 0.55.
    pub shrink: f32,
    /// Seed of the order of examples. Default: 0.
    pub seed: u64,
    /// Steps between validations. The last step is always validated. Default: `None`, one epoch.
    pub valid_every: Option<u64>,
    /// Ends the run after this many validations without an improvement. The model keeps the matrices of the
    /// best validation, also when the run reaches its last step or is stopped. Default: `None`, which runs to
    /// the last step and keeps the last matrices.
    pub patience: Option<u64>,
    /// Steps between calls of [`Observer::checkpoint`](super::Observer::checkpoint), which saves the state;
    /// see [`checkpoint`](super::checkpoint). Default: `None`, which calls it only when the run is stopped.
    pub save_every: Option<u64>,
    /// Upper limit of the bytes to keep: activations for the backward pass, then weights prepared for
    /// products. Results do not depend on it. Default: 400 MB.
    pub memory: u64,
    /// A folder for the file of hidden states that is kept from one epoch to the next. Default: the system's
    /// folder for temporary files.
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

    /// Refuses options that no run can use, or that a run without validation would ignore.
    pub(super) fn check(&self, has_validation: bool) -> Result<()> {
        if self.batch_size == 0 {
            return Err(Error::request("a batch size of 0 cannot be used", "give a positive one"));
        }
        let intervals = [
            ("valid_every", self.valid_every, true),
            ("patience", self.patience, true),
            ("save_every", self.save_every, false),
        ];
        for (name, interval, validates) in intervals {
            if interval == Some(0) {
                return Err(Error::request(format!("{name} 0 cannot be used"), "give a positive number"));
            }
            if interval.is_some() && validates && !has_validation {
                let problem = format!("{name} has no effect without validation examples");
                return Err(Error::request(problem, "give some, or leave it out"));
            }
        }
        Ok(())
    }

    /// Steps of one epoch.
    pub(super) fn steps_of_epoch(&self, examples: usize) -> u64 {
        examples.div_ceil(self.batch_size.max(1)) as u64
    }
}
