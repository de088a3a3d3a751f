//! Observers follow a run: the progress bar, the logs, the checkpoints.

use super::State;
use crate::Result;

/// A finished step.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Steps done.
    pub done: u64,
    /// Passes over the data, including the part of the current one.
    pub epoch: f64,
    /// Mean loss of this step, nats a target token.
    pub loss: f64,
    /// Mean loss of the last few steps.
    pub recent_loss: f64,
    /// Its learning rate.
    pub learning_rate: f64,
    /// Joint norm of the gradients before clipping.
    pub gradient_norm: f64,
    /// Tokens of this step's examples.
    pub tokens: u64,
    /// How long it took.
    pub seconds: f64,
}

impl Step {
    /// Tokens a second of this step.
    pub fn tokens_per_s(&self) -> f64 {
        self.tokens as f64 / self.seconds.max(1e-9)
    }
}

/// A measurement on the validation examples.
#[derive(Clone, Copy, Debug)]
pub struct Validation {
    /// Steps done.
    pub done: u64,
    /// Passes over the data, including the part of the current one.
    pub epoch: f64,
    /// Mean loss, nats a target token.
    pub loss: f64,
    /// How long it took.
    pub seconds: f64,
}

/// What [`Trainer::advance`](super::Trainer::advance) did.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// It took a step of the optimizer.
    Step(Step),
    /// It measured the validation loss.
    Validation(Validation),
}

/// Follows a run.
pub trait Observer {
    /// A step is done.
    fn step(&mut self, _step: &Step) {}
    /// The validation loss was measured.
    fn validation(&mut self, _validation: &Validation) {}
    /// A state is to be saved.
    ///
    /// # Errors
    /// A state that cannot be saved. It ends the run, which could otherwise lose more than was promised.
    fn checkpoint(&mut self, _state: &State) -> Result<()> {
        Ok(())
    }
}

impl Observer for Vec<&mut dyn Observer> {
    fn step(&mut self, step: &Step) {
        self.iter_mut().for_each(|observer| observer.step(step));
    }

    fn validation(&mut self, validation: &Validation) {
        self.iter_mut().for_each(|observer| observer.validation(validation));
    }

    fn checkpoint(&mut self, state: &State) -> Result<()> {
        self.iter_mut().try_for_each(|observer| observer.checkpoint(state))
    }
}
