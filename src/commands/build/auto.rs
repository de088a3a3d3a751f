//! `--targets auto`, `--rank auto` and `--lr auto`: what does best in short trials.
//!
//! A trial trains with the run's own method and protection, for a share of the run's steps on a schedule of
//! that length. Some training examples are held out of it, so those on which the run itself is measured decide
//! nothing. It is judged by what training minimizes:
//!
//! ```text
//! loss on the examples held out + weight KL(base || trial) on texts that the base writes      nats a token
//! ```
//!
//! where the weight is lambda, or a quarter of it for the Fisher penalty of U: the penalty sees about a quarter of
//! what a trained change costs.
//!
//! Targets are chosen first, then the rank, then the learning rate. Nothing depends on the clock.

use serde_json::{Value, json};

use super::BuildArgs;
use super::examples::Examples;
use super::method::Trainee;
use crate::commands::anchor::AnchorTexts;
use crate::commands::arguments::{AUTO, Choice};
use crate::commands::report::progress;
use crate::eval;
use crate::model::{Batch, Transformer};
use crate::train::data::Dataset;
use crate::train::{Penalty, TrainOptions, Trainer, mean_loss};
use crate::{Error, Result};

/// The divergence that the Fisher information predicts for a trained change, as a share of the measured one:
/// 0.27 to 0.35 for SmolLM2 on SST-2, with 127 and 400 texts.
const SEEN_BY_FISHER: f64 = 0.25;

/// What `--targets auto` tries, from few matrices to many; and of models with linear attention or short convolutions, whose
/// most blocks have no q, k and v.
const TARGETS: [&str; 2] = ["q,k,v", "all"];
const LINEAR_TARGETS: [&str; 2] = ["q,k,v,qkv", "all"];
const CONVOLUTION_TARGETS: [&str; 2] = ["q,k,v,in", "all"];
/// What `--rank auto` tries.
const RANKS: [u32; 3] = [8, 16, 32];
/// What a larger choice must gain, as a share of the smaller one's score.
const GAIN: f64 = 0.01;
/// A trial takes the run's steps divided by this, within these limits.
const SHARE: u64 = 8;
const STEPS: std::ops::RangeInclusive<u64> = 16..=100;
/// Texts of the anchor for the penalty of a trial whose matrices the run may not train.
pub(super) const FEW_TEXTS: usize = 64;
/// Examples held out of a trial: one in so many, and at most so many.
const HELD_OUT_SHARE: usize = 10;
const MAX_HELD_OUT: usize = 100;

/// One choice, and the scores that led to it.
#[derive(Clone, Debug)]
struct Chosen {
    option: &'static str,
    value: String,
    /// What was tried, in the order of the trials, with its score.
    trials: Vec<(String, f64)>,
}

/// What was chosen for a run.
#[derive(Clone, Debug, Default)]
pub(super) struct Automatic(Vec<Chosen>);

impl Automatic {
    /// For a terminal: one line for each choice.
    pub(super) fn text(&self) -> String {
        let line = |Chosen { option, value, trials }: &Chosen| {
            let tried = trials.iter().map(|(value, score)| format!("{value}: {score:.4}"));
            format!("chosen   --{option} {value}   (trials: {})\n", tried.collect::<Vec<_>>().join(", "))
        };
        self.0.iter().map(line).collect()
    }

    /// For `--json`.
    pub(super) fn json(&self) -> Value {
        let entry = |Chosen { option, value, trials }: &Chosen| {
            let trials = trials.iter().map(|(value, score)| json!({ "value": value, "score": score }));
            json!({ "option": option, "value": value, "trials": trials.collect::<Vec<_>>() })
        };
        self.0.iter().map(entry).collect()
    }
}

/// The run's training examples, which a selection reads, and their two parts: those that a trial trains on,
/// and those that judge it.
type TrialData<'a> = (&'a Dataset, &'a Dataset, &'a Dataset);

/// What every trial of a run shares.
pub(super) struct Trials<'t, 'b> {
    /// The model without an adapter.
    pub(super) frozen: &'t Transformer<'b, f32>,
    /// Texts of the anchor.
    pub(super) texts: &'t AnchorTexts<'t>,
    /// Some such texts, for the penalty of trials whose matrices the run may not train.
    pub(super) few_texts: &'t AnchorTexts<'t>,
    /// New texts of the base to measure what a trial forgot; none with `--anchor none`.
    pub(super) new_texts: &'t [Batch],
    /// The run's options.
    pub(super) options: &'t TrainOptions,
}

impl BuildArgs {
    /// Whether an option is `auto`.
    pub(super) fn is_automatic(&self) -> bool {
        self.selection.is_automatic() || self.training.lr == Some(Choice::Auto)
    }
}

/// The options of a run with a value for each `auto`, and how it was found.
///
/// # Errors
/// Too few examples to hold some out; what training refuses.
pub(super) fn resolve(
    args: &BuildArgs,
    examples: &Examples,
    trials: &Trials<'_, '_>,
) -> Result<(BuildArgs, Automatic)> {
    let (mut args, mut automatic) = (args.clone(), Automatic::default());
    if !args.is_automatic() {
        return Ok((args, automatic));
    }
    let mut data = examples.data.clone();
    let count = (data.examples.len() / HELD_OUT_SHARE).min(MAX_HELD_OUT);
    if count == 0 {
        let problem = format!("{} examples are too few to choose on some of them", data.examples.len());
        return Err(Error::request(problem, "give --targets, --rank and --lr a value, or more examples"));
    }
    let valid = data.hold_out(count);
    let data = (&examples.data, &data, &valid);
    let with = |args: &BuildArgs, targets: Option<&str>, rank: Option<u32>| {
        let mut args = args.clone();
        args.selection.targets = targets.map_or(args.selection.targets, str::to_owned);
        args.selection.rank = rank.map_or(args.selection.rank, Choice::Given);
        args
    };
    if args.selection.targets == AUTO {
        let config = trials.frozen.config();
        let candidates = match (config.delta_net, config.convolutions.is_empty()) {
            (Some(_), _) => LINEAR_TARGETS,
            (None, false) => CONVOLUTION_TARGETS,
            (None, true) => TARGETS,
        };
        let candidates = candidates.map(|targets| (targets.to_owned(), with(&args, Some(targets), None)));
        args = trials.smallest("targets", candidates.into(), data, &mut automatic)?;
    }
    if args.selection.rank == Choice::Auto {
        let candidates = RANKS.map(|rank| (rank.to_string(), with(&args, None, Some(rank))));
        args = trials.smallest("rank", candidates.into(), data, &mut automatic)?;
    }
    if args.training.lr == Some(Choice::Auto) {
        let (lr, chosen) = trials.best_rate(&args, data)?;
        args.training.lr = Some(Choice::Given(lr));
        automatic.0.push(chosen);
    }
    Ok((args, automatic))
}

impl Trials<'_, '_> {
    /// The smallest of these candidates, which are in order of their size, that no larger one beats clearly.
    fn smallest(
        &self,
        option: &'static str,
        candidates: Vec<(String, BuildArgs)>,
        data: TrialData<'_>,
        automatic: &mut Automatic,
    ) -> Result<BuildArgs> {
        let mut trials = Vec::with_capacity(candidates.len());
        for (value, args) in &candidates {
            let score = self.scores(args, data, self.few_texts, |score| score(args.learning_rate()))?;
            trials.push((value.clone(), score));
        }
        let best = clearly_best(&trials.iter().map(|(_, score)| *score).collect::<Vec<_>>());
        let (value, args) = candidates[best].clone();
        automatic.0.push(Chosen { option, value, trials });
        Ok(args)
    }

    /// The learning rate with the best score: from the default rate up by factors of two while that helps, or
    /// else down.
    fn best_rate(&self, args: &BuildArgs, data: TrialData<'_>) -> Result<(f64, Chosen)> {
        let trials = self.scores(args, data, self.texts, |score| climb(args.default_rate(), score))?;
        let best =
            trials.iter().min_by(|a, b| a.1.total_cmp(&b.1)).map_or(args.default_rate(), |best| best.0);
        let trials = trials.iter().map(|(rate, score)| (rate.to_string(), *score)).collect();
        Ok((best, Chosen { option: "lr", value: best.to_string(), trials }))
    }

    /// What `use_score` makes of the score of a trial with these options, which it may ask for at any learning
    /// rate. A trial that diverges scores infinity.
    fn scores<T>(
        &self,
        args: &BuildArgs,
        (all, data, valid): TrialData<'_>,
        penalty_texts: &AnchorTexts<'_>,
        use_score: impl FnOnce(&mut dyn FnMut(f64) -> Result<f64>) -> Result<T>,
    ) -> Result<T> {
        let mut model = self.frozen.clone();
        let trainee = Trainee::new(args, &mut model, self.texts, all)?;
        trainee.attach(&mut model)?;
        let penalty = args.protection.penalty(&mut model, &trainee, penalty_texts)?;
        let initial: Vec<_> = model.trainable_mut().iter().map(|u| (*u).clone()).collect();
        let steps = (self.options.steps(data.examples.len()) / SHARE).clamp(*STEPS.start(), *STEPS.end());
        let bar = progress::spinner("trying options");
        let found = use_score(&mut |learning_rate| {
            model.trainable_mut().into_iter().zip(&initial).for_each(|(u, value)| u.assign(value));
            let options = TrainOptions {
                learning_rate,
                max_steps: Some(steps),
                valid_every: None,
                patience: None,
                save_every: None,
                ..self.options.clone()
            };
            let trainer = Trainer::new(&mut model, data, None, &options)?;
            let mut trainer = match &penalty {
                Some(penalty) => trainer.with_penalty(penalty),
                None => trainer,
            };
            loop {
                match trainer.advance() {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(Error::Diverged { .. }) => return Ok(f64::INFINITY),
                    Err(error) => return Err(error),
                }
            }
            trainer.finish();
            let mut score = mean_loss(&model, valid);
            if penalty.is_some() && !self.new_texts.is_empty() {
                let forgotten = eval::divergence(&model, &model.without_terms(), self.new_texts, |_| ())?;
                let seen = if matches!(penalty, Some(Penalty::Fisher { .. })) { SEEN_BY_FISHER } else { 1.0 };
                score += f64::from(args.protection.lambda()) * seen * forgotten.kl;
            }
            Ok(if score.is_finite() { score } else { f64::INFINITY })
        });
        bar.finish_and_clear();
        found
    }
}

/// The index of the best of these scores of ever larger candidates: a larger one must be better by [`GAIN`].
fn clearly_best(scores: &[f64]) -> usize {
    (0..scores.len()).fold(0, |best, i| if scores[i] < scores[best] * (1.0 - GAIN) { i } else { best })
}

/// Tries rates from `rate` on, and returns each with its score: doubled while the score improves, or else
/// halved. At most four trials.
fn climb(rate: f64, score: &mut dyn FnMut(f64) -> Result<f64>) -> Result<Vec<(f64, f64)>> {
    const MAX_TRIALS: usize = 4;
    let mut trials = vec![(rate, score(rate)?)];
    for factor in [2.0, 0.5] {
        let mut best = trials[0];
        while trials.len() < MAX_TRIALS {
            let next = best.0 * factor;
            let found = (next, score(next)?);
            trials.push(found);
            if found.1 >= best.1 {
                break;
            }
            best = found;
        }
        if best.0 != rate {
            break;
        }
    }
    Ok(trials)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_larger_choice_must_be_clearly_better() {
        assert_eq!(clearly_best(&[1.0, 0.995, 0.992]), 0);
        assert_eq!(clearly_best(&[1.0, 0.98, 0.975]), 1);
        assert_eq!(clearly_best(&[1.0, f64::INFINITY, 0.9]), 2);
    }

    #[test]
    fn rates_are_tried_towards_the_better_ones() {
        let rates = |best: f64| {
            let trials = climb(1.0, &mut |rate: f64| Ok((rate / best).ln().abs())).unwrap();
            trials.into_iter().map(|(rate, _)| rate).collect::<Vec<_>>()
        };
        assert_eq!(rates(1.0), [1.0, 2.0, 0.5]);
        assert_eq!(rates(2.0), [1.0, 2.0, 4.0]);
        assert_eq!(rates(64.0), [1.0, 2.0, 4.0, 8.0]);
        assert_eq!(rates(0.01), [1.0, 2.0, 0.5, 0.25]);
        let mut fails = |_: f64| Err(Error::request("no", "none"));
        assert!(climb(1.0, &mut fails).is_err());
    }
}
