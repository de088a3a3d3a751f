//! Fitting the matrices U: epochs over shuffled examples, AdamW, warm-up and cosine, validation, patience.
//!
//! [`Trainer::advance`] takes one step or makes one validation at a time. [`train()`] calls it to the end of a
//! run: [`Observer`]s hear of everything, and a flag stops the run. Between two steps a [`State`] is all there
//! is to know, so a resumed run gives the same result as one that never stopped.

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
pub use observer::{Event, Observer, Step, Validation};
pub use options::TrainOptions;
pub use report::{End, TrainReport};
pub use state::{Progress, State};
pub use trainer::Trainer;

/// Advances a trainer until the run is over or `stop` is set, and finishes it. An observer may set `stop` too;
/// no step follows. A run that is stopped does not validate first: whoever stops it wants the adapter now.
/// [`Trainer::finish`] says which matrices the model then has.
///
/// # Errors
/// [`Error::Diverged`](crate::Error::Diverged); a checkpoint that an observer cannot save; the file of hidden
/// states.
pub fn train(
    mut trainer: Trainer<'_, '_>,
    stop: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<TrainReport> {
    while trainer.end().is_none() {
        let stopped = stop.load(Ordering::Relaxed);
        if stopped || trainer.checkpoint_is_due() {
            observer.checkpoint(trainer.state())?;
        }
        if stopped {
            break;
        }
        match trainer.advance()? {
            Some(Event::Step(step)) => observer.step(&step),
            Some(Event::Validation(validation)) => observer.validation(&validation),
            None => break,
        }
    }
    Ok(trainer.finish())
}
