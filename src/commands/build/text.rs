//! What `curmerge build` says before and after training.

use std::path::Path;

use curmerge_formats::adapter::Adapter;

use super::{BuildArgs, trained_numbers};
use crate::base::Base;
use crate::commands::report::terminal;
use crate::train::data::Dataset;
use crate::train::{End, TrainReport};
use crate::{Error, Result};

/// The speed of a run, without the runs that it resumes.
pub(super) struct Pace {
    pub(super) steps: u64,
    pub(super) seconds: f64,
    /// Tokens a second.
    pub(super) rate: f64,
}

/// The word for the way a run ended.
pub(super) fn end(end: End) -> &'static str {
    match end {
        End::Planned => "planned",
        End::Patience => "patience",
        End::Stopped => "stopped",
    }
}

pub(super) fn introduce(
    base: &Base,
    data: &Dataset,
    adapter: &Adapter,
    steps: u64,
    resumed_at: Option<u64>,
) -> Result<()> {
    let config = base.config();
    let tokens: usize = data.examples.iter().map(|e| e.tokens.len()).sum();
    let mut text = format!(
        "base     {} ({}, {}, {} blocks of width {})\n",
        terminal::plain(&base.name()),
        base.architecture().name,
        base.container(),
        config.layers,
        config.d_model,
    );
    let count = data.examples.len();
    text += &format!("data     {count} examples, {tokens} tokens, loss on {}\n", data.target_tokens());
    if data.cut > 0 {
        text += &format!("         {} examples were longer than --max-seq-len and cut\n", data.cut);
    }
    if data.dropped > 0 {
        text += &format!("         {} examples have no target tokens and were left out\n", data.dropped);
    }
    text += &format!(
        "targets  {} matrices, rank {}, {} selection, seed {}: {} numbers to train\n",
        adapter.targets.len(),
        adapter.rank,
        adapter.selection,
        adapter.seed,
        trained_numbers(adapter),
    );
    text += &format!("steps    {steps}\n");
    if let Some(done) = resumed_at {
        text += &format!("resumed  after step {done} of {steps}\n");
    }
    terminal::print(&text)
}

pub(super) fn conclude(
    args: &BuildArgs,
    output: &Path,
    report: &TrainReport,
    pace: &Pace,
    checkpoint: Option<&Path>,
) -> Result<()> {
    let mut text = String::new();
    let (steps, planned) = (report.progress.steps(), report.planned_steps);
    match report.end {
        End::Stopped => text += &format!("stopped  at step {steps} of {planned}\n"),
        End::Patience => {
            text +=
                &format!("ended    at step {steps} of {planned}: the loss on --valid no longer improved\n")
        }
        End::Planned => {}
    }
    let Pace { steps: trained, seconds, rate } = pace;
    text += &format!("trained  {trained} steps in {seconds:.0} s, {rate:.0} tokens/s\n");
    if let Some(first) = report.progress.losses.first() {
        let before = if args.training.shrink == 1.0 { "" } else { ", before --shrink" };
        text += &format!("loss     {first:.4} at first, {:.4} over the last steps{before}\n", report.loss());
    }
    for (steps, loss) in &report.progress.validation {
        text += &format!("valid    {loss:.4} after {steps} steps\n");
    }
    if report.kept_steps < steps {
        text += &format!("kept     the matrices after step {}, the best on --valid\n", report.kept_steps);
    }
    let bytes = std::fs::metadata(output).map_err(|e| Error::io(output, "read", e))?.len();
    text += &format!("adapter  {} ({bytes} bytes)\n", output.display());
    if let Some(checkpoint) = checkpoint {
        text += &format!("resume   {}: the same command line with --resume\n", checkpoint.display());
    }
    terminal::print(&text)
}
