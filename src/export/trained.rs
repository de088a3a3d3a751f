//! What an export writes: a CURLoRA adapter, or a LoRA that was trained.

use curmerge_formats::adapter::{Adapter, AdapterTarget};

use crate::Result;
use crate::base::Base;
use crate::card::{self, Record};
use crate::cur::Factors;
use crate::lora::{LoraOptions, LoraTarget, TrainedLora};

/// What an export writes.
#[derive(Clone, Copy, Debug)]
pub enum Trained<'a> {
    /// A CURLoRA adapter.
    Cur(&'a Adapter),
    /// A LoRA.
    Lora(&'a TrainedLora),
}

impl<'a> From<&'a Adapter> for Trained<'a> {
    fn from(adapter: &'a Adapter) -> Self {
        Self::Cur(adapter)
    }
}

impl<'a> From<&'a TrainedLora> for Trained<'a> {
    fn from(lora: &'a TrainedLora) -> Self {
        Self::Lora(lora)
    }
}

/// The change of one matrix, or of a part of a fused one.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target<'a> {
    Cur(&'a AdapterTarget),
    Lora(&'a LoraTarget),
}

impl<'a> Trained<'a> {
    /// The changes, in order.
    pub(super) fn targets(self) -> Vec<Target<'a>> {
        match self {
            Self::Cur(adapter) => adapter.targets.iter().map(Target::Cur).collect(),
            Self::Lora(lora) => lora.targets.iter().map(Target::Lora).collect(),
        }
    }

    /// What a model card says of it.
    pub(super) fn record(self) -> Record {
        match self {
            Self::Cur(adapter) => card::of_adapter(adapter),
            Self::Lora(lora) => {
                let LoraOptions { rank, alpha, rslora, .. } = lora.options;
                let scale = if rslora { ", over sqrt(rank)" } else { "" };
                let own = [
                    ("Method", "LoRA: W + s B A".to_owned()),
                    ("Matrices", lora.targets.len().to_string()),
                    ("Rank", rank.to_string()),
                    ("Alpha", format!("{alpha}{scale}")),
                ];
                own.into_iter().chain(lora.record.iter().cloned()).collect()
            }
        }
    }

    /// The name of the model that it was trained on.
    pub(super) fn base_name(self, base: &Base) -> String {
        match self {
            Self::Cur(adapter) => adapter.base.name.clone(),
            Self::Lora(_) => base.name(),
        }
    }

    /// The factor s of the change.
    pub fn scale(self) -> f32 {
        match self {
            Self::Cur(adapter) => adapter.scale,
            Self::Lora(lora) => lora.options.scale(),
        }
    }

    /// Whether the scale is alpha / sqrt(rank).
    pub(super) fn rslora(self) -> bool {
        matches!(self, Self::Lora(lora) if lora.options.rslora)
    }

    /// The alpha of a module whose B has `rank` columns, and the factor that then remains for A. A LoRA keeps
    /// its A as trained; C U R has no alpha of its own.
    pub(super) fn alpha(self, rank: usize) -> (f32, f32) {
        match self {
            Self::Cur(adapter) => (rank as f32, adapter.scale),
            Self::Lora(lora) if rank == lora.options.rank as usize => (lora.options.alpha, 1.0),
            Self::Lora(lora) => {
                let divisor = if lora.options.rslora { (rank as f64).sqrt() } else { rank as f64 };
                ((f64::from(lora.options.scale()) * divisor) as f32, 1.0)
            }
        }
    }

    /// The alpha of a file that has one for all matrices and divides it by the rank.
    pub(super) fn alpha_of_file(self) -> f32 {
        match self {
            Self::Cur(adapter) => adapter.rank as f32,
            Self::Lora(lora) => lora.options.scale() * lora.options.rank as f32,
        }
    }
}

impl Target<'_> {
    /// The canonical name of the matrix.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Cur(target) => &target.name,
            Self::Lora(target) => &target.name,
        }
    }

    /// Columns of its B.
    pub(super) fn rank(&self) -> usize {
        match self {
            Self::Cur(target) => target.cols.len(),
            Self::Lora(target) => target.a.nrows(),
        }
    }

    /// Its change times `scale` as two factors.
    ///
    /// # Errors
    /// Those of [`Factors::of_target`].
    pub(super) fn factors(&self, base: &Base, scale: f32) -> Result<Factors> {
        match self {
            Self::Cur(target) => Factors::of_target(base.path(), &base.weight(&target.name)?, target, scale),
            Self::Lora(target) => Ok(target.factors(scale)),
        }
    }
}
