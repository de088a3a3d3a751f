//! The training and validation examples of `curmerge build`.

use std::path::PathBuf;

use clap::Args;

use super::BuildArgs;
use crate::base::Base;
use crate::commands::arguments::TemplateArgs;
use crate::commands::columns::ColumnArgs;
use crate::commands::report::{progress, terminal};
use crate::train::data::{self, DataOptions, Dataset, Share};
use crate::{Error, Result};

/// With fewer examples, all are trained.
const MIN_EXAMPLES: usize = 100;
/// One example of this many is held out, if there is no `--valid`.
const HELD_OUT_SHARE: usize = 20;
/// More are not held out.
const MAX_HELD_OUT: usize = 200;

/// How examples are made.
#[derive(Clone, Debug, Args)]
pub struct ExampleArgs {
    /// How conversations become text.
    #[command(flatten)]
    pub template: TemplateArgs,
    /// Upper limit of the length of an example. Longer ones are truncated, and counted.
    #[arg(long, default_value_t = 1024, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(2..))]
    pub max_seq_len: u32,
    /// Do not train on the end-of-text token after completions and texts. By default the model learns where
    /// an answer ends.
    #[arg(long)]
    pub no_append_eos: bool,
    /// The default, which this option asked for in earlier versions.
    #[arg(long, hide = true, conflicts_with = "no_append_eos")]
    pub append_eos: bool,
    /// Which columns are trained.
    #[command(flatten)]
    pub columns: ColumnArgs,
}

impl ExampleArgs {
    /// The same for the library. A model with learned positions limits the length.
    pub fn options(&self, base: &Base) -> DataOptions {
        let max_seq_len = base.max_tokens().unwrap_or(usize::MAX).min(self.max_seq_len as usize);
        DataOptions { max_seq_len, append_eos: !self.no_append_eos, columns: self.columns.columns() }
    }
}

/// The files to train on: in a folder, those of validation are not among them.
fn trained_files(paths: &[PathBuf], valid: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let place = |path: &PathBuf| path.canonicalize().unwrap_or_else(|_| path.clone());
    let valid: Vec<PathBuf> = valid.iter().map(place).collect();
    if let Some(both) = paths.iter().find(|path| path.is_file() && valid.contains(&place(path))) {
        let path = both.display();
        terminal::warn(&format!(
            "{path} is trained on, too: the loss on --valid does not show what is learned"
        ));
    }
    let in_folder = |file: &PathBuf| !paths.contains(file) && valid.contains(&place(file));
    let mut files = data::files(paths)?;
    files.retain(|file| !in_folder(file));
    match files.first() {
        Some(_) => Ok(files),
        None => Err(Error::request("--valid has all files of --data", "name other files for one of them")),
    }
}

/// The number of examples that are this share of all: neither none nor all.
fn split(share: f64, all: usize) -> Result<usize> {
    let count = (share * all as f64).round() as usize;
    match count.max(1) {
        count if count < all => Ok(count),
        _ => Err(Error::request(
            format!("--valid-split {share} leaves none of {all} examples to train on"),
            "give a smaller share, or more examples",
        )),
    }
}

/// How many of all examples are held out.
fn held_out(args: &BuildArgs, has_valid: bool, all: usize) -> Result<usize> {
    Ok(match args.training.valid_split {
        Some(share) => split(share, all)?,
        None if !has_valid && !args.training.no_hold_out && all >= MIN_EXAMPLES => {
            (all / HELD_OUT_SHARE).min(MAX_HELD_OUT)
        }
        None => 0,
    })
}

/// The examples of a run.
pub(super) struct Examples {
    pub(super) data: Dataset,
    /// Of `--valid`, or held out.
    pub(super) valid: Option<Dataset>,
    /// Whether `valid` was held out of `data`.
    pub(super) held_out: bool,
}

impl Examples {
    /// Reads the files.
    pub(super) fn read(args: &BuildArgs, base: &Base) -> Result<Self> {
        let tokenizer = base.tokenizer()?;
        let template = base.chat_template(&tokenizer)?;
        let options = args.examples.options(base);
        let read = |files: &[PathBuf]| Dataset::read_all(files, &tokenizer, template.as_ref(), &options);
        let valid_files = data::files(args.training.valid.as_slice())?;
        let files = trained_files(&args.data, &valid_files)?;
        let takes_part = args.training.max_steps.is_some() || args.training.max_examples.is_some();
        if takes_part && data::is_large(&files)? {
            let has_valid = !valid_files.is_empty();
            let held_out = |all| held_out(args, has_valid, all);
            let share = Share {
                trained: args
                    .training
                    .max_steps
                    .map_or(usize::MAX, |steps| args.training.examples_within(steps)),
                seed: args.selection.seed,
                max_rows: args.training.max_examples.map(|most| usize::try_from(most).unwrap_or(usize::MAX)),
                held_out: &held_out,
            };
            let spinner = progress::spinner("reading the examples");
            let read_share = Dataset::read_share(&files, &tokenizer, template.as_ref(), &options, share);
            spinner.finish_and_clear();
            if let Some((data, held)) = read_share? {
                let held_out = held.is_some();
                let valid = if has_valid { Some(read(&valid_files)?) } else { held };
                return Ok(Self { data, valid, held_out });
            }
        }
        let mut data = read(&files)?;
        if let Some(most) = args.training.max_examples {
            data.thin_out(usize::try_from(most).unwrap_or(usize::MAX));
        }
        let given = if valid_files.is_empty() { None } else { Some(read(&valid_files)?) };
        let count = held_out(args, given.is_some(), data.examples.len())?;
        let held_out = count > 0;
        let valid = if held_out { Some(data.hold_out(count)) } else { given };
        Ok(Self { data, valid, held_out })
    }

    /// Tokens of the longest example.
    pub(super) fn max_tokens(&self) -> usize {
        let all = self.data.examples.iter().chain(self.valid.iter().flat_map(|valid| &valid.examples));
        all.map(|example| example.tokens.len()).max().unwrap_or(0)
    }
}
