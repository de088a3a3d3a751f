//! What a run did.

use curmerge_formats::adapter::Training;

use super::data::Dataset;
use super::{Progress, TrainOptions};

/// Steps whose mean is the loss that is shown and recorded, since single steps are noisy.
const LOSS_WINDOW: usize = 10;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// After its last step.
    Planned,
    /// Because the validation loss no longer improved.
    Patience,
    /// Before its last step or validation. It can be resumed from its last [`State`](super::State): clone
    /// [`Trainer::state`](super::Trainer::state) before `finish`, which drops it, or keep the one given to
    /// [`Observer::checkpoint`](super::Observer::checkpoint).
    Stopped,
    /// Because the loss or a gradient was no longer a number.
    Diverged,
    /// Like `Planned` or `Patience`, but the validation loss of what would be kept is above that before the
    /// first step.
    Worse,
}

/// What a run did.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainReport {
    /// How it ended.
    pub end: End,
    /// Steps that the schedule was made for.
    pub planned_steps: u64,
    /// Every loss, including those of the runs that this one resumed.
    pub progress: Progress,
    /// Number of steps after which the model had the matrices that it has now: those of the best validation
    /// with patience or if the run [failed](Self::failed), else all steps.
    pub kept_steps: u64,
}

impl TrainReport {
    /// Whether the run taught nothing.
    pub fn failed(&self) -> bool {
        matches!(self.end, End::Diverged | End::Worse)
    }

    /// Mean training loss of the last few steps up to the kept one, before U is shrunk; 0 without steps.
    pub fn loss(&self) -> f64 {
        recent(self.kept_losses())
    }

    /// Mean training loss of each step up to the kept one.
    pub fn kept_losses(&self) -> &[f64] {
        &self.progress.losses[..self.kept_steps as usize]
    }

    /// The last validation loss up to the kept step.
    pub fn kept_validation(&self) -> Option<f64> {
        let until = |(steps, _): &&(u64, f64)| *steps <= self.kept_steps;
        self.progress.validation.iter().rfind(until).map(|(_, loss)| *loss)
    }

    /// The record of the training in the adapter.
    pub fn record(&self, data: &Dataset, options: &TrainOptions) -> Training {
        Training {
            data_sha256: data.sha256.clone(),
            examples: data.examples.len() as u64,
            steps: self.kept_steps,
            planned_steps: self.planned_steps,
            optimizer: "adamw".into(),
            learning_rate: options.learning_rate,
            batch_size: options.batch_size as u64,
            max_seq_len: data.max_seq_len as u64,
            final_loss: self.loss(),
            losses: Some(self.kept_losses().to_vec()),
            valid_loss: self.kept_validation(),
            protection: None,
            recipe: None,
        }
    }
}

/// The mean of the last few losses; 0 of none.
pub(super) fn recent(losses: &[f64]) -> f64 {
    let recent = &losses[losses.len().saturating_sub(LOSS_WINDOW)..];
    // An empty sum of floats is -0.
    if recent.is_empty() { 0.0 } else { recent.iter().sum::<f64>() / recent.len() as f64 }
}
