//! Fitting the matrices U: epochs over shuffled examples, AdamW, warm-up and cosine, validation, patience.
//!
//! The loop knows neither files nor terminals: [`Observer`]s hear of every step, and a flag stops it after the step
//! under way. Between two steps a [`State`] is all there is to know, so a run that goes on from one gives what a run that
//! never stopped gives.

pub mod batches;
pub mod checkpoint;
pub mod data;
mod frozen_cache;
pub mod metrics;
mod observer;
pub mod optimizer;
pub mod patience;
pub mod schedule;
mod state;
pub mod tensorboard;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use ndarray::Array2;

use crate::Result;
use crate::model::Transformer;
use batches::{BatchLimits, MicroBatch};
use data::Dataset;
use frozen_cache::FrozenCache;
pub use observer::{Observer, Step, Validation};
use optimizer::AdamWOptions;
use schedule::Schedule;
pub use state::{Progress, State};

/// Share of a run's steps that warm up.
const WARMUP_SHARE: f64 = 0.1;
/// Steps whose mean is the loss that is shown and recorded, since single steps are noisy.
const LOSS_WINDOW: usize = 10;

/// How to train.
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
    /// Largest joint norm of the gradients.
    pub clip: f64,
    /// What U has gained is multiplied by this when the run ends: a point between the start and what was trained, which
    /// forgets less at the same loss than a lower learning rate does (Wortsman et al. 2021, arXiv 2109.01903).
    pub shrink: f32,
    /// Seed of the order of examples.
    pub seed: u64,
    /// Steps between validations; an epoch if not given.
    pub valid_every: Option<u64>,
    /// End after so many validations without a better one, and keep the best.
    pub patience: Option<u64>,
    /// Steps between checkpoints.
    pub save_every: Option<u64>,
    /// Most bytes to keep: activations for a backward pass, then weights that are ready for products.
    pub memory: u64,
    /// A folder for what is kept from one epoch to the next.
    pub scratch: PathBuf,
}

impl TrainOptions {
    /// Steps that a run over `examples` takes.
    pub fn steps(&self, examples: usize) -> u64 {
        let whole = self.epochs.saturating_mul(self.steps_of_epoch(examples));
        self.max_steps.map_or(whole, |max| whole.min(max))
    }

    fn steps_of_epoch(&self, examples: usize) -> u64 {
        examples.div_ceil(self.batch_size) as u64
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With its last step.
    Planned,
    /// As the validation loss no longer got better.
    Patience,
    /// It was told to stop, and can go on from its last state.
    Stopped,
    /// The loss or a gradient was no longer a number, and the run ended before that step.
    Diverged,
}

/// What a run did.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainReport {
    /// How it ended.
    pub end: End,
    /// Steps the schedule was made for.
    pub planned_steps: u64,
    /// Every loss, also those of the runs that this one went on from.
    pub progress: Progress,
    /// After how many steps the model had the matrices that it has now: the last, or with patience the best.
    pub kept_steps: u64,
}

impl TrainReport {
    /// Mean training loss of the steps up to the one that was kept, the last few of them, before U is shrunk.
    pub fn loss(&self) -> f64 {
        recent(self.kept_losses())
    }

    /// Mean training loss of each step up to the one that was kept.
    pub fn kept_losses(&self) -> &[f64] {
        &self.progress.losses[..self.kept_steps as usize]
    }

    /// The last validation loss up to the step that was kept.
    pub fn kept_validation(&self) -> Option<f64> {
        let until = |(steps, _): &&(u64, f64)| *steps <= self.kept_steps;
        self.progress.validation.iter().rfind(until).map(|(_, loss)| *loss)
    }
}

/// Train the attached matrices of `model` until the run is over or `stop` is set, from the beginning or from where an
/// earlier run was. The result depends on the model, the data and the options alone, not on the number of threads, nor on
/// how often the run was stopped and went on. Fails only if an observer cannot save a checkpoint.
pub fn train(
    model: &mut Transformer<'_, f32>,
    data: &Dataset,
    valid: Option<&Dataset>,
    options: &TrainOptions,
    resumed: Option<State>,
    stop: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<TrainReport> {
    let steps = options.steps(data.examples.len());
    let steps_of_epoch = options.steps_of_epoch(data.examples.len());
    let warmup = (steps as f64 * WARMUP_SHARE).round() as u64;
    let schedule = Schedule { peak: options.learning_rate, warmup, steps };
    let validate_every = options.valid_every.unwrap_or(steps_of_epoch);
    let began = matrices(model);
    let mut state = resumed.unwrap_or_else(|| State::new(options.adamw, began.clone()));
    set(model, &state.matrices);
    let resumed_at = state.progress.steps();
    model.limit_activations(options.memory);
    let bytes_a_token = model.activation_bytes_per_token();
    let max_tokens = batches::tokens_within(options.memory, bytes_a_token);
    let largest =
        batches::largest_micro_batch(&data.examples, options.batch_size, options.seed, steps, max_tokens)
            as u64;
    model.cache_packed_weights(options.memory.saturating_sub(bytes_a_token.saturating_mul(largest)));
    // What is seen once need not be kept.
    let keep = |model: &Transformer<'_, f32>, data: Option<&Dataset>| match data {
        Some(data) => FrozenCache::new(model, data.examples.len(), &options.scratch),
        None => Ok(None),
    };
    let mut cache = keep(model, Some(data).filter(|_| steps > steps_of_epoch))?;
    let mut valid_cache = keep(model, valid.filter(|_| steps > validate_every))?;
    let mut order = (u64::MAX, Vec::new());
    let end = loop {
        let done = state.progress.steps();
        let stopped = stop.load(Ordering::Relaxed);
        let mut due = valid
            .filter(|_| done > 0 && (done.is_multiple_of(validate_every) || done == steps))
            .filter(|_| state.progress.validated() != Some(done));
        // Whoever stops a run wants the adapter now.
        if let Some(valid) = due.take_if(|_| !stopped) {
            let start = Instant::now();
            // Of the adapter that would be written now, so that the losses of a run compare.
            set_shrunk(model, &state.matrices, &began, options.shrink);
            let loss = mean_loss_keeping(model, valid, valid_cache.as_mut())?;
            set(model, &state.matrices);
            if !loss.is_finite() {
                break End::Diverged;
            }
            state.progress.validation.push((done, loss));
            if options.patience.is_some() && patience::is_best(&state.progress.validation) {
                state.best = Some(state.matrices.clone());
            }
            let epoch = done as f64 / steps_of_epoch as f64;
            observer.validation(&Validation { done, epoch, loss, seconds: start.elapsed().as_secs_f64() });
        }
        if due.is_none() && done >= steps {
            break End::Planned;
        }
        if due.is_none() && options.patience.is_some_and(|p| patience::is_over(&state.progress.validation, p))
        {
            break End::Patience;
        }
        if stopped {
            observer.checkpoint(&state)?;
            break End::Stopped;
        }
        if options.save_every.is_some_and(|every| done > resumed_at && done.is_multiple_of(every)) {
            observer.checkpoint(&state)?;
        }

        let start = Instant::now();
        let epoch = done / steps_of_epoch;
        if order.0 != epoch {
            order = (epoch, batches::order(data.examples.len(), options.seed, epoch));
        }
        let batch = order.1.chunks(options.batch_size).nth((done % steps_of_epoch) as usize).unwrap_or(&[]);
        // What is kept of an example is the same in any company.
        let limits = BatchLimits { max_tokens, share_prefixes: cache.is_none() };
        let micro_batches = batches::micro_batches(batch.iter().map(|&i| (i, &data.examples[i])), limits);
        let (loss, mut gradients) = step_gradients(model, &micro_batches, cache.as_mut())?;
        let tokens = batch.iter().map(|&i| data.examples[i].tokens.len() as u64).sum();
        let gradient_norm = optimizer::clip(&mut gradients, options.clip);
        if !(loss + gradient_norm).is_finite() {
            break End::Diverged;
        }
        let learning_rate = schedule.rate(done);
        state.adam.step(state.matrices.iter_mut().collect(), &gradients, learning_rate as f32);
        set(model, &state.matrices);
        state.progress.tokens += tokens;
        state.progress.losses.push(loss);
        observer.step(&Step {
            done: done + 1,
            epoch: (done + 1) as f64 / steps_of_epoch as f64,
            loss,
            recent_loss: recent(&state.progress.losses),
            learning_rate,
            gradient_norm,
            tokens,
            seconds: start.elapsed().as_secs_f64(),
        });
    };
    let best = state.best.as_ref().zip(patience::best(&state.progress.validation));
    let (kept, kept_steps) = match best {
        Some((matrices, (steps, _))) => (matrices, steps),
        None => (&state.matrices, state.progress.steps()),
    };
    set_shrunk(model, kept, &began, options.shrink);
    Ok(TrainReport { end, planned_steps: steps, progress: state.progress, kept_steps })
}

/// The mean of the last few losses.
fn recent(losses: &[f64]) -> f64 {
    let recent = &losses[losses.len().saturating_sub(LOSS_WINDOW)..];
    recent.iter().sum::<f64>() / recent.len().max(1) as f64
}

fn matrices(model: &mut Transformer<'_, f32>) -> Vec<Array2<f32>> {
    model.trainable_mut().iter().map(|u| (*u).clone()).collect()
}

fn set(model: &mut Transformer<'_, f32>, matrices: &[Array2<f32>]) {
    model.trainable_mut().into_iter().zip(matrices).for_each(|(u, value)| u.assign(value));
}

/// Set each U to its value, what it gained since it was `began` multiplied by `factor`.
fn set_shrunk(
    model: &mut Transformer<'_, f32>,
    matrices: &[Array2<f32>],
    began: &[Array2<f32>],
    factor: f32,
) {
    set(model, matrices);
    for (u, from) in model.trainable_mut().into_iter().zip(began) {
        u.zip_mut_with(from, |u, &from| *u = from + factor * (*u - from));
    }
}

/// The mean loss over all target tokens of a data set, nats a token.
pub fn mean_loss(model: &Transformer<'_, f32>, data: &Dataset) -> f64 {
    // Without a file nothing can fail.
    mean_loss_keeping(model, data, None).unwrap_or(f64::NAN)
}

fn mean_loss_keeping(
    model: &Transformer<'_, f32>,
    data: &Dataset,
    mut cache: Option<&mut FrozenCache>,
) -> Result<f64> {
    let (mut sum, mut count) = (0.0, 0);
    let limits = BatchLimits { max_tokens: batches::MAX_TOKENS, share_prefixes: cache.is_none() };
    for micro_batch in batches::micro_batches(data.examples.iter().enumerate(), limits) {
        let x = forward_frozen(model, &micro_batch, &mut cache)?;
        sum -= model.log_probs_from(x, &micro_batch.batch).iter().sum::<f64>();
        count += micro_batch.batch.predictions().len();
    }
    Ok(sum / count as f64)
}

fn forward_frozen(
    model: &Transformer<'_, f32>,
    micro_batch: &MicroBatch,
    cache: &mut Option<&mut FrozenCache>,
) -> Result<Array2<f32>> {
    match cache {
        Some(cache) => cache.hidden_states(model, micro_batch),
        None => Ok(model.forward_frozen(&micro_batch.batch)),
    }
}

/// The mean loss over the target tokens of these micro-batches, and its gradients.
fn step_gradients(
    model: &Transformer<'_, f32>,
    micro_batches: &[MicroBatch],
    mut cache: Option<&mut FrozenCache>,
) -> Result<(f64, Vec<Array2<f32>>)> {
    let targets: usize = micro_batches.iter().map(|p| p.batch.predictions().len()).sum();
    let weight = 1.0 / targets as f64;
    let mut sum = 0.0;
    let mut total: Vec<Array2<f32>> = Vec::new();
    for micro_batch in micro_batches {
        let x = forward_frozen(model, micro_batch, &mut cache)?;
        let (log_probs, gradients) = model.gradients_from(x, &micro_batch.batch, weight);
        sum -= log_probs.iter().sum::<f64>();
        if total.is_empty() {
            total = gradients;
        } else {
            total.iter_mut().zip(&gradients).for_each(|(t, g)| *t += g);
        }
    }
    Ok((sum * weight, total))
}
