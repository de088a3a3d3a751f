//! The options that decide the result of training. An option is added here and nowhere else in
//! `commands`: the field, its place in a checkpoint's identity ([`TrainingArgs::settings`]) and in the
//! library's options ([`TrainingArgs::options`]). The compiler points out an option that either forgets.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::commands::arguments::{Choice, parse_rate, parse_size};
use crate::train::TrainOptions;
use crate::train::optimizer::AdamWOptions;
use crate::{Error, Result};

/// How U is trained.
#[derive(Clone, Debug, Args)]
pub struct TrainingArgs {
    /// Examples to measure the loss on after each epoch and at the end.
    #[arg(long, value_name = "FILE", group = "validation")]
    pub valid: Option<PathBuf>,
    /// Train on all examples. Without --valid, one in 20 is held out (at most 200) if there are 100 or more,
    /// to measure what is learned.
    #[arg(long, conflicts_with = "valid")]
    pub no_hold_out: bool,
    /// Hold out this share of the examples, evenly spread, in place of --valid.
    #[arg(long, value_name = "SHARE", group = "validation", conflicts_with = "no_hold_out", value_parser = parse_share)]
    pub valid_split: Option<f64>,
    /// Use N of the examples, evenly spread over the files.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_examples: Option<u64>,
    /// Measure it every N steps instead, and at the end.
    #[arg(long, value_name = "N", requires = "validation", value_parser = clap::value_parser!(u64).range(1..))]
    pub valid_every: Option<u64>,
    /// End the run when the loss on --valid has not improved for P measurements. The adapter is that
    /// of the best measurement, even if the run reaches its last step or is stopped.
    #[arg(long, value_name = "P", requires = "validation", value_parser = clap::value_parser!(u64).range(1..))]
    pub patience: Option<u64>,
    /// Factor of the change: W + scale C U R.
    #[arg(long, default_value_t = 1.0)]
    pub scale: f32,
    /// Passes over the data.
    #[arg(long, default_value_t = TrainOptions::default().epochs, value_parser = clap::value_parser!(u64).range(1..))]
    pub epochs: u64,
    /// End after N steps, with a schedule of that length.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_steps: Option<u64>,
    /// Examples a step.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch_size: u32,
    /// Batches a step: the gradients of K batches are added up, for the mean loss over all their
    /// target tokens. The result has the same bytes as with K times the --batch-size. Memory depends
    /// on neither, since at most
    /// 1024 tokens or one example go through the model at a time.
    #[arg(long, default_value_t = 1, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    pub grad_accum: u32,
    /// Peak learning rate. It warms up over a tenth of the steps, then decays along a cosine. `auto`: what
    /// does best in short trials [default: 3e-3, or 1.5e-3 with --protect scale or none; for --method lora
    /// 1e-3, or 5e-4 with them].
    #[arg(long, value_name = "RATE|auto", value_parser = parse_rate)]
    pub lr: Option<Choice<f64>>,
    /// Share of U that a step subtracts, times the learning rate.
    #[arg(long, default_value_t = 0.0)]
    pub weight_decay: f32,
    /// Upper limit of the memory for activations of the backward pass, then for packed weights, such
    /// as 500M or
    /// 4G. What does not fit is computed again, which takes longer and gives the same results.
    #[arg(long, default_value = "400M", value_name = "SIZE", value_parser = parse_size)]
    pub memory: u64,
    /// Upper limit of the norm of the task's gradients. The penalty is added after it, so a limit below the
    /// usual norm makes --lambda weigh more [default: 1, or 10 with --protect fisher; for --method lora 1].
    #[arg(long)]
    pub clip: Option<f64>,
    /// Continue training this adapter: curmerge's own, with its targets, indices and U, or a LoRA (a PEFT
    /// folder or a GGUF file), which stays one.
    #[arg(long, value_name = "ADAPTER", conflicts_with_all = ["rank", "targets", "layers", "select", "scale"])]
    pub init: Option<PathBuf>,
}

fn parse_share(text: &str) -> std::result::Result<f64, String> {
    match text.parse() {
        Ok(share) if share > 0.0 && share < 1.0 => Ok(share),
        _ => Err("use a share between 0 and 1, such as 0.1".into()),
    }
}

impl TrainingArgs {
    /// Refuses numbers that cannot be used.
    pub(super) fn check(&self) -> Result<()> {
        if let Some(Choice::Given(lr)) = self.lr {
            positive("lr", lr, false)?;
        }
        if let Some(clip) = self.clip {
            positive("clip", clip, false)?;
        }
        positive("weight-decay", self.weight_decay.into(), true)?;
        positive("scale", self.scale.abs().into(), false)
    }

    /// What decides the result, by option. The names and the form of the values are part of the checkpoint's
    /// format. The caller adds the digests of the files and the adapter's scale.
    pub(super) fn settings(&self, (learning_rate, clip): (f64, f64)) -> Vec<(&'static str, String)> {
        let number = |value: Option<u64>| value.map_or("none".to_owned(), |value| value.to_string());
        // Without `..`, so that a new option does not compile until it is handled here.
        let Self {
            valid: _,
            no_hold_out: _,
            valid_split,
            max_examples,
            valid_every,
            patience,
            scale: _,
            epochs,
            max_steps,
            batch_size: _,
            grad_accum: _,
            lr: _,
            weight_decay,
            memory,
            clip: _,
            init: _,
        } = self;
        let mut settings = vec![
            ("--epochs", epochs.to_string()),
            ("--max-steps", number(*max_steps)),
            ("--batch-size times --grad-accum", self.examples_a_step().to_string()),
            ("--lr", learning_rate.to_string()),
            ("--weight-decay", weight_decay.to_string()),
            ("--clip", clip.to_string()),
            ("--memory", memory.to_string()),
            ("--valid-every", number(*valid_every)),
            ("--patience", number(*patience)),
        ];
        // Runs without these have the settings of earlier checkpoints.
        settings.extend(valid_split.map(|share| ("--valid-split", share.to_string())));
        settings.extend(max_examples.map(|most| ("--max-examples", most.to_string())));
        settings
    }

    /// The same for the library, for an adapter that is written to `output`.
    pub(super) fn options(
        &self,
        (learning_rate, clip, shrink, seed): (f64, f64, f32, u64),
        save_every: Option<u64>,
        output: &Path,
    ) -> TrainOptions {
        // Without `..`, on both sides: neither an option here nor one of the library can be forgotten.
        let &Self {
            valid: _,
            no_hold_out: _,
            valid_split: _,
            max_examples: _,
            valid_every,
            patience,
            scale: _,
            epochs,
            max_steps,
            batch_size: _,
            grad_accum: _,
            lr: _,
            weight_decay,
            memory,
            clip: _,
            init: _,
        } = self;
        TrainOptions {
            epochs,
            max_steps,
            batch_size: usize::try_from(self.examples_a_step()).unwrap_or(usize::MAX),
            learning_rate,
            adamw: AdamWOptions { weight_decay, ..Default::default() },
            clip,
            shrink,
            seed,
            valid_every,
            patience,
            save_every,
            memory,
            scratch: match output.parent() {
                Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
                _ => PathBuf::from("."),
            },
        }
    }

    /// The most examples that so many steps take.
    pub(super) fn examples_within(&self, steps: u64) -> usize {
        usize::try_from(steps.saturating_mul(self.examples_a_step())).unwrap_or(usize::MAX)
    }

    fn examples_a_step(&self) -> u64 {
        u64::from(self.batch_size) * u64::from(self.grad_accum)
    }
}

/// Refuses a number that is not positive, or 0 where that is allowed.
pub(super) fn positive(option: &str, x: f64, zero_allowed: bool) -> Result<()> {
    let fits = x.is_finite() && (x > 0.0 || zero_allowed && x == 0.0);
    let help = "give a positive number";
    if fits { Ok(()) } else { Err(Error::request(format!("--{option} {x} cannot be used"), help)) }
}
