//! The training and validation examples of `curmerge build`.

use std::path::Path;

use clap::Args;

use super::BuildArgs;
use crate::Result;
use crate::base::Base;
use crate::train::data::{DataOptions, Dataset};

/// How examples are made.
#[derive(Clone, Copy, Debug, Args)]
pub struct ExampleArgs {
    /// Upper limit of the length of an example. Longer ones are truncated, and counted.
    #[arg(long, default_value_t = 1024, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(2..))]
    pub max_seq_len: u32,
    /// Train on the end-of-text token after completions and texts.
    #[arg(long)]
    pub append_eos: bool,
}

impl ExampleArgs {
    /// The same for the library. A model with learned positions limits the length.
    pub fn options(&self, base: &Base) -> DataOptions {
        let max_seq_len = base.max_tokens().unwrap_or(usize::MAX).min(self.max_seq_len as usize);
        DataOptions { max_seq_len, append_eos: self.append_eos }
    }
}

/// The examples of a run.
pub(super) struct Examples {
    pub(super) data: Dataset,
    /// Of `--valid`.
    pub(super) valid: Option<Dataset>,
}

impl Examples {
    /// Reads the files.
    pub(super) fn read(args: &BuildArgs, base: &Base) -> Result<Self> {
        let tokenizer = base.tokenizer()?;
        let template = base.chat_template(&tokenizer)?;
        let options = args.examples.options(base);
        let read = |path: &Path| Dataset::read(path, &tokenizer, template.as_ref(), &options);
        Ok(Self { data: read(&args.data)?, valid: args.training.valid.as_deref().map(read).transpose()? })
    }

    /// Tokens of the longest example.
    pub(super) fn max_tokens(&self) -> usize {
        let all = self.data.examples.iter().chain(self.valid.iter().flat_map(|valid| &valid.examples));
        all.map(|example| example.tokens.len()).max().unwrap_or(0)
    }
}
