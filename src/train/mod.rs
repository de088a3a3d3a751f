//! Fitting the matrices U: epochs over shuffled examples, AdamW, warm-up and cosine, validation,
//! patience.
//!
//! [`Trainer::advance`] takes one step or makes one validation at a time. [`train()`] calls it to the end
//! of a run: [`Observer`]s get every step and validation, and a flag stops the run. A [`State`] holds all
//! that a run carries from one step to the next, so a resumed run gives the same result as one that never
//! stopped.

pub mod anchor;
pub mod batches;
pub mod checkpoint;
pub mod data;
pub mod fisher;
mod frozen_cache;
mod loss;
pub mod metrics;
mod observer;
pub mod optimizer;
mod options;
pub mod patience;
mod penalty;
mod report;
pub mod schedule;
pub mod signal;
mod state;
pub mod tensorboard;
mod trainer;

use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Error, Result};
pub use loss::mean_loss;
pub use observer::{Event, Observer, Step, Validation};
pub use options::TrainOptions;
pub use penalty::{Penalty, Replay};
pub use report::{End, TrainReport};
pub use state::{Progress, State};
pub use trainer::Trainer;

/// Advances a trainer until the run has ended or `stop` is set, then calls [`Trainer::finish`], which says
/// which matrices the model then has. An observer or another thread may set `stop`; no step follows. A
/// stopped run does not validate first: whoever stops it wants the adapter now.
///
/// ```no_run
/// use std::sync::atomic::{AtomicBool, Ordering};
///
/// use curmerge::train::{Step, train};
/// use curmerge::{Observer, Result, TrainReport, Trainer};
///
/// struct Printer;
/// impl Observer for Printer {
///     fn step(&mut self, step: &Step) {
///         println!("step {}: loss {:.4}", step.done, step.loss);
///     }
/// }
///
/// struct StopBelow<'a>(f64, &'a AtomicBool);
/// impl Observer for StopBelow<'_> {
///     fn step(&mut self, step: &Step) {
///         self.1.fetch_or(step.recent_loss < self.0, Ordering::Relaxed);
///     }
/// }
///
/// fn run(trainer: Trainer<'_, '_>) -> Result<TrainReport> {
///     let stop = AtomicBool::new(false);
///     let (mut printer, mut stop_below) = (Printer, StopBelow(0.5, &stop));
///     let mut observers: Vec<&mut dyn Observer> = vec![&mut printer, &mut stop_below];
///     train(trainer, &stop, &mut observers)
/// }
/// ```
///
/// # Errors
/// [`Error::Diverged`] before a validation, after which the matrices of the best one are kept; a checkpoint that an observer cannot save; the file of hidden
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
        match trainer.advance() {
            Ok(Some(Event::Step(step))) => observer.step(&step),
            Ok(Some(Event::Validation(validation))) => observer.validation(&validation),
            Ok(None) => break,
            Err(error @ Error::Diverged { .. }) => return trainer.finish_diverged().ok_or(error),
            Err(error) => return Err(error),
        }
    }
    Ok(trainer.finish())
}

#[cfg(test)]
mod tests;
