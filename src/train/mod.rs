//! Fitting the matrices U: epochs over shuffled examples, AdamW, warm-up and cosine, validation.
//!
//! The loop knows neither files nor terminals: an [`Observer`] hears of every step, and a flag stops it after the step
//! under way.

pub mod batches;
pub mod data;
pub mod optimizer;
pub mod schedule;

use std::sync::atomic::{AtomicBool, Ordering};

use ndarray::Array2;

use crate::model::{Batch, Transformer};
use data::{Dataset, Example};
use optimizer::{AdamW, AdamWOptions};
use schedule::Schedule;

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
}

impl TrainOptions {
    /// Steps that a run over `examples` takes.
    pub fn steps(&self, examples: usize) -> u64 {
        let whole = self.epochs * examples.div_ceil(self.batch_size) as u64;
        self.max_steps.map_or(whole, |max| whole.min(max))
    }
}

/// One step, as it ends.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Steps done.
    pub done: u64,
    /// Mean loss of the last few steps, nats a target token.
    pub loss: f64,
    /// Tokens that this step put through the model.
    pub tokens: u64,
}

/// Hears of a run as it goes.
pub trait Observer {
    /// A step is done.
    fn step(&mut self, step: &Step);
    /// The validation loss at a number of steps, nats a target token.
    fn validation(&mut self, steps: u64, loss: f64);
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrainReport {
    /// Steps done.
    pub steps: u64,
    /// Steps the schedule was made for.
    pub planned_steps: u64,
    /// The loss or a gradient was no longer a number, and the run ended before that step.
    pub diverged: bool,
    /// Tokens that went through the model.
    pub tokens: u64,
    /// Mean training loss of the last steps, before U is shrunk, nats a target token.
    pub loss: f64,
    /// Mean training loss of each step.
    pub losses: Vec<f64>,
    /// Validation loss after each epoch and at the end, each of the shrunk U, with the number of steps.
    pub validation: Vec<(u64, f64)>,
}

/// Train the attached matrices of `model` until the run is over or `stop` is set. The result depends on the model, the
/// data and the options alone, not on the number of threads.
pub fn train(
    model: &mut Transformer<'_, f32>,
    data: &Dataset,
    valid: Option<&Dataset>,
    options: &TrainOptions,
    stop: &AtomicBool,
    observer: &mut dyn Observer,
) -> TrainReport {
    let steps = options.steps(data.examples.len());
    let warmup = (steps as f64 * WARMUP_SHARE).round() as u64;
    let schedule = Schedule { peak: options.learning_rate, warmup, steps };
    let mut adam = AdamW::new(options.adamw, model.trained().iter().map(|u| u.dim()));
    let mut report = TrainReport { planned_steps: steps, ..Default::default() };
    let began: Vec<Array2<f32>> = model.trained().iter().map(|u| (*u).clone()).collect();
    'run: for epoch in 0.. {
        let order = batches::order(data.examples.len(), options.seed, epoch);
        for batch in order.chunks(options.batch_size) {
            if report.steps == steps || stop.load(Ordering::Relaxed) {
                break 'run;
            }
            let examples: Vec<&Example> = batch.iter().map(|&i| &data.examples[i]).collect();
            let (loss, mut gradients, tokens) = step_gradients(model, &examples);
            let gradient_norm = optimizer::clip(&mut gradients, options.clip);
            if !(loss + gradient_norm).is_finite() {
                report.diverged = true;
                break 'run;
            }
            let learning_rate = schedule.rate(report.steps);
            adam.step(model.trained(), &gradients, learning_rate as f32);
            report.steps += 1;
            report.tokens += tokens;
            report.losses.push(loss);
            let recent = &report.losses[report.losses.len().saturating_sub(LOSS_WINDOW)..];
            report.loss = recent.iter().sum::<f64>() / recent.len() as f64;
            let step = Step { done: report.steps, loss: report.loss, tokens };
            observer.step(&step);
        }
        if report.steps < steps && !stop.load(Ordering::Relaxed) && valid.is_some() {
            // Of the adapter that would be written now, so that the losses of a run compare.
            let grown: Vec<Array2<f32>> = model.trained().iter().map(|u| (*u).clone()).collect();
            shrink(model, &began, options.shrink);
            validate(model, valid, &mut report, observer);
            model.trained().into_iter().zip(grown).for_each(|(u, grown)| *u = grown);
        }
    }
    shrink(model, &began, options.shrink);
    // Whoever stops a run wants the adapter now.
    if !stop.load(Ordering::Relaxed) && !report.diverged {
        validate(model, valid, &mut report, observer);
    }
    report
}

/// Multiply what each U gained since it was `began` by `factor`.
fn shrink(model: &mut Transformer<'_, f32>, began: &[Array2<f32>], factor: f32) {
    for (u, from) in model.trained().into_iter().zip(began) {
        u.zip_mut_with(from, |u, &from| *u = from + factor * (*u - from));
    }
}

fn validate(
    model: &Transformer<'_, f32>,
    valid: Option<&Dataset>,
    report: &mut TrainReport,
    observer: &mut dyn Observer,
) {
    if let Some(valid) = valid {
        let loss = mean_loss(model, valid);
        report.validation.push((report.steps, loss));
        observer.validation(report.steps, loss);
    }
}

/// The mean loss over all target tokens of a data set, nats a token.
pub fn mean_loss(model: &Transformer<'_, f32>, data: &Dataset) -> f64 {
    let (mut sum, mut count) = (0.0, 0);
    for pass in batches::passes(&data.examples) {
        sum -= model.log_probs(&pass).iter().sum::<f64>();
        count += pass.predictions().len();
    }
    sum / count as f64
}

/// The mean loss over the target tokens of these examples, its gradients, and the tokens of the pass.
fn step_gradients(model: &Transformer<'_, f32>, examples: &[&Example]) -> (f64, Vec<Array2<f32>>, u64) {
    let passes = batches::passes(examples.iter().copied());
    let targets: usize = passes.iter().map(|p| p.predictions().len()).sum();
    let weight = 1.0 / targets as f64;
    let mut sum = 0.0;
    let mut total: Vec<Array2<f32>> = Vec::new();
    for pass in &passes {
        let (log_probs, gradients) = model.gradients(pass, weight);
        sum -= log_probs.iter().sum::<f64>();
        if total.is_empty() {
            total = gradients;
        } else {
            total.iter_mut().zip(&gradients).for_each(|(t, g)| *t += g);
        }
    }
    (sum * weight, total, passes.iter().map(|p: &Batch| p.tokens().len() as u64).sum())
}
