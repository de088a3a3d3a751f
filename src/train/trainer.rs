//! A run, one step at a time.

use std::time::Instant;

use ndarray::Array2;

use super::batches::{self, BatchLimits};
use super::data::Dataset;
use super::frozen_cache::FrozenCache;
use super::loss::{loss_and_gradients, mean_loss_cached};
use super::report::recent;
use super::schedule::Schedule;
use super::{
    End, Event, Penalty, Progress, State, Step, TrainOptions, TrainReport, Validation, optimizer, patience,
};
use crate::model::Transformer;
use crate::{Error, Result};

/// By what share a validation loss must rise before a run counts as worse than none. A step of next to no
/// length moves it too.
const LEAST_RISE: f64 = 1e-3;
/// Share of a run's steps that warm up.
const WARMUP_SHARE: f64 = 0.1;

/// Trains the matrices U that are attached to a model. The result depends on the model, the data and the
/// options alone: not on the number of threads, nor on how often the run was stopped and resumed.
///
/// [`Self::advance`] drives a run to its end: it takes the steps and makes the validations that are due, and
/// returns `None` when the run is over. [`Self::finish`] then leaves the trained matrices in the model.
/// [`super::train()`] does both, with observers, checkpoints and a flag that stops the run.
///
/// ```no_run
/// # use curmerge::{Dataset, Result, Transformer};
/// # fn example(model: &mut Transformer<'_>, data: &Dataset, valid: &Dataset) -> Result<()> {
/// use curmerge::{Event, TrainOptions, Trainer};
///
/// let options = TrainOptions { epochs: 10, patience: Some(2), ..TrainOptions::default() };
/// let mut trainer = Trainer::new(model, data, Some(valid), &options)?;
/// while let Some(event) = trainer.advance()? {
///     match event {
///         Event::Step(step) => println!("step {}: loss {:.4}", step.done, step.loss),
///         Event::Validation(validation) => println!("validation loss {:.4}", validation.loss),
///     }
/// }
/// println!("loss {:.4} over the last steps", trainer.finish().loss());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Trainer<'t, 'b> {
    model: &'t mut Transformer<'b, f32>,
    data: &'t Dataset,
    valid: Option<&'t Dataset>,
    options: &'t TrainOptions,
    penalty: Option<&'t Penalty<'t>>,
    schedule: Schedule,
    steps_of_epoch: u64,
    validate_every: u64,
    /// Upper limit of a micro-batch's tokens.
    max_tokens: usize,
    /// The matrices before the first step.
    initial: Vec<Array2<f32>>,
    state: State,
    /// Steps that were done before this run.
    resumed_at: u64,
    cache: Option<FrozenCache>,
    valid_cache: Option<FrozenCache>,
    /// The order of examples in an epoch, with the epoch's number.
    order: Option<(u64, Vec<usize>)>,
}

impl<'t, 'b> Trainer<'t, 'b> {
    /// A run from the beginning, over the matrices that are attached to `model`. The loss on `valid` is
    /// measured every [`TrainOptions::valid_every`] steps and at the end.
    ///
    /// For a model with LongRoPE or learned positions, call [`Transformer::for_context`] with the length of
    /// the longest example first; it says what happens otherwise. Other models need no call.
    ///
    /// # Errors
    /// Nothing attached to the model; no examples; a batch size of 0, or another option that no run can use;
    /// `valid_every` or `patience` without `valid`; a file for hidden states that cannot be created.
    pub fn new(
        model: &'t mut Transformer<'b, f32>,
        data: &'t Dataset,
        valid: Option<&'t Dataset>,
        options: &'t TrainOptions,
    ) -> Result<Self> {
        let state = State::new(options.adamw, matrices(model));
        Self::resume(model, data, valid, options, state)
    }

    /// A run that resumes from the [`State`] of an earlier one. `model` must have the matrices that the
    /// earlier run began with.
    ///
    /// # Errors
    /// Those of [`Self::new`].
    pub fn resume(
        model: &'t mut Transformer<'b, f32>,
        data: &'t Dataset,
        valid: Option<&'t Dataset>,
        options: &'t TrainOptions,
        state: State,
    ) -> Result<Self> {
        let examples = data.examples.len();
        if examples == 0 {
            return Err(Error::request("there are no examples to train on", "give some"));
        }
        options.check(valid.is_some())?;
        let (steps, steps_of_epoch) = (options.steps(examples), options.steps_of_epoch(examples));
        let validate_every = options.valid_every.unwrap_or(steps_of_epoch);
        let warmup = (steps as f64 * WARMUP_SHARE).round() as u64;
        let initial = matrices(model);
        if initial.is_empty() {
            return Err(Error::request("the model has nothing to train", "attach an adapter to it"));
        }
        set(model, &state.matrices);
        let bytes_a_token = model.activation_bytes_per_token();
        let max_tokens = batches::tokens_within(options.memory, bytes_a_token);
        let (batch_size, seed) = (options.batch_size, options.seed);
        let largest = batches::largest_micro_batch(data, batch_size, seed, steps, max_tokens);
        model.divide_memory(options.memory, largest);
        // What is read only once is not worth caching.
        let cache = |model: &Transformer<'_, f32>, data: Option<&Dataset>| match data {
            Some(data) => FrozenCache::new(model, data.examples.len(), &options.scratch),
            None => Ok(None),
        };
        Ok(Self {
            schedule: Schedule { peak: options.learning_rate, warmup, steps },
            steps_of_epoch,
            validate_every,
            max_tokens,
            initial,
            resumed_at: state.progress.steps(),
            state,
            cache: cache(model, Some(data).filter(|_| steps > steps_of_epoch))?,
            valid_cache: cache(model, valid)?,
            order: None,
            model,
            data,
            valid,
            options,
            penalty: None,
        })
    }

    /// Train with this penalty. It is of the matrices that are attached to the model, in their order.
    #[must_use]
    pub fn with_penalty(self, penalty: &'t Penalty<'t>) -> Self {
        Self { penalty: Some(penalty), ..self }
    }

    /// All that a run needs to be resumed.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Takes the next step, or first makes the validation that is due. `None` once the run has ended.
    ///
    /// # Errors
    /// Those of [`Self::step`] and [`Self::validate`].
    pub fn advance(&mut self) -> Result<Option<Event>> {
        if self.validation_is_due() {
            return Ok(Some(Event::Validation(self.validate()?)));
        }
        match self.end() {
            None => Ok(Some(Event::Step(self.step()?))),
            Some(_) => Ok(None),
        }
    }

    /// Whether a validation comes before the next step.
    pub fn validation_is_due(&self) -> bool {
        let progress = &self.state.progress;
        self.valid.is_some()
            && match progress.steps() {
                0 => progress.initial_validation.is_none(),
                done => {
                    (done.is_multiple_of(self.validate_every) || done == self.schedule.steps)
                        && progress.validated() != Some(done)
                }
            }
    }

    /// Whether the state is to be saved before the next step. A due validation comes first.
    pub fn checkpoint_is_due(&self) -> bool {
        let done = self.state.progress.steps();
        let due = |every| done > self.resumed_at && done.is_multiple_of(every);
        self.options.save_every.is_some_and(due) && !self.validation_is_due()
    }

    /// How the run has ended; `None` while a step or a validation is left.
    pub fn end(&self) -> Option<End> {
        if self.validation_is_due() {
            return None;
        }
        let progress = &self.state.progress;
        if progress.steps() >= self.schedule.steps {
            return Some(End::Planned);
        }
        let over = self.options.patience.is_some_and(|p| patience::is_over(&progress.validation, p));
        over.then_some(End::Patience)
    }

    /// Measures the validation loss of the adapter that would be written now, so that the losses of a run
    /// compare. [`Self::advance`] does so when it is due.
    ///
    /// # Errors
    /// [`Error::Diverged`], a run without validation examples, or the file of hidden states.
    pub fn validate(&mut self) -> Result<Validation> {
        let start = Instant::now();
        let Some(valid) = self.valid else {
            return Err(Error::request("the run has no validation examples", "give it some"));
        };
        set_shrunk(self.model, &self.state.matrices, &self.initial, self.options.shrink);
        let loss = mean_loss_cached(self.model, valid, self.valid_cache.as_mut())?;
        set(self.model, &self.state.matrices);
        let done = self.state.progress.steps();
        if !loss.is_finite() {
            return Err(Error::Diverged { steps: done });
        }
        let progress = &mut self.state.progress;
        if done == 0 {
            progress.initial_validation = Some(loss);
        } else {
            progress.validation.push((done, loss));
            if patience::is_best(&progress.validation) {
                self.state.best = Some(self.state.matrices.clone());
            }
        }
        let epoch = done as f64 / self.steps_of_epoch as f64;
        Ok(Validation { done, epoch, loss, seconds: start.elapsed().as_secs_f64() })
    }

    /// Takes one step, whether or not a validation is due. [`Self::advance`] keeps the order of both.
    ///
    /// # Errors
    /// [`Error::Diverged`], which leaves the matrices as they were; a run without steps left; the file of
    /// hidden states.
    pub fn step(&mut self) -> Result<Step> {
        let start = Instant::now();
        let done = self.state.progress.steps();
        if done >= self.schedule.steps {
            return Err(Error::request(format!("the run has no step after {done}"), "finish it"));
        }
        let examples = &self.data.examples;
        let batch = self.batch(done);
        // A cached state must not depend on the other examples of its micro-batch.
        let limits = BatchLimits { max_tokens: self.max_tokens, share_prefixes: self.cache.is_none() };
        let micro_batches = batches::micro_batches(batch.iter().map(|&i| (i, &examples[i])), limits);
        let (loss, mut gradients) = loss_and_gradients(self.model, &micro_batches, self.cache.as_mut())?;
        let tokens = batch.iter().map(|&i| examples[i].tokens.len() as u64).sum();
        let gradient_norm = optimizer::clip(&mut gradients, self.options.clip);
        if !(loss + gradient_norm).is_finite() {
            return Err(Error::Diverged { steps: done });
        }
        // After clipping: the limit is for the noise of the task's gradient, and the penalty has none.
        if let Some(penalty) = self.penalty {
            penalty.add_to(&mut gradients, self.model, &self.state.matrices, done);
        }
        let learning_rate = self.schedule.rate(done);
        let state = &mut self.state;
        state.adam.step(state.matrices.iter_mut().collect(), &gradients, learning_rate as f32);
        set(self.model, &state.matrices);
        state.progress.tokens += tokens;
        state.progress.losses.push(loss);
        Ok(Step {
            done: done + 1,
            epoch: (done + 1) as f64 / self.steps_of_epoch as f64,
            loss,
            recent_loss: recent(&state.progress.losses),
            learning_rate,
            gradient_norm,
            tokens,
            seconds: start.elapsed().as_secs_f64(),
        })
    }

    /// The examples of the step after `done` steps.
    fn batch(&mut self, done: u64) -> Vec<usize> {
        let epoch = done / self.steps_of_epoch;
        let current = self.order.take().filter(|(of, _)| *of == epoch);
        let (_, order) =
            self.order.insert(current.unwrap_or_else(|| (epoch, self.data.order(self.options.seed, epoch))));
        let batch = order.chunks(self.options.batch_size).nth((done % self.steps_of_epoch) as usize);
        batch.unwrap_or_default().to_vec()
    }

    /// Ends the run, whether or not steps are left, and leaves the model with the matrices to keep, with what
    /// they gained shrunk. These are the last ones, or those of the best validation: with patience, even if
    /// the run is stopped steps later, and if the run [failed](TrainReport::failed).
    /// [`TrainReport::kept_steps`] says after which step. The last ones are then in the state alone.
    ///
    /// The state is dropped. To resume a stopped run, clone [`Self::state`] before the call, or keep the
    /// state that was given to [`Observer::checkpoint`](super::Observer::checkpoint).
    pub fn finish(self) -> TrainReport {
        let end = self.end().unwrap_or(End::Stopped);
        self.finish_as(end)
    }

    /// Ends a run whose last step or validation failed as [`Error::Diverged`], and keeps the matrices of the
    /// best validation. `None` if no step was validated before.
    pub fn finish_diverged(self) -> Option<TrainReport> {
        self.state.best.is_some().then(|| self.finish_as(End::Diverged))
    }

    fn finish_as(self, end: End) -> TrainReport {
        let Progress { validation, initial_validation, .. } = &self.state.progress;
        let steps = self.state.progress.steps();
        let best = patience::best(validation);
        let last = validation.last().copied().filter(|(validated, _)| *validated == steps);
        let planned = if self.options.patience.is_some() { best } else { last };
        let risen = |((_, loss), initial): ((u64, f64), f64)| loss > initial * (1.0 + LEAST_RISE);
        let worse = planned.zip(*initial_validation).is_some_and(risen);
        let end = if worse && matches!(end, End::Planned | End::Patience) { End::Worse } else { end };
        let keeps_best = self.options.patience.is_some() || matches!(end, End::Diverged | End::Worse);
        let (kept, kept_steps) = match self.state.best.as_ref().zip(best) {
            Some((matrices, (steps, _))) if keeps_best => (matrices, steps),
            _ => (&self.state.matrices, steps),
        };
        set_shrunk(self.model, kept, &self.initial, self.options.shrink);
        let planned_steps = self.schedule.steps;
        TrainReport { end, planned_steps, progress: self.state.progress, kept_steps }
    }
}

fn matrices(model: &mut Transformer<'_, f32>) -> Vec<Array2<f32>> {
    model.trainable_mut().iter().map(|u| (*u).clone()).collect()
}

fn set(model: &mut Transformer<'_, f32>, matrices: &[Array2<f32>]) {
    model.trainable_mut().into_iter().zip(matrices).for_each(|(u, value)| u.assign(value));
}

/// Sets each trained matrix to its value. What the [outer ones](Transformer::outer_slots) gained since
/// `initial` is multiplied by `factor`, and so is what the model gained: all of U, or B of a LoRA alone.
fn set_shrunk(
    model: &mut Transformer<'_, f32>,
    matrices: &[Array2<f32>],
    initial: &[Array2<f32>],
    factor: f32,
) {
    set(model, matrices);
    let outer = model.outer_slots();
    let mut trained = model.trainable_mut();
    for slot in outer {
        trained[slot].zip_mut_with(&initial[slot], |u, &from| *u = from + factor * (*u - from));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::base::Base;
    use crate::cur::{self, Selection};
    use crate::train::data::DataOptions;
    use crate::train::{Observer, train};

    fn demo() -> (Base, Dataset) {
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/demo");
        let base = Base::open(demo.join("model.gguf")).unwrap();
        let options = DataOptions::default();
        let mut data =
            Dataset::read(demo.join("valid.jsonl"), &base.tokenizer().unwrap(), None, &options).unwrap();
        data.examples.truncate(6);
        (base, data)
    }

    fn attached(base: &Base) -> Transformer<'_, f32> {
        let mut model = Transformer::new(base).unwrap();
        let names = base.targets("q", None).unwrap();
        let targets = cur::new_targets(base, &names, 2, Selection::Reference, 0).unwrap();
        model.attach(&targets, 1.0).unwrap();
        model
    }

    #[test]
    fn a_run_that_cannot_do_what_its_options_say_is_refused() {
        let (base, mut data) = demo();
        let mut model = attached(&base);
        let mut refusal = |data: &Dataset, options: &TrainOptions, wanted: &str| {
            let error = Trainer::new(&mut model, data, None, options).expect_err(wanted).to_string();
            assert!(error.contains(wanted), "{error}");
        };
        let default = TrainOptions::default;
        refusal(&data, &TrainOptions { batch_size: 0, ..default() }, "batch size of 0");
        refusal(&data, &TrainOptions { patience: Some(1), ..default() }, "patience has no effect");
        refusal(&data, &TrainOptions { valid_every: Some(1), ..default() }, "valid_every has no effect");
        refusal(&data, &TrainOptions { save_every: Some(0), ..default() }, "save_every 0");
        let mut frozen = Transformer::new(&base).unwrap();
        let error = Trainer::new(&mut frozen, &data, None, &default()).unwrap_err().to_string();
        assert!(error.contains("nothing to train"), "{error}");
        data.examples.clear();
        refusal(&data, &default(), "no examples");
    }

    #[test]
    fn advancing_validates_where_it_is_due_and_ends_after_the_last() {
        let (base, data) = demo();
        let mut model = attached(&base);
        let options =
            TrainOptions { max_steps: Some(3), batch_size: 2, valid_every: Some(2), ..Default::default() };
        let mut trainer = Trainer::new(&mut model, &data, Some(&data), &options).unwrap();
        let mut events = String::new();
        while let Some(event) = trainer.advance().unwrap() {
            events += match event {
                Event::Step(_) => "s",
                Event::Validation(_) => "v",
            };
            assert_eq!(trainer.end().is_some(), events == "vssvsv", "{events}");
        }
        assert_eq!(events, "vssvsv");
        assert!(trainer.step().unwrap_err().to_string().contains("no step after 3"));
        assert_eq!(trainer.finish().end, End::Planned);
    }

    #[test]
    fn a_run_without_steps_reports_a_loss_of_zero() {
        let (base, data) = demo();
        let mut model = attached(&base);
        let options = TrainOptions { max_steps: Some(0), ..Default::default() };
        let mut trainer = Trainer::new(&mut model, &data, None, &options).unwrap();
        assert!(trainer.advance().unwrap().is_none());
        let report = trainer.finish();
        assert!(report.end == End::Planned && report.loss() == 0.0 && report.loss().is_sign_positive());
    }

    #[test]
    fn a_stop_within_a_validation_allows_no_further_step_and_keeps_the_best() {
        struct Stopping<'s>(&'s AtomicBool, u64);
        impl Observer for Stopping<'_> {
            fn validation(&mut self, validation: &Validation) {
                self.0.store(validation.done >= self.1, Ordering::Relaxed);
            }
        }
        let (base, data) = demo();
        let mut model = attached(&base);
        // A rate at which every step makes it worse.
        let options = TrainOptions {
            epochs: 5,
            batch_size: 2,
            learning_rate: 10.0,
            valid_every: Some(2),
            patience: Some(9),
            ..Default::default()
        };
        let trainer = Trainer::new(&mut model, &data, Some(&data), &options).unwrap();
        let stop = AtomicBool::new(false);
        let report = train(trainer, &stop, &mut Stopping(&stop, 4)).unwrap();
        assert_eq!((report.end, report.progress.steps()), (End::Stopped, 4));
        let best = patience::best(&report.progress.validation).unwrap();
        assert_eq!((report.kept_steps, report.kept_validation()), (best.0, Some(best.1)));
    }

    #[test]
    fn a_run_that_ends_worse_than_it_began_keeps_the_best_validation() {
        let (base, _) = demo();
        // What the base has learned best: a text.
        let text = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/demo/text.txt");
        let options = DataOptions { max_seq_len: 32, ..Default::default() };
        let mut data = Dataset::read(text, &base.tokenizer().unwrap(), None, &options).unwrap();
        data.examples.truncate(6);
        let mut model = attached(&base);
        let options = TrainOptions {
            max_steps: Some(4),
            batch_size: 2,
            learning_rate: 10.0,
            valid_every: Some(1),
            ..Default::default()
        };
        let trainer = Trainer::new(&mut model, &data, Some(&data), &options).unwrap();
        let report = train(trainer, &AtomicBool::new(false), &mut Vec::new()).unwrap();
        let initial = report.progress.initial_validation.unwrap();
        assert!(report.progress.validation.last().unwrap().1 > initial);
        assert!(report.end == End::Worse && report.failed());
        let (steps, loss) = patience::best(&report.progress.validation).unwrap();
        assert_eq!((report.kept_steps, report.kept_validation()), (steps, Some(loss)));
        // A rate that no number survives.
        let mut model = attached(&base);
        let options = TrainOptions { learning_rate: 1e30, ..options };
        let trainer = Trainer::new(&mut model, &data, Some(&data), &options).unwrap();
        match train(trainer, &AtomicBool::new(false), &mut Vec::new()) {
            Ok(report) => assert!(report.failed(), "{report:?}"),
            Err(error) => assert!(matches!(error, Error::Diverged { .. }), "{error}"),
        }
    }
}
