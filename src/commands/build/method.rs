//! What `curmerge build` trains: the matrices U of a CURLoRA adapter, or a LoRA.

use clap::{Args, ValueEnum};
use curmerge_formats::AdapterTarget;
use curmerge_formats::adapter::{Adapter, Training};

use super::BuildArgs;
use crate::card;
use crate::commands::anchor::AnchorTexts;
use crate::commands::arguments::SelectBy;
use crate::commands::select::select;
use crate::commands::{self, adapter_of, signal};
use crate::export::Trained;
use crate::lora::{Lora, LoraMethod, LoraOptions, TrainedLora};
use crate::model::Transformer;
use crate::train::data::Dataset;
use crate::train::fisher::{EarlierTasks, Fisher};
use crate::{Error, Result};

/// What is trained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Method {
    /// W + scale C U R with columns C and rows R of W: U is trained (arXiv 2408.14572).
    #[default]
    Curlora,
    /// W + alpha / rank B A: A and B are trained (arXiv 2106.09685).
    Lora,
    /// W + alpha / rank B U A with the leading singular vectors of W as A and B: U is trained (arXiv
    /// 2405.17604).
    LoraXs,
}

/// What is trained.
#[derive(Clone, Copy, Debug, Args)]
pub struct MethodArgs {
    /// What is trained. --select and --scale are for curlora; A of lora is drawn with --seed.
    #[arg(long, value_enum, default_value_t = Method::default())]
    pub method: Method,
    /// With --method lora or lora-xs: the factor of the change times the rank [default: the rank].
    #[arg(long, conflicts_with = "init")]
    pub alpha: Option<f32>,
    /// With --method lora or lora-xs: the factor is alpha / sqrt(rank), as in rsLoRA (arXiv 2312.03732).
    #[arg(long, conflicts_with = "init")]
    pub rslora: bool,
}

impl MethodArgs {
    /// Refuses numbers that cannot be used, and options of another method.
    pub(super) fn check(&self, args: &BuildArgs) -> Result<()> {
        let refuse = |option: &str, of: &str| {
            let problem = format!("{option} is for --method {of}");
            Err(Error::request(problem, "leave it out, or choose that method"))
        };
        match self.method {
            Method::Curlora if self.alpha.is_some() => refuse("--alpha", "lora or lora-xs"),
            Method::Curlora if self.rslora => refuse("--rslora", "lora or lora-xs"),
            Method::Curlora => Ok(()),
            _ if args.training.scale != 1.0 => refuse("--scale", "curlora; a LoRA has --alpha"),
            Method::LoraXs if args.training.init.is_some() => refuse("--init", "curlora or lora"),
            _ if args.protection.keep_fisher => refuse("--keep-fisher", "curlora"),
            _ => super::training::positive("alpha", self.alpha(args).abs().into(), false),
        }
    }

    /// Whether a LoRA is trained.
    pub(super) fn trains_lora(&self) -> bool {
        self.method != Method::Curlora
    }

    fn alpha(&self, args: &BuildArgs) -> f32 {
        self.alpha.unwrap_or(args.selection.rank() as f32)
    }
}

/// What a run trains.
pub(super) enum Trainee {
    /// A CURLoRA adapter.
    Cur(Box<Adapter>),
    /// A LoRA.
    Lora(TrainedLora),
}

impl Trainee {
    /// A new one, which changes nothing yet, or the adapter that `--init` names.
    pub(super) fn new(
        args: &BuildArgs,
        frozen: &mut Transformer<'_, f32>,
        texts: &AnchorTexts<'_>,
        data: &Dataset,
    ) -> Result<Self> {
        let method = match args.method.method {
            Method::Curlora => return Ok(Self::Cur(Box::new(initial_adapter(args, frozen, texts, data)?))),
            Method::Lora => LoraMethod::Lora,
            Method::LoraXs => LoraMethod::LoraXs,
        };
        let selection = &args.selection;
        if let Some(path) = &args.training.init {
            if !Lora::is_lora(path) {
                let help = "name a LoRA, or leave out --method to train a CURLoRA adapter further";
                return Err(Error::file(path, "is no LoRA", help));
            }
            return Ok(Self::Lora(TrainedLora::further(
                &commands::lora_of(texts.base, path)?,
                texts.base,
                selection.seed,
            )?));
        }
        let options = LoraOptions {
            method,
            rank: selection.rank(),
            alpha: args.method.alpha(args),
            rslora: args.method.rslora,
            targets: selection.targets.clone(),
            layers: selection.layers.clone(),
            seed: selection.seed,
        };
        Ok(Self::Lora(TrainedLora::new(texts.base, options)?))
    }

    /// Attaches its terms to the model.
    pub(super) fn attach(&self, model: &mut Transformer<'_, f32>) -> Result<()> {
        match self {
            Self::Cur(adapter) => model.attach(&adapter.targets, adapter.scale),
            Self::Lora(lora) => model.attach_lora(&lora.targets, lora.options.scale()),
        }
    }

    /// Takes the trained matrices from the model.
    pub(super) fn store(&mut self, model: &mut Transformer<'_, f32>, training: Training) {
        match self {
            Self::Cur(adapter) => {
                model.store(&mut adapter.targets);
                adapter.training = Some(training);
            }
            Self::Lora(lora) => {
                model.store_lora(&mut lora.targets);
                lora.record = card::of_training(&training);
            }
        }
    }

    /// How many tasks the adapter keeps from earlier runs, in words, if it keeps any.
    pub(super) fn kept_tasks(&self) -> Option<String> {
        let count = match self {
            Self::Cur(adapter) => adapter.kept_tasks(),
            Self::Lora(_) => 0,
        };
        (count > 0).then(|| format!("{count} earlier task{}", if count == 1 { "" } else { "s" }))
    }

    /// The tasks that the adapter, before training, keeps from earlier runs.
    pub(super) fn earlier_tasks(&self) -> Option<EarlierTasks> {
        match self {
            Self::Cur(adapter) => EarlierTasks::of(&adapter.targets),
            Self::Lora(_) => None,
        }
    }

    /// Keeps the Fisher information of this task, beside that of earlier ones.
    pub(super) fn keep(&mut self, fisher: Fisher) {
        if let Self::Cur(adapter) = self {
            let targets = adapter.targets.iter_mut().zip(fisher.into_targets());
            targets.for_each(|(target, kept)| target.fisher.push(kept));
        }
    }

    /// The scale of a LoRA whose A and B are trained.
    pub(super) fn lora_scale(&self) -> Option<f32> {
        match self {
            Self::Lora(lora) if lora.options.method == LoraMethod::Lora => Some(lora.options.scale()),
            _ => None,
        }
    }

    /// What an export writes.
    pub(super) fn trained(&self) -> Trained<'_> {
        match self {
            Self::Cur(adapter) => Trained::Cur(adapter),
            Self::Lora(lora) => Trained::Lora(lora),
        }
    }

    /// Numbers that are trained.
    pub(super) fn trained_numbers(&self) -> usize {
        match self {
            Self::Cur(adapter) => adapter.targets.iter().map(|target| target.u.len()).sum(),
            Self::Lora(lora) => lora.trained_numbers(),
        }
    }

    /// What decides which matrices are trained, besides the base: a text, and the scale of the change.
    pub(super) fn frozen_matrices(&self) -> (String, f32) {
        let targets: Vec<_> = match self {
            Self::Cur(adapter) => {
                let indices = |t: &AdapterTarget| format!("{} {:?} {:?}", t.name, t.cols, t.rows);
                adapter.targets.iter().map(indices).collect()
            }
            Self::Lora(lora) => {
                let rank = lora.options.rank;
                lora.targets.iter().map(|t| format!("{} lora-xs {rank}", t.name)).collect()
            }
        };
        (targets.join("\n"), self.trained().scale())
    }

    /// What is trained, on one line.
    pub(super) fn description(&self) -> String {
        let numbers = self.trained_numbers();
        match self {
            Self::Cur(adapter) => format!(
                "{} matrices, rank {}, {} selection, seed {}: {numbers} numbers to train",
                adapter.targets.len(),
                adapter.rank,
                adapter.selection,
                adapter.seed,
            ),
            Self::Lora(TrainedLora { options, targets, .. }) => format!(
                "{} matrices, {} of rank {}, alpha {}{}, seed {}: {numbers} numbers to train",
                targets.len(),
                match options.method {
                    LoraMethod::Lora => "LoRA",
                    LoraMethod::LoraXs => "LoRA-XS",
                },
                options.rank,
                options.alpha,
                if options.rslora { " (rsLoRA)" } else { "" },
                options.seed,
            ),
        }
    }

    /// The name and the shape of each trained matrix, in the order of the model's slots.
    pub(super) fn matrices(&self) -> Vec<(String, (usize, usize))> {
        match self {
            Self::Cur(adapter) => {
                let shape = |target: &AdapterTarget| (target.cols.len(), target.rows.len());
                adapter.targets.iter().map(|target| (target.name.clone(), shape(target))).collect()
            }
            Self::Lora(lora) => {
                let named = lora.targets.iter().flat_map(|target| {
                    let matrices = match &target.u {
                        Some(u) => vec![("lora_u", u.dim())],
                        None => vec![("lora_a", target.a.dim()), ("lora_b", target.b.dim())],
                    };
                    matrices.into_iter().map(|(part, shape)| (format!("{}.{part}", target.name), shape))
                });
                named.collect()
            }
        }
    }

    /// What decides the result, by option. Those of CURLoRA are those of earlier checkpoints.
    pub(super) fn settings(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Cur(adapter) => vec![
                ("--rank", adapter.rank.to_string()),
                ("--select", adapter.selection.clone()),
                ("--scale", adapter.scale.to_string()),
            ],
            Self::Lora(TrainedLora { options, .. }) => vec![
                ("--method", if options.method == LoraMethod::Lora { "lora" } else { "lora-xs" }.to_owned()),
                ("--rank", options.rank.to_string()),
                ("--alpha", options.alpha.to_string()),
                ("--rslora", options.rslora.to_string()),
            ],
        }
    }
}

/// A new adapter with U = 0, or the one that `--init` names.
fn initial_adapter(
    args: &BuildArgs,
    frozen: &mut Transformer<'_, f32>,
    texts: &AnchorTexts<'_>,
    data: &Dataset,
) -> Result<Adapter> {
    if let Some(path) = &args.training.init {
        return adapter_of(texts.base, path, false);
    }
    let adapter = match args.select() {
        SelectBy::Signal => signal::adapter(&args.selection, frozen, texts, data)?,
        SelectBy::Drawn(selection) => select(texts.base, &args.selection, selection)?,
    };
    Ok(Adapter { scale: args.training.scale, ..adapter })
}
