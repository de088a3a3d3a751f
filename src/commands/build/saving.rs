//! What `curmerge build` saves beside the adapter. None of it changes the result. All outputs are checked
//! before training.

use std::path::{Path, PathBuf};

use clap::Args;
use curmerge_formats::output::OutputFile;

use crate::commands::report::terminal;
use crate::train::Observer;
use crate::train::checkpoint::CheckpointFile;
use crate::train::metrics::MetricsFile;
use crate::train::tensorboard::EventFile;
use crate::{Error, Result};

/// Checkpoints and logs.
#[derive(Clone, Debug, Args)]
pub struct SavingArgs {
    /// Every N steps, save what --resume needs in ADAPTER.checkpoint; Ctrl-C saves it too, after the current
    /// step. The file is removed when the run is over and the adapter is written.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub save_every: Option<u64>,
    /// Resume from ADAPTER.checkpoint, with the same command line. On the same kind of processor the adapter
    /// has the same bytes as if the run had never stopped. Only --threads, --save-every, --metrics, --report
    /// and --tensorboard may differ.
    #[arg(long)]
    pub resume: bool,
    /// Log each step and validation as a line of JSON: step, epoch, loss, learning_rate, gradient_norm,
    /// tokens, tokens_per_s and seconds of the step, or valid_loss. --resume removes the lines of steps that
    /// it takes again.
    #[arg(long, value_name = "FILE")]
    pub metrics: Option<PathBuf>,
    /// Write a page about the run: loss curves, what was learnt and forgotten, answers before and after, how much each
    /// matrix changed, settings and checksums. It is one file, for any browser.
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
    /// Log the same for TensorBoard, in an event file in this folder.
    #[arg(long, value_name = "FOLDER")]
    pub tensorboard: Option<PathBuf>,
}

impl SavingArgs {
    /// Whether the run has checkpoints.
    pub(super) fn checkpoints(&self) -> bool {
        self.save_every.is_some() || self.resume
    }

    /// Refuses files beside the output that cannot be written or that would replace an input, another
    /// output, or the checkpoint of an unfinished run.
    pub(super) fn check(&self, output: &Path, inputs: &[&Path]) -> Result<()> {
        let checkpoint = CheckpointFile::beside(output);
        if self.checkpoints() {
            drop(OutputFile::create(&checkpoint, inputs)?);
            if !self.resume && checkpoint.exists() {
                let problem = "an unfinished run left this checkpoint";
                return Err(Error::file(checkpoint, problem, "resume it with --resume, or delete it"));
            }
            // Before anything that takes long.
            if self.resume && !checkpoint.exists() {
                return Err(Error::NoCheckpoint { path: checkpoint });
            }
        }
        if !self.checkpoints() && checkpoint.exists() {
            terminal::warn(&format!(
                "{}: an unfinished run left this checkpoint, and this run begins anew; --resume goes on with it",
                checkpoint.display()
            ));
        }
        if let Some(metrics) = &self.metrics {
            if place(metrics) == place(output) || place(metrics) == place(&checkpoint) {
                let problem = "is another output of the run";
                return Err(Error::file(metrics, problem, "name another file with --metrics"));
            }
            drop(OutputFile::create(metrics, inputs)?);
            MetricsFile::check(metrics)?;
        }
        if let Some(report) = &self.report {
            let others = [Some(output), Some(checkpoint.as_path()), self.metrics.as_deref()];
            if others.into_iter().flatten().any(|other| place(other) == place(report)) {
                let problem = "is another output of the run";
                return Err(Error::file(report, problem, "name another file with --report"));
            }
            drop(OutputFile::create(report, inputs)?);
            if report.exists() {
                terminal::warn(&format!(
                    "{}: the file that stands there is replaced at the end",
                    report.display()
                ));
            }
        }
        Ok(())
    }

    /// The logs, opened for a run that resumes after `resumed_at` steps.
    pub(super) fn logs(&self, resumed_at: Option<u64>) -> Result<Vec<Box<dyn Observer>>> {
        let mut logs: Vec<Box<dyn Observer>> = Vec::new();
        if let Some(path) = &self.metrics {
            logs.push(Box::new(MetricsFile::open(path, resumed_at, warn)?));
        }
        if let Some(folder) = &self.tensorboard {
            logs.push(Box::new(EventFile::create(folder, resumed_at.unwrap_or(0), warn)?));
        }
        Ok(logs)
    }
}

fn warn(error: &Error) {
    terminal::warn(&format!("{error}; the run goes on without this log"));
}

/// Where a path leads: two spellings of one place are equal.
fn place(path: &Path) -> PathBuf {
    if let Ok(place) = path.canonicalize() {
        return place;
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    match (folder.canonicalize(), path.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => path.to_path_buf(),
    }
}
