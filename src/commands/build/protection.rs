//! What `curmerge build` does so that the model keeps what it knew.

use clap::{Args, ValueEnum};
use curmerge_formats::sha256_hex;

use super::method::Trainee;
use super::training::positive;
use crate::Result;
use crate::base::Base;
use crate::commands::anchor::{AnchorArgs, AnchorTexts};
use crate::commands::report::progress;
use crate::model::Transformer;
use crate::train::anchor::Anchor;
use crate::train::anchor::budget::{self, Budget};
use crate::train::data::Dataset;
use crate::train::fisher::{self, Fisher, WeightFisher};
use crate::train::{Penalty, Replay, TrainOptions};

/// How the model is kept from forgetting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Protection {
    /// Not at all.
    None,
    /// What U gained is multiplied by --shrink at the end.
    Scale,
    /// The divergence from the base on a text of the anchor is added to the loss of every step: up to
    /// twice the time.
    Replay,
    /// Changes of the model are penalized by what they change on the anchor (its Fisher information): no pass
    /// more a step. For --method lora it is less exact (K-FAC of each matrix), and takes as many bytes as a
    /// matrix of m outputs and n inputs has m^2 + n^2; n^2 once for matrices that share an input.
    #[default]
    Fisher,
}

/// How the model is kept from forgetting.
#[derive(Clone, Debug, Args)]
pub struct ProtectionArgs {
    /// How the model is kept from forgetting [default: fisher; for --method lora replay; scale with --shrink or
    /// --anchor none].
    #[arg(long, value_enum)]
    pub protect: Option<Protection>,
    /// With --protect scale: factor on what U gained, at the end of the run. Below 1 the model learns
    /// less, and forgets much less [default: 0.55].
    #[arg(long)]
    pub shrink: Option<f32>,
    /// With --protect fisher or replay: strength of the penalty. A higher one keeps more and learns less
    /// [default: 110 for fisher, 10 for replay; for --method lora 28 and 10].
    #[arg(long)]
    pub lambda: Option<f32>,
    /// Upper limit of what the model may forget: KL(base || model), nats a token, on new texts that it writes
    /// itself. What it gained is scaled down at the end until that holds. Rounding a model to Q8_0 costs
    /// 0.0013, to Q4_K_M 0.03.
    #[arg(long, value_name = "KL")]
    pub max_forgetting: Option<f64>,
    /// Keep in the adapter what protects this task when --init trains the adapter further on another: the
    /// Fisher information on up to 128 examples. It takes up to 270 KB a matrix at rank 32. For --method
    /// curlora and an adapter of the program's own format.
    #[arg(long)]
    pub keep_fisher: bool,
    /// Texts of what the model is to keep.
    #[command(flatten)]
    pub anchor: AnchorArgs,
    /// Whether A and B of a LoRA are trained.
    #[arg(skip)]
    of_lora: bool,
}

impl ProtectionArgs {
    /// The same with a protection for a run that names none, which may be of a LoRA's A and B.
    pub(super) fn with_default(&self, of_lora: bool) -> Self {
        let default = match (self.shrink, self.anchor.exists(), of_lora) {
            (Some(_), ..) | (_, false, _) => Protection::Scale,
            (_, _, true) => Protection::Replay,
            _ => Protection::Fisher,
        };
        Self { protect: Some(self.protect.unwrap_or(default)), of_lora, ..self.clone() }
    }

    /// How the model is kept from forgetting.
    pub(super) fn protect(&self) -> Protection {
        self.protect.unwrap_or_default()
    }

    /// Refuses numbers that cannot be used, and `--anchor none` where the run, which may select by signal,
    /// needs texts.
    pub(super) fn check(&self, by_signal: bool) -> Result<()> {
        positive("shrink", self.shrink().into(), false)?;
        if let Some(max_kl) = self.max_forgetting {
            positive("max-forgetting", max_kl, false)?;
            self.anchor.check("--max-forgetting")?;
        }
        if self.has_penalty() {
            self.anchor.check("--protect fisher or replay")?;
        }
        if by_signal {
            self.anchor.check("--select signal")?;
        }
        positive("lambda", self.lambda().into(), true)
    }

    /// The factor on what U gained.
    pub(super) fn shrink(&self) -> f32 {
        let default = if self.protect() == Protection::Scale { TrainOptions::default().shrink } else { 1.0 };
        self.shrink.unwrap_or(default)
    }

    /// What decides the result, by option; `texts` is the number of the anchor's texts, 0 if none are read. A
    /// run without them has the settings of earlier checkpoints.
    pub(super) fn settings(&self, texts: usize) -> Result<Vec<(&'static str, String)>> {
        let mut settings = vec![("--shrink", self.shrink().to_string())];
        if self.has_penalty() {
            let name = if self.protect() == Protection::Replay { "replay" } else { "fisher" };
            settings.extend([("--protect", name.to_owned()), ("--lambda", self.lambda().to_string())]);
        }
        if let Some(max_kl) = self.max_forgetting {
            settings.push(("--max-forgetting", max_kl.to_string()));
        }
        if texts > 0 {
            settings.extend(self.anchor.settings(texts)?);
        }
        Ok(settings)
    }

    /// What the adapter records: the settings of a penalty.
    pub(super) fn record(&self, texts: usize) -> Result<Option<String>> {
        if !self.has_penalty() && self.max_forgetting.is_none() {
            return Ok(None);
        }
        let settings = self.settings(texts)?;
        let words = settings.iter().map(|(option, value)| format!("{option} {value}"));
        Ok(Some(words.collect::<Vec<_>>().join(" ")))
    }

    /// The penalty on the matrices that are attached to `model`, if there is to be one. `trainee` has what
    /// they belong to.
    pub(super) fn penalty<'b>(
        &self,
        model: &mut Transformer<'b, f32>,
        trainee: &Trainee,
        texts: &AnchorTexts<'_>,
    ) -> Result<Option<Penalty<'b>>> {
        if !self.has_penalty() {
            return Ok(None);
        }
        // What the base knows, also for an adapter that is trained further: U = 0.
        let matrices: Vec<_> = model.trainable_mut().iter().map(|u| (*u).clone()).collect();
        model.outer_mut().into_iter().for_each(|u| u.fill(0.0));
        let (anchor, seed) = (texts.get(model)?, texts.seed);
        let penalty = if self.protect() == Protection::Replay {
            let (reference, anchor) = (model.clone(), anchor.clone());
            Penalty::Replay(Box::new(Replay { reference, anchor, lambda: self.lambda().into(), seed }))
        } else {
            let lambda = self.lambda();
            match trainee.lora_scale() {
                Some(scale) => {
                    let fisher = weight_fisher(model, anchor, texts);
                    Penalty::WeightFisher { fisher, scale, lambda }
                }
                None => {
                    let fisher = fisher(model, trainee, anchor, texts)?;
                    Penalty::Fisher { fisher, earlier: trainee.earlier_tasks(), lambda }
                }
            }
        };
        model.trainable_mut().into_iter().zip(matrices).for_each(|(u, value)| u.assign(&value));
        Ok(Some(penalty))
    }

    /// The number of the anchor's texts for a run over these examples, which may select by their signal; 0
    /// without need.
    pub(super) fn anchor_texts(
        &self,
        model: &Transformer<'_, f32>,
        (base, data, options): (&Base, &Dataset, &TrainOptions),
        by_signal: bool,
    ) -> usize {
        let passes = match (self.protect(), by_signal) {
            (Protection::Fisher, _) => budget::WRITING + budget::FISHER,
            (Protection::Replay, _) | (_, true) => budget::WRITING,
            _ => return 0,
        };
        let budget = Budget::new(model.parameters_per_token(), trained_tokens(data, options));
        let selects = by_signal.then_some((data, options.seed));
        self.anchor.texts(base, &budget, passes, selects)
    }

    /// Measures what protects this task later, of a trained `model`, if that is to be kept.
    pub(super) fn keep(
        &self,
        model: &mut Transformer<'_, f32>,
        data: &Dataset,
        options: &TrainOptions,
    ) -> Option<Fisher> {
        self.keep_fisher.then(|| {
            let bar = progress::spinner("measuring what keeps this task");
            let fisher = fisher::of_task(model, data, options.seed, options.memory);
            bar.finish_and_clear();
            fisher
        })
    }

    /// Whether a run, which may select by signal, reads the anchor.
    pub(super) fn reads_anchor(&self, by_signal: bool) -> bool {
        self.has_penalty() || by_signal
    }

    fn has_penalty(&self) -> bool {
        matches!(self.protect(), Protection::Fisher | Protection::Replay)
    }

    /// The strength of the penalty.
    pub(super) fn lambda(&self) -> f32 {
        self.lambda.unwrap_or(match (self.protect(), self.of_lora) {
            (Protection::Replay, _) => 10.0,
            (_, true) => 28.0,
            _ => 110.0,
        })
    }
}

/// About how many tokens pass through the model in a run.
pub(super) fn trained_tokens(data: &Dataset, options: &TrainOptions) -> u64 {
    let tokens: u64 = data.examples.iter().map(|example| example.tokens.len() as u64).sum();
    let examples = data.examples.len().max(1);
    let seen = options.steps(examples).saturating_mul(options.batch_size as u64);
    let all = u128::from(tokens) * u128::from(seen) / examples as u128;
    u64::try_from(all).unwrap_or(u64::MAX)
}

/// The Fisher information of the matrices that are attached to `model`, which are zero, on the anchor.
fn fisher(
    model: &mut Transformer<'_, f32>,
    trainee: &Trainee,
    anchor: &Anchor,
    &AnchorTexts { kept, seed, memory, .. }: &AnchorTexts<'_>,
) -> Result<Fisher> {
    let key = kept.key("fisher", model).map(|key| {
        let (targets, scale) = trainee.frozen_matrices();
        key.with("targets", sha256_hex(targets.as_bytes()))
            .with("scale", scale)
            .with("anchor", anchor.sha256())
            .with("seed", seed)
            .with("estimate", fisher::ESTIMATE)
    });
    let shapes: Vec<_> = model.trainable_mut().iter().map(|u| u.dim()).collect();
    kept.result(
        key,
        |file| Fisher::restore(file, &shapes, anchor.texts.len()),
        || {
            let bar = progress::bar("measuring what to keep", anchor.texts.len() as u64);
            let fisher =
                Fisher::estimate(model, anchor, seed, memory, |done, _| bar.set_position(done as u64));
            bar.finish_and_clear();
            Ok(fisher)
        },
    )
}

/// The Fisher information of the matrices that a LoRA of `model`, whose B is zero, changes, on the anchor. It
/// is too large to be kept from run to run.
fn weight_fisher(
    model: &mut Transformer<'_, f32>,
    anchor: &Anchor,
    &AnchorTexts { seed, memory, .. }: &AnchorTexts<'_>,
) -> WeightFisher {
    let bar = progress::bar("measuring what to keep", anchor.texts.len() as u64);
    let progress = |done, _| bar.set_position(done as u64);
    let fisher = WeightFisher::estimate(model, anchor, seed, memory, progress);
    bar.finish_and_clear();
    fisher
}
