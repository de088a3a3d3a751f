//! The adapters that `merge` and `export` take, and the options by which they become one.

use std::path::Path;

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use curmerge_formats::adapter::Adapter;

use super::adapter_kind;
use super::arguments::AdapterPart;
use crate::base::Base;
use crate::combine::{Combination, CombineOptions, Combined, MajoritySign, combine};
use crate::commands::report::progress;
use crate::lora::Lora;
use crate::merge::Source;
use crate::{Error, Result};

/// How several adapters become one.
#[derive(Clone, Debug, Default, Args)]
pub struct CombineArgs {
    /// Combine the adapters into one, each weighted by its FACTOR, as PEFT's add_weighted_adapter does. Those
    /// of curmerge whose columns and rows are the same are combined by their matrices U [default: the sum of
    /// their changes, exactly].
    #[arg(long, value_enum, value_name = "WAY")]
    pub combine: Option<Combination>,
    /// For ties, dare and magnitude_prune: the share of each adapter's numbers that is kept, such as 0.5.
    #[arg(long, value_name = "SHARE", requires = "combine")]
    pub density: Option<f64>,
    /// For ties and dare_ties: what decides the sign of the majority [default: total].
    #[arg(long, value_enum, value_name = "METHOD", requires = "combine")]
    pub majority_sign_method: Option<MajoritySign>,
    /// For the ways that end in svd: the rank of the result [default: the largest of the adapters].
    #[arg(long, value_name = "N", requires = "combine")]
    pub svd_rank: Option<usize>,
    /// For the ways that end in svd: numbers of the result are clamped to this quantile of them, such as 0.99.
    #[arg(long, value_name = "QUANTILE", requires = "combine")]
    pub svd_clamp: Option<f64>,
    /// For dare: seed of what is dropped [default: 0].
    #[arg(long, value_name = "N", requires = "combine")]
    pub seed: Option<u64>,
}

impl CombineArgs {
    fn options(&self) -> Result<CombineOptions> {
        let combination = self.combine.unwrap_or(Combination::Cat);
        if self.seed.is_some() && !combination.is_random() {
            let problem = format!("{} draws nothing, and --seed is given", combination.name());
            return Err(Error::request(problem, "leave it out"));
        }
        Ok(CombineOptions {
            combination,
            density: self.density,
            majority_sign: self.majority_sign_method.unwrap_or_default(),
            svd_rank: self.svd_rank,
            svd_clamp: self.svd_clamp,
            seed: self.seed.unwrap_or_default(),
        })
    }

    /// The adapters as one: the exact sum, unless another way was asked for.
    pub(super) fn combined(&self, base: &Base, adapters: &[(Source<'_>, f32)]) -> Result<Combined> {
        let options = self.options()?;
        let bar = progress::bar("combining", 0);
        let combined = combine(base, adapters, &options, progress::follow(&bar))?;
        bar.finish_and_clear();
        Ok(combined)
    }
}

/// An open adapter of either kind.
pub(super) enum Opened {
    Cur(Adapter),
    Lora(Lora),
}

impl Opened {
    /// The adapter at this path, for the base. Whether one of curmerge's own belongs to it is not checked.
    pub(super) fn unchecked(base: &Base, path: &Path) -> Result<Self> {
        if Lora::is_lora(path) {
            return Ok(Self::Lora(super::lora_of(base, path)?));
        }
        adapter_kind::refuse_others(path)?;
        Ok(Self::Cur(Adapter::read(path)?))
    }

    /// The adapter at this path, which must belong to the base.
    pub(super) fn checked(base: &Base, path: &Path, allow_other_base: bool) -> Result<Self> {
        if Lora::is_lora(path) {
            return Self::unchecked(base, path);
        }
        super::adapter_of(base, path, allow_other_base).map(Self::Cur)
    }

    /// The adapter as a merge takes it.
    pub(super) fn source(&self) -> Source<'_> {
        match self {
            Self::Cur(adapter) => Source::Cur(adapter),
            Self::Lora(lora) => Source::Lora(lora),
        }
    }
}

/// The adapters with the factors that they were given.
pub(super) fn sources<'a>(opened: &'a [Opened], parts: &[AdapterPart]) -> Vec<(Source<'a>, f32)> {
    opened.iter().zip(parts).map(|(opened, part)| (opened.source(), part.factor)).collect()
}

impl ValueEnum for Combination {
    fn value_variants<'a>() -> &'a [Self] {
        Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self {
            Self::Cat => "their matrices side by side: the exact sum, of the sum of the ranks",
            Self::Svd => "the sum, cut to --svd-rank; a LoRA",
            Self::Linear => "the sums of their matrices A and B, or of U: rough for LoRAs, exact for U",
            Self::Ties => "only the largest numbers (--density), and the sign of the majority",
            Self::TiesSvd => "ties of whole changes, cut to --svd-rank",
            Self::DareLinear => "numbers are dropped at random (--density), the others enlarged and added",
            Self::DareTies => "dropped at random, and the sign of the majority",
            Self::DareLinearSvd => "dare_linear of whole changes, cut to --svd-rank",
            Self::DareTiesSvd => "dare_ties of whole changes, cut to --svd-rank",
            Self::MagnitudePrune => "only the largest numbers (--density), added",
            Self::MagnitudePruneSvd => "magnitude_prune of whole changes, cut to --svd-rank",
        };
        Some(PossibleValue::new(self.name()).help(help))
    }
}

impl ValueEnum for MajoritySign {
    fn value_variants<'a>() -> &'a [Self] {
        Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self {
            Self::Total => "the sign of the sum of the adapters' numbers",
            Self::Frequency => "the sign that more of them have",
        };
        Some(PossibleValue::new(self.name()).help(help))
    }
}
