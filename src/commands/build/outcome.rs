//! What `curmerge build` prints after training.

use std::path::Path;

use serde_json::{Value, json};

use super::auto::Automatic;
use super::measured::Measured;
use super::method::Trainee;
use super::output::Output;
use crate::train::data::Dataset;
use crate::train::{End, Progress, TrainReport};
use crate::{Error, Result};

/// What a run did.
pub(super) struct Outcome<'a> {
    /// Where the adapter was written.
    pub(super) output: &'a Output,
    pub(super) data: &'a Dataset,
    pub(super) trainee: &'a Trainee,
    pub(super) report: TrainReport,
    /// The time that training took, without the runs that this one resumes.
    pub(super) seconds: f64,
    /// Steps of the runs that this one resumes.
    pub(super) resumed_at: Option<u64>,
    /// Tokens of the runs that this one resumes.
    pub(super) earlier_tokens: u64,
    /// The file to resume from, if the run was stopped.
    pub(super) checkpoint: Option<&'a Path>,
    /// The factor of `--max-forgetting` on what the model gained.
    pub(super) limit: Option<f64>,
    /// What was learned and forgotten, unless the run was stopped.
    pub(super) measured: Option<Measured>,
    /// What trials chose.
    pub(super) automatic: &'a Automatic,
}

impl Outcome<'_> {
    fn tokens_per_s(&self) -> f64 {
        (self.report.progress.tokens - self.earlier_tokens) as f64 / self.seconds
    }

    /// For `--json`.
    pub(super) fn json(&self) -> Value {
        let Self { report, data, .. } = self;
        let validation = report.progress.validation.iter().map(|(s, l)| json!({"steps": s, "loss": l}));
        let mut json = json!({
            "adapter": self.output.path(),
            "steps": report.progress.steps(),
            "planned_steps": report.planned_steps,
            "kept_steps": report.kept_steps,
            "resumed_at": self.resumed_at,
            "end": match report.end {
                End::Planned => "planned",
                End::Patience => "patience",
                End::Stopped => "stopped",
                End::Diverged => "diverged",
                End::Worse => "worse",
            },
            "checkpoint": self.checkpoint,
            "examples": data.examples.len(),
            "examples_cut": data.cut,
            "tokens": report.progress.tokens,
            "seconds": self.seconds,
            "tokens_per_s": self.tokens_per_s(),
            "loss": report.loss(),
            "losses": report.progress.losses,
            "initial_validation": report.progress.initial_validation,
            "validation": validation.collect::<Vec<_>>(),
            "trained_numbers": self.trainee.trained_numbers(),
            "limit_factor": self.limit,
            "automatic": self.automatic.json(),
        });
        if let (Some(measured), Some(fields)) = (&self.measured, json.as_object_mut()) {
            measured.json(fields);
        }
        json
    }

    /// The error of a run that taught nothing. What is best of it is kept.
    ///
    /// # Errors
    /// That error.
    pub(super) fn check(&self) -> Result<()> {
        let Progress { initial_validation, validation, .. } = &self.report.progress;
        let Some((initial, (_, last))) = initial_validation.zip(validation.last().copied()) else {
            return Ok(());
        };
        let problem = match self.report.end {
            End::Diverged => format!(
                "the loss was no longer a number after {} steps (held-out loss before training {initial:.4})",
                self.report.progress.steps()
            ),
            End::Worse => {
                format!("the held-out loss was {initial:.4} before training, and {last:.4} at the end")
            }
            End::Planned | End::Patience | End::Stopped => return Ok(()),
        };
        let best = self.report.kept_validation().unwrap_or(last);
        let kept = self.report.kept_steps;
        let help = format!(
            "it has the best matrices, those after step {kept} (loss {best:.4}): train anew with a lower --lr"
        );
        Err(Error::file(self.output.path(), problem, help))
    }

    /// For a terminal. U was multiplied by `shrink`.
    ///
    /// # Errors
    /// An adapter's file that cannot be read.
    pub(super) fn text(&self, shrink: f32) -> Result<String> {
        let Self { output, report, seconds, .. } = self;
        let mut text = String::new();
        let (steps, planned) = (report.progress.steps(), report.planned_steps);
        match report.end {
            End::Stopped => text += &format!("stopped  at step {steps} of {planned}\n"),
            End::Patience => {
                let why = "the loss on --valid no longer improved";
                text += &format!("ended    at step {steps} of {planned}: {why}\n");
            }
            End::Diverged => {
                text += &format!("ended    at step {steps} of {planned}: the loss was no longer a number\n");
            }
            End::Planned | End::Worse => {}
        }
        let (trained, rate) = (steps - self.resumed_at.unwrap_or(0), self.tokens_per_s());
        text += &format!("trained  {trained} steps in {seconds:.0} s, {rate:.0} tokens/s\n");
        if let Some(first) = report.progress.losses.first() {
            let before = if shrink == 1.0 { "" } else { ", before --shrink" };
            let last = report.loss();
            text += &format!("loss     {first:.4} at first, {last:.4} over the last steps{before}\n");
        }
        if let Some(loss) = report.progress.initial_validation {
            text += &format!("valid    {loss:.4} before the first step\n");
        }
        for (steps, loss) in &report.progress.validation {
            text += &format!("valid    {loss:.4} after {steps} steps\n");
        }
        if report.kept_steps < steps {
            text += &format!("kept     the matrices after step {}, the best on --valid\n", report.kept_steps);
        }
        if let Some(factor) = self.limit.filter(|factor| *factor < 1.0) {
            text += &format!("scaled   what was gained by {factor:.3}, to keep --max-forgetting\n");
        }
        if let Some(measured) = &self.measured {
            text += &measured.text();
        }
        let file = output.file();
        let bytes = std::fs::metadata(&file).map_err(|e| Error::io(&file, "read", e))?.len();
        text += &format!("adapter  {} ({bytes} bytes)\n", output.path().display());
        if let Some(checkpoint) = self.checkpoint {
            text += &format!("resume   {}: the same command line with --resume\n", checkpoint.display());
        } else if report.end == End::Stopped {
            let init = output.path().display();
            text +=
                &format!("go on    with --init {init} and another -o; --save-every makes runs that resume\n");
        }
        Ok(text)
    }
}
