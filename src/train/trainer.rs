//! A run, one step at a time.

use std::time::Instant;

use ndarray::Array2;

use super::batches::{self, BatchLimits};
use super::data::Dataset;
use super::frozen_cache::FrozenCache;
use super::loss::{loss_and_gradients, mean_loss_cached};
use super::report::recent;
use super::schedule::Schedule;
use super::{End, State, Step, TrainOptions, TrainReport, Validation, optimizer, patience};
use crate::model::Transformer;
use crate::{Error, Result};

/// Share of a run's steps that warm up.
const WARMUP_SHARE: f64 = 0.1;

/// Trains the matrices U that are attached to a model. The result depends on the model, the data and the
/// options alone: not on the number of threads, nor on how often the run was stopped and resumed.
///
/// The caller validates: with validation examples, call [`Self::validate`] whenever
/// [`Self::validation_is_due`], before [`Self::end`] and the next step. [`super::train()`] does so.
///
/// ```no_run
/// # fn example(model: &mut curmerge::Transformer<'_, f32>, data: &curmerge::Dataset) -> curmerge::Result<()> {
/// use curmerge::{TrainOptions, Trainer};
///
/// let options = TrainOptions { epochs: 1, ..TrainOptions::default() };
/// let mut trainer = Trainer::new(model, data, None, &options)?;
/// while trainer.end().is_none() {
///     println!("loss {:.4}", trainer.step()?.loss);
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
    /// A run from the beginning, over the matrices that are attached to `model`.
    ///
    /// # Errors
    /// No examples or a batch size of 0; a file for hidden states that cannot be created.
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
    /// earlier run began with. Fails as [`Self::new`] does.
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
        if options.batch_size == 0 {
            return Err(Error::request("a batch size of 0 cannot be used", "give a positive one"));
        }
        let (steps, steps_of_epoch) = (options.steps(examples), options.steps_of_epoch(examples));
        let validate_every = options.valid_every.unwrap_or(steps_of_epoch);
        let warmup = (steps as f64 * WARMUP_SHARE).round() as u64;
        let initial = matrices(model);
        set(model, &state.matrices);
        model.limit_activations(options.memory);
        let bytes_a_token = model.activation_bytes_per_token();
        let max_tokens = batches::tokens_within(options.memory, bytes_a_token);
        let (batch_size, seed) = (options.batch_size, options.seed);
        let largest =
            batches::largest_micro_batch(&data.examples, batch_size, seed, steps, max_tokens) as u64;
        model.cache_packed_weights(options.memory.saturating_sub(bytes_a_token.saturating_mul(largest)));
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
            valid_cache: cache(model, valid.filter(|_| steps > validate_every))?,
            order: None,
            model,
            data,
            valid,
            options,
        })
    }

    /// All that a run needs to be resumed.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Whether [`Self::validate`] comes before the next step.
    pub fn validation_is_due(&self) -> bool {
        let done = self.state.progress.steps();
        self.valid.is_some()
            && done > 0
            && (done.is_multiple_of(self.validate_every) || done == self.schedule.steps)
            && self.state.progress.validated() != Some(done)
    }

    /// Whether the state is to be saved before the next step.
    pub fn checkpoint_is_due(&self) -> bool {
        let done = self.state.progress.steps();
        self.options.save_every.is_some_and(|every| done > self.resumed_at && done.is_multiple_of(every))
    }

    /// How the run has ended, if no step is left. Ask after a due validation, which can decide it.
    pub fn end(&self) -> Option<End> {
        let progress = &self.state.progress;
        if progress.steps() >= self.schedule.steps {
            return Some(End::Planned);
        }
        let over = self.options.patience.is_some_and(|p| patience::is_over(&progress.validation, p));
        over.then_some(End::Patience)
    }

    /// Measures the validation loss of the adapter that would be written now, so that the losses of a run
    /// compare.
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
        self.state.progress.validation.push((done, loss));
        if self.options.patience.is_some() && patience::is_best(&self.state.progress.validation) {
            self.state.best = Some(self.state.matrices.clone());
        }
        let epoch = done as f64 / self.steps_of_epoch as f64;
        Ok(Validation { done, epoch, loss, seconds: start.elapsed().as_secs_f64() })
    }

    /// Takes one step.
    ///
    /// # Errors
    /// [`Error::Diverged`], which leaves the matrices as they were; the file of hidden states.
    pub fn step(&mut self) -> Result<Step> {
        let start = Instant::now();
        let done = self.state.progress.steps();
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
            self.order.insert(current.unwrap_or_else(|| {
                (epoch, batches::order(self.data.examples.len(), self.options.seed, epoch))
            }));
        let batch = order.chunks(self.options.batch_size).nth((done % self.steps_of_epoch) as usize);
        batch.unwrap_or_default().to_vec()
    }

    /// Ends the run, whether or not steps are left, and leaves the model with the matrices to keep: the last
    /// ones, or with patience the best, with what they gained shrunk.
    pub fn finish(self) -> TrainReport {
        let end = self.end().filter(|_| !self.validation_is_due()).unwrap_or(End::Stopped);
        let best = self.state.best.as_ref().zip(patience::best(&self.state.progress.validation));
        let (kept, kept_steps) = match best {
            Some((matrices, (steps, _))) => (matrices, steps),
            None => (&self.state.matrices, self.state.progress.steps()),
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

/// Sets each U to its value, with what it gained since `initial` multiplied by `factor`.
fn set_shrunk(
    model: &mut Transformer<'_, f32>,
    matrices: &[Array2<f32>],
    initial: &[Array2<f32>],
    factor: f32,
) {
    set(model, matrices);
    for (u, from) in model.trainable_mut().into_iter().zip(initial) {
        u.zip_mut_with(from, |u, &from| *u = from + factor * (*u - from));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::base::Base;
    use crate::train::data::DataOptions;

    #[test]
    fn a_run_that_cannot_take_a_step_is_refused() {
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/demo");
        let base = Base::open(demo.join("model.gguf")).unwrap();
        let mut model = Transformer::new(&base).unwrap();
        let tokenizer = base.tokenizer().unwrap();
        let mut data =
            Dataset::read(&demo.join("valid.jsonl"), &tokenizer, None, &DataOptions::default()).unwrap();
        let mut refusal = |data: &Dataset, options: &TrainOptions| {
            Trainer::new(&mut model, data, None, options).expect_err("no step is possible").to_string()
        };
        let no_batch = TrainOptions { batch_size: 0, ..Default::default() };
        assert!(refusal(&data, &no_batch).contains("batch size of 0"));
        data.examples.clear();
        assert!(refusal(&data, &TrainOptions::default()).contains("no examples"));
    }
}
