//! The training and validation examples of `curmerge build`.

use std::path::Path;

use clap::Args;

use super::BuildArgs;
use crate::Result;
use crate::base::Base;
use crate::commands::arguments::TemplateArgs;
use crate::train::data::{DataOptions, Dataset};

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
}

impl ExampleArgs {
    /// The same for the library. A model with learned positions limits the length.
    pub fn options(&self, base: &Base) -> DataOptions {
        let max_seq_len = base.max_tokens().unwrap_or(usize::MAX).min(self.max_seq_len as usize);
        DataOptions { max_seq_len, append_eos: !self.no_append_eos }
    }
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
        let read = |path: &Path| Dataset::read(path, &tokenizer, template.as_ref(), &options);
        let mut data = read(&args.data)?;
        let valid = args.training.valid.as_deref().map(read).transpose()?;
        let held_out = valid.is_none() && !args.training.no_hold_out && data.examples.len() >= MIN_EXAMPLES;
        let valid = match held_out {
            true => Some(data.hold_out((data.examples.len() / HELD_OUT_SHARE).min(MAX_HELD_OUT))),
            false => valid,
        };
        Ok(Self { data, valid, held_out })
    }

    /// Tokens of the longest example.
    pub(super) fn max_tokens(&self) -> usize {
        let all = self.data.examples.iter().chain(self.valid.iter().flat_map(|valid| &valid.examples));
        all.map(|example| example.tokens.len()).max().unwrap_or(0)
    }
}
