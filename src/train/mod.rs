//! Fitting the matrices U: epochs over shuffled examples, AdamW, warm-up and cosine, validation, patience.
//!
//! A [`Trainer`] takes one step at a time. [`train`] drives it to the end of a run: [`Observer`]s hear of
//! every step, and a flag stops the run after the current step. Between two steps a [`State`] is all there is
//! to know, so a resumed run gives the same result as one that never stopped.

pub mod batches;
pub mod checkpoint;
pub mod data;
mod frozen_cache;
mod loss;
pub mod metrics;
mod observer;
pub mod optimizer;
mod options;
pub mod patience;
mod report;
pub mod schedule;
mod state;
pub mod tensorboard;
mod trainer;

use std::sync::atomic::{AtomicBool, Ordering};

use crate::Result;
pub use loss::mean_loss;
pub use observer::{Observer, Step, Validation};
pub use options::TrainOptions;
pub use report::{End, TrainReport};
pub use state::{Progress, State};
pub use trainer::Trainer;

/// Runs a trainer until the run is over or `stop` is set. A run that is stopped does not validate first:
/// whoever stops it wants the adapter now.
///
/// # Errors
/// [`Error::Diverged`](crate::Error::Diverged); a checkpoint that an observer cannot save; the file of hidden
/// states.
pub fn train(
    mut trainer: Trainer<'_, '_>,
    stop: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<TrainReport> {
    loop {
        let stopped = stop.load(Ordering::Relaxed);
        if trainer.validation_is_due() && !stopped {
            observer.validation(&trainer.validate()?);
        }
        if !trainer.validation_is_due() && trainer.end().is_some() {
            break;
        }
        if stopped || trainer.checkpoint_is_due() {
            observer.checkpoint(trainer.state())?;
        }
        if stopped {
            break;
        }
        observer.step(&trainer.step()?);
    }
    Ok(trainer.finish())
}
