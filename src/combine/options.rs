//! The ways to combine adapters, by PEFT's names.

use crate::card::Record;
use crate::{Error, Result};

/// How several adapters become one. Names and meanings are those of PEFT's `add_weighted_adapter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Combination {
    /// The thin matrices side by side: the exact sum of the changes, of the sum of the ranks.
    Cat,
    /// The sum of the changes, cut to a rank.
    Svd,
    /// The sums of the thin matrices.
    Linear,
    /// Only the largest numbers, and of these those with the sign of the majority (arXiv 2306.01708).
    Ties,
    /// Ties of the whole changes, cut to a rank.
    TiesSvd,
    /// Numbers are dropped at random and the others enlarged (arXiv 2311.03099).
    DareLinear,
    /// Dropped at random, then those with the sign of the majority.
    DareTies,
    /// DareLinear of the whole changes, cut to a rank.
    DareLinearSvd,
    /// DareTies of the whole changes, cut to a rank.
    DareTiesSvd,
    /// Only the largest numbers.
    MagnitudePrune,
    /// MagnitudePrune of the whole changes, cut to a rank.
    MagnitudePruneSvd,
}

impl Combination {
    /// Every way.
    pub const ALL: &[Self] = &[
        Self::Cat,
        Self::Svd,
        Self::Linear,
        Self::Ties,
        Self::TiesSvd,
        Self::DareLinear,
        Self::DareTies,
        Self::DareLinearSvd,
        Self::DareTiesSvd,
        Self::MagnitudePrune,
        Self::MagnitudePruneSvd,
    ];

    /// PEFT's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cat => "cat",
            Self::Svd => "svd",
            Self::Linear => "linear",
            Self::Ties => "ties",
            Self::TiesSvd => "ties_svd",
            Self::DareLinear => "dare_linear",
            Self::DareTies => "dare_ties",
            Self::DareLinearSvd => "dare_linear_svd",
            Self::DareTiesSvd => "dare_ties_svd",
            Self::MagnitudePrune => "magnitude_prune",
            Self::MagnitudePruneSvd => "magnitude_prune_svd",
        }
    }

    /// Whether it works on whole changes and cuts their combination to a rank.
    pub fn is_svd(self) -> bool {
        self.name().ends_with("svd")
    }

    /// Whether it draws what it drops.
    pub fn is_random(self) -> bool {
        self.pruning() == Pruning::Random
    }

    /// Which numbers of an adapter it drops.
    pub(super) fn pruning(self) -> Pruning {
        match self {
            Self::Cat | Self::Svd | Self::Linear => Pruning::None,
            Self::Ties | Self::TiesSvd | Self::MagnitudePrune | Self::MagnitudePruneSvd => Pruning::Smallest,
            Self::DareLinear | Self::DareTies | Self::DareLinearSvd | Self::DareTiesSvd => Pruning::Random,
        }
    }

    /// Whether only numbers with the sign of the majority count.
    pub(super) fn elects_signs(self) -> bool {
        matches!(self, Self::Ties | Self::TiesSvd | Self::DareTies | Self::DareTiesSvd)
    }
}

/// Which numbers of an adapter are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pruning {
    None,
    Smallest,
    Random,
}

/// What decides the sign of the majority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MajoritySign {
    /// The sign of the sum of the adapters' numbers.
    #[default]
    Total,
    /// The sign that more of them have.
    Frequency,
}

impl MajoritySign {
    /// Both.
    pub const ALL: &[Self] = &[Self::Total, Self::Frequency];

    /// PEFT's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Frequency => "frequency",
        }
    }
}

/// How to combine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CombineOptions {
    /// The way. Default: [`Combination::Cat`], the exact sum.
    pub combination: Combination,
    /// The share of an adapter's numbers that is kept, above 0 and at most 1, for those ways that drop some.
    /// Default: `None`.
    pub density: Option<f64>,
    /// For those ways that elect signs. Default: [`MajoritySign::Total`].
    pub majority_sign: MajoritySign,
    /// The rank after an SVD. Default: `None`, the largest of the adapters.
    pub svd_rank: Option<usize>,
    /// After an SVD, numbers of both thin matrices are clamped to this quantile of them, from 0 to 1. Default:
    /// `None`.
    pub svd_clamp: Option<f64>,
    /// Seed of what is dropped at random. Default: 0.
    pub seed: u64,
}

impl Default for CombineOptions {
    fn default() -> Self {
        Self {
            combination: Combination::Cat,
            density: None,
            majority_sign: MajoritySign::Total,
            svd_rank: None,
            svd_clamp: None,
            seed: 0,
        }
    }
}

impl CombineOptions {
    /// Refuses an option that the way does not use, and one that it needs and lacks.
    pub(super) fn check(&self, adapters: usize) -> Result<()> {
        let (way, name) = (self.combination, self.combination.name());
        let refuse = |problem: String, help: &str| Err(Error::request(problem, help));
        let prunes = way.pruning() != Pruning::None;
        match self.density {
            None if prunes => {
                let problem = format!("{name} keeps a share of each adapter's numbers, and none is given");
                return refuse(problem, "give a density such as 0.5");
            }
            Some(_) if !prunes => {
                return refuse(format!("{name} drops no numbers, and a density is given"), "leave it out");
            }
            Some(density) if !(density > 0.0 && density <= 1.0) => {
                return refuse(format!("a density of {density} cannot be used"), "give one above 0, up to 1");
            }
            _ => {}
        }
        if !way.is_svd() && (self.svd_rank.is_some() || self.svd_clamp.is_some()) {
            let problem = format!("{name} takes no SVD, and a rank or clamp of one is given");
            return refuse(problem, "leave it out, or use one of the ways whose name ends in svd");
        }
        if self.svd_rank == Some(0) || self.svd_clamp.is_some_and(|clamp| !(0.0..=1.0).contains(&clamp)) {
            return refuse(
                "the rank of an SVD is at least 1, its clamp from 0 to 1".into(),
                "give such ones",
            );
        }
        if !way.elects_signs() && self.majority_sign != MajoritySign::default() {
            return refuse(format!("{name} elects no signs"), "leave out how the majority is counted");
        }
        // For one adapter PEFT takes linear, whatever it is asked for.
        if adapters < 2 && (prunes || way.elects_signs()) {
            return refuse(format!("{name} combines adapters, and there is one"), "name two or more");
        }
        Ok(())
    }

    /// What a model card says of a combination of adapters with these weights.
    pub(super) fn record<T>(&self, adapters: &[(T, f32)]) -> Record {
        let weights: Vec<String> = adapters.iter().map(|(_, weight)| weight.to_string()).collect();
        let mut record = vec![
            ("Combination", self.combination.name().to_owned()),
            ("Weights of the adapters", weights.join(", ")),
        ];
        record.extend(self.density.map(|density| ("Density", density.to_string())));
        if self.combination.elects_signs() {
            record.push(("Majority sign by", self.majority_sign.name().to_owned()));
        }
        if self.combination.is_random() {
            record.push(("Seed", self.seed.to_string()));
        }
        record.extend(self.svd_clamp.map(|clamp| ("Clamped to the quantile", clamp.to_string())));
        record
    }
}
