//! `--report FILE.html`: a run on one page, which asks for nothing outside itself.
//!
//! Its numbers are the run's own, and its bytes follow from the run's inputs: it holds no time, path or host. Texts of
//! models and of examples are escaped, and the page forbids scripts.

mod page;
pub(super) mod samples;

use std::path::Path;

use curmerge_formats::output::OutputFile;
use curmerge_formats::{input, sha256_hex};

use super::examples::Examples;
use super::outcome::Outcome;
use crate::base::Base;
use crate::commands::report::progress;
use crate::export::relative_changes;
use crate::{Error, Result};
use samples::Sample;

/// What a page shows.
pub(super) struct Report<'a> {
    pub(super) base: &'a Base,
    pub(super) outcome: &'a Outcome<'a>,
    pub(super) examples: &'a Examples,
    /// What both models write on the same prompts.
    pub(super) samples: &'a [Sample],
    /// The run's options, as TOML.
    pub(super) recipe: &'a str,
}

impl Report<'_> {
    /// Writes the page; it must be none of `inputs`.
    ///
    /// # Errors
    /// Those of the output; an adapter that cannot be read again.
    pub(super) fn write(&self, path: &Path, inputs: &[&Path]) -> Result<()> {
        let bar = progress::spinner("writing the report");
        let changes = relative_changes(self.base, self.outcome.trainee.trained());
        bar.finish_and_clear();
        let adapter = self.outcome.output.file();
        let bytes = input::read(&adapter, u64::MAX).map_err(|e| Error::io(&adapter, "read", e))?;
        let page = page::html(self, &changes?, &sha256_hex(&bytes));
        let mut file = OutputFile::create(path, inputs)?;
        file.append(page.as_bytes())?;
        Ok(file.commit()?)
    }
}
