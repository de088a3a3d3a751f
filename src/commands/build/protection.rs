//! What `curmerge build` does so that the model keeps what it knew.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use curmerge_formats::sha256_hex;

use super::training::positive;
use crate::base::Base;
use crate::commands::arguments::read_text;
use crate::commands::report::progress;
use crate::model::Transformer;
use crate::train::anchor::{Anchor, AnchorOptions};
use crate::train::fisher::{Fisher, WeightFisher};
use crate::train::{Penalty, Replay, TrainOptions};
use crate::{Error, Result};

/// How the model is kept from forgetting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Protection {
    /// Not at all.
    None,
    /// What U gained is multiplied by --shrink at the end.
    #[default]
    Scale,
    /// The divergence from the base on a text of the anchor is added to the loss of every step: up to
    /// twice the time.
    Replay,
    /// Changes of the model are penalized by what they change on the anchor (its Fisher information): no pass
    /// more a step. For --method lora it is less exact (K-FAC of each matrix), and takes as many bytes as a
    /// matrix of m outputs and n inputs has m^2 + n^2; n^2 once for matrices that share an input.
    Fisher,
}

/// How the model is kept from forgetting.
#[derive(Clone, Debug, Args)]
pub struct ProtectionArgs {
    /// How the model is kept from forgetting.
    #[arg(long, value_enum, default_value_t = Protection::default())]
    pub protect: Protection,
    /// With --protect scale: factor on what U gained, at the end of the run. Below 1 the model learns
    /// less, and forgets much less [default: 0.55].
    #[arg(long)]
    pub shrink: Option<f32>,
    /// With --protect fisher or replay: strength of the penalty. A higher one keeps more and learns less
    /// [default: 30 for fisher, 10 for replay].
    #[arg(long)]
    pub lambda: Option<f32>,
    /// With --protect fisher or replay: texts of what the model is to keep. `self`: the model writes
    /// them itself; or a file of plain text.
    #[arg(long, value_name = "self|FILE", default_value = "self", value_parser = parse_anchor)]
    pub anchor: AnchorSource,
    /// With --protect fisher or replay: the number of texts, of 128 tokens each.
    #[arg(long, value_name = "N", default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..))]
    pub anchor_texts: u32,
}

/// Where the anchor's texts come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnchorSource {
    /// The model writes them.
    Written,
    /// A file has them.
    File(PathBuf),
}

fn parse_anchor(text: &str) -> std::result::Result<AnchorSource, std::convert::Infallible> {
    Ok(if text == "self" { AnchorSource::Written } else { AnchorSource::File(text.into()) })
}

impl ProtectionArgs {
    /// Refuses numbers that cannot be used.
    pub(super) fn check(&self) -> Result<()> {
        positive("shrink", self.shrink().into(), false)?;
        positive("lambda", self.lambda().into(), true)
    }

    /// The factor on what U gained.
    pub(super) fn shrink(&self) -> f32 {
        let default = if self.protect == Protection::Scale { TrainOptions::default().shrink } else { 1.0 };
        self.shrink.unwrap_or(default)
    }

    /// What decides the result, by option. A run without a penalty has the settings of earlier checkpoints.
    pub(super) fn settings(&self) -> Result<Vec<(&'static str, String)>> {
        let mut settings = vec![("--shrink", self.shrink().to_string())];
        if !self.has_penalty() {
            return Ok(settings);
        }
        let anchor = match &self.anchor {
            AnchorSource::Written => "self".to_owned(),
            AnchorSource::File(path) => {
                let bytes = std::fs::read(path).map_err(|e| Error::io(path, "read the anchor", e))?;
                format!("SHA-256 {}", sha256_hex(&bytes))
            }
        };
        settings.extend([
            ("--protect", if self.protect == Protection::Replay { "replay" } else { "fisher" }.to_owned()),
            ("--lambda", self.lambda().to_string()),
            ("--anchor", anchor),
            ("--anchor-texts", self.anchor_texts.to_string()),
        ]);
        Ok(settings)
    }

    /// What the adapter records: the settings of a penalty.
    pub(super) fn record(&self) -> Result<Option<String>> {
        if !self.has_penalty() {
            return Ok(None);
        }
        let settings = self.settings()?;
        let words = settings.iter().map(|(option, value)| format!("{option} {value}"));
        Ok(Some(words.collect::<Vec<_>>().join(" ")))
    }

    /// The penalty on the matrices that are attached to `model`, if there is to be one. `lora_scale` is the scale
    /// of a LoRA, if A and B of one are trained.
    pub(super) fn penalty<'b>(
        &self,
        base: &'b Base,
        model: &mut Transformer<'b, f32>,
        lora_scale: Option<f32>,
        (seed, memory): (u64, u64),
    ) -> Result<Option<Penalty<'b>>> {
        if !self.has_penalty() {
            return Ok(None);
        }
        // What the base knows, also for an adapter that is trained further: U = 0.
        let matrices: Vec<_> = model.trainable_mut().iter().map(|u| (*u).clone()).collect();
        let outer = model.outer_slots();
        let mut trained = model.trainable_mut();
        outer.into_iter().for_each(|slot| trained[slot].fill(0.0));
        let (texts, length) = (self.anchor_texts as usize, self.anchor_length(base));
        let options = AnchorOptions { texts, length, seed };
        let anchor = self.anchor(base, model, memory, &options)?;
        let penalty = if self.protect == Protection::Replay {
            let reference = model.clone();
            Penalty::Replay(Box::new(Replay { reference, anchor, lambda: self.lambda().into(), seed }))
        } else {
            let bar = progress::bar("measuring what to keep", anchor.texts.len() as u64);
            let progress = |done, _| bar.set_position(done as u64);
            model.limit_activations(memory);
            let lambda = self.lambda();
            let penalty = match lora_scale {
                Some(scale) => {
                    let fisher = WeightFisher::estimate(model, &anchor, seed, progress);
                    Penalty::WeightFisher { fisher, scale, lambda }
                }
                None => {
                    let shapes: Vec<_> = matrices.iter().map(|u| u.dim()).collect();
                    let fisher = Fisher::estimate(model, &shapes, &anchor, seed, progress);
                    Penalty::Fisher { fisher, lambda }
                }
            };
            bar.finish_and_clear();
            penalty
        };
        model.trainable_mut().into_iter().zip(matrices).for_each(|(u, value)| u.assign(&value));
        Ok(Some(penalty))
    }

    /// The file that `--anchor` names, if the run reads it.
    pub(super) fn anchor_file(&self) -> Option<&Path> {
        match &self.anchor {
            AnchorSource::File(path) if self.has_penalty() => Some(path),
            _ => None,
        }
    }

    /// Tokens of the anchor's texts; 0 without a penalty. Learned positions limit them.
    pub(super) fn anchor_length(&self, base: &Base) -> usize {
        let length = AnchorOptions::default().length.min(base.max_tokens().unwrap_or(usize::MAX));
        if self.has_penalty() { length } else { 0 }
    }

    fn has_penalty(&self) -> bool {
        matches!(self.protect, Protection::Fisher | Protection::Replay)
    }

    fn lambda(&self) -> f32 {
        self.lambda.unwrap_or(if self.protect == Protection::Replay { 10.0 } else { 30.0 })
    }

    fn anchor(
        &self,
        base: &Base,
        model: &mut Transformer<'_, f32>,
        memory: u64,
        options: &AnchorOptions,
    ) -> Result<Anchor> {
        let tokenizer = base.tokenizer()?;
        match &self.anchor {
            AnchorSource::Written => {
                let template = base.chat_template(&tokenizer)?;
                model.cache_packed_weights(memory);
                let bar = progress::bar("writing texts of what to keep", options.length as u64);
                let anchor =
                    Anchor::self_written(model, &tokenizer, template.as_ref(), options, |done, _| {
                        bar.set_position(done as u64);
                    });
                bar.finish_and_clear();
                anchor
            }
            AnchorSource::File(path) => {
                let text = read_text(path)?;
                Anchor::from_text(&tokenizer, &text, options).map_err(|error| error.in_file(path))
            }
        }
    }
}
