//! The anchor of a command: texts of what the model is to keep.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};
use curmerge_formats::{input, sha256_hex};

use super::arguments::read_text;
use super::kept::Kept;
use super::report::progress;
use crate::base::Base;
use crate::model::Transformer;
use crate::train::anchor::budget::{self, Budget};
use crate::train::anchor::{Anchor, AnchorOptions, Prompts};
use crate::train::data::Dataset;
use crate::train::signal;
use crate::{Error, Result};

/// The seed of the texts on which a run measures what it forgot differs from that of the penalty's by these
/// bits.
const MEASURED_SEED: u64 = 1 << 63;

/// Texts of what the model is to keep.
#[derive(Clone, Debug, Args)]
pub struct AnchorArgs {
    /// Texts of what the model is to keep, for --protect fisher and replay and --select signal. `self`: the
    /// model writes them itself; a file of plain text; or none. What a run forgot is measured on new texts
    /// that the model writes, except with none.
    #[arg(long, value_name = "self|FILE|none", default_value = "self", value_parser = parse_source, value_hint = ValueHint::FilePath)]
    pub anchor: AnchorSource,
    /// The number of these texts, of 128 tokens each [default: 400; fewer if that takes more work than a
    /// minute of a model of 135 million parameters and than a fifth of the training].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub anchor_texts: Option<u32>,
    /// Make the texts and what is measured on them anew, and keep nothing in the cache (see `curmerge
    /// cache`). Results are the same bytes with and without it.
    #[arg(long)]
    pub no_cache: bool,
}

/// Where the texts come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnchorSource {
    /// The model writes them.
    Written,
    /// A file has them.
    File(PathBuf),
    /// There are none.
    None,
}

fn parse_source(text: &str) -> std::result::Result<AnchorSource, std::convert::Infallible> {
    Ok(match text {
        "self" => AnchorSource::Written,
        "none" => AnchorSource::None,
        path => AnchorSource::File(path.into()),
    })
}

impl AnchorArgs {
    /// Whether there are texts.
    pub fn exists(&self) -> bool {
        self.anchor != AnchorSource::None
    }

    /// Refuses `--anchor none` for an `option` that needs texts.
    pub fn check(&self, option: &str) -> Result<()> {
        if !self.exists() {
            let problem = format!("{option} needs texts, and --anchor none gives it none");
            return Err(Error::request(problem, "leave --anchor out"));
        }
        Ok(())
    }

    /// New texts of the base to measure what a run forgot, which the penalty does not use, with this seed.
    /// `None` with `--anchor none`.
    pub fn to_measure(&self) -> Option<Self> {
        self.exists().then(|| Self { anchor: AnchorSource::Written, anchor_texts: None, ..self.clone() })
    }

    /// What decides the texts, by option. `texts` is their number.
    pub fn settings(&self, texts: usize) -> Result<Vec<(&'static str, String)>> {
        let source = match &self.anchor {
            AnchorSource::Written => "self".to_owned(),
            AnchorSource::None => "none".to_owned(),
            AnchorSource::File(path) => {
                let bytes = input::read(path, u64::MAX).map_err(|e| Error::io(path, "read the anchor", e))?;
                format!("SHA-256 {}", sha256_hex(&bytes))
            }
        };
        Ok(vec![("--anchor", source), ("--anchor-texts", texts.to_string())])
    }

    /// The number of texts that make these passes through the model, within the budget. `selects` has the
    /// examples and the seed of a selection by signal that reads the texts, too.
    pub fn texts(
        &self,
        base: &Base,
        budget: &Budget,
        passes: usize,
        selects: Option<(&Dataset, u64)>,
    ) -> usize {
        let length = length(base);
        let within = || match selects {
            None => budget.texts(length, passes),
            Some((data, seed)) => {
                let examples = signal::example_tokens(data, seed, length);
                let texts = budget.texts_with_selection(length, passes, examples);
                // More are for the penalty alone.
                if passes > budget::WRITING { texts } else { texts.min(signal::TEXTS) }
            }
        };
        self.anchor_texts.map_or_else(within, |texts| texts as usize)
    }

    /// The file that has the texts.
    pub fn file(&self) -> Option<&Path> {
        match &self.anchor {
            AnchorSource::Written | AnchorSource::None => None,
            AnchorSource::File(path) => Some(path),
        }
    }
}

/// The texts of one command, which are made when first needed.
#[derive(Debug)]
pub struct AnchorTexts<'b> {
    /// Where they come from.
    pub args: &'b AnchorArgs,
    /// The base that the texts are of.
    pub base: &'b Base,
    /// Where they are kept.
    pub kept: &'b Kept<'b>,
    /// How many.
    pub count: usize,
    /// Seed of all draws.
    pub seed: u64,
    /// Upper limit of the bytes for keys, values, activations and packed weights.
    pub memory: u64,
    made: OnceCell<Anchor>,
}

impl<'b> AnchorTexts<'b> {
    /// `count` texts.
    pub fn new(
        args: &'b AnchorArgs,
        (base, kept): (&'b Base, &'b Kept<'b>),
        (count, seed, memory): (usize, u64, u64),
    ) -> Self {
        Self { args, base, kept, count, seed, memory, made: OnceCell::new() }
    }

    /// Texts to measure what a run forgot: not those of [`Self::new`] for the same seed.
    pub fn to_measure(
        args: &'b AnchorArgs,
        (base, kept): (&'b Base, &'b Kept<'b>),
        (count, seed, memory): (usize, u64, u64),
    ) -> Self {
        Self::new(args, (base, kept), (count, seed ^ MEASURED_SEED, memory))
    }

    /// One line about the texts: what they are, and why.
    pub fn line(&self) -> String {
        let source = match self.args.anchor {
            AnchorSource::File(_) => "of --anchor",
            _ => "that the model writes itself",
        };
        let (count, length) = (self.count, length(self.base));
        format!("anchor   {count} texts of {length} tokens {source}: examples of what it must keep\n")
    }

    /// The texts. What is attached to the model must not change its predictions.
    pub fn get(&self, model: &mut Transformer<'_, f32>) -> Result<&Anchor> {
        if self.made.get().is_none() {
            let anchor = self.read(model)?;
            // Nothing else sets it.
            let _ = self.made.set(anchor);
        }
        self.made.get().ok_or_else(|| Error::request("the anchor is missing", "report this as a bug"))
    }

    fn read(&self, model: &mut Transformer<'_, f32>) -> Result<Anchor> {
        let options = AnchorOptions { texts: self.count, length: length(self.base), seed: self.seed };
        let tokenizer = self.base.tokenizer()?;
        if let AnchorSource::File(path) = &self.args.anchor {
            let text = read_text(path)?;
            return Anchor::from_text(&tokenizer, &text, &options).map_err(|error| error.in_file(path));
        }
        let template = self.base.chat_template(&tokenizer)?;
        let prompts = Prompts::new(model, &tokenizer, template.as_ref(), &options)?;
        let key = self.kept.key("anchor", model).map(|key| {
            key.with("prompts", prompts.sha256()).with("length", options.length).with("seed", options.seed)
        });
        let vocab = model.config().vocab;
        self.kept.result(
            key,
            |file| Anchor::restore(file, options.length, vocab),
            || {
                let tokens = options.texts * options.length;
                let bar = progress::bar("writing texts of what to keep", tokens as u64);
                let anchor = prompts.write(model, self.memory, |done, _| bar.set_position(done as u64));
                bar.finish_and_clear();
                Ok(anchor)
            },
        )
    }
}

/// Tokens of each text. Learned positions limit them.
pub fn length(base: &Base) -> usize {
    AnchorOptions::default().length.min(base.max_tokens().unwrap_or(usize::MAX))
}
