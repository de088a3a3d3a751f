//! The examples, as the base reads them.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::task::Task;
use crate::base::Base;
use crate::commands::data as overview;
use crate::commands::report::terminal;
use crate::train::data::{self, DataOptions, Dataset};
use crate::{Error, Result};

/// Tokens of an example, unless many are longer.
const USUAL_LENGTH: usize = 1024;
/// Longer examples take more memory and time than a first recipe should.
const MAX_LENGTH: usize = 4096;
/// Labels of a classifier, and how often each is there at least on average.
const MAX_LABELS: usize = 50;
const LABEL_REPEATS: usize = 5;
/// Tokens of a label.
const LABEL_LENGTH: usize = 8;

/// The examples of a recipe.
pub(super) struct Data {
    pub(super) set: Dataset,
    /// Upper limit of the length of an example.
    pub(super) max_seq_len: usize,
    lengths: Vec<usize>,
}

impl Data {
    /// Reads files and folders, with a length that cuts few examples.
    ///
    /// # Errors
    /// Those of `build`.
    pub(super) fn read(paths: &[PathBuf], base: &Base) -> Result<Self> {
        if let Some(path) = paths.iter().find(|path| path.as_os_str() == "-") {
            return Err(Error::file(path, "standard input cannot be read again", "name a file"));
        }
        let files = data::files(paths)?;
        let tokenizer = base.tokenizer()?;
        let template = base.chat_template(&tokenizer)?;
        let most = base.config().context.min(MAX_LENGTH);
        let read = |max_seq_len: usize| {
            let options = DataOptions { max_seq_len, ..DataOptions::default() };
            Dataset::read_all(&files, &tokenizer, template.as_ref(), &options)
        };
        let mut max_seq_len = USUAL_LENGTH.min(most).max(2);
        let mut set = read(max_seq_len)?;
        while set.cut * 20 > set.examples.len() && max_seq_len * 2 <= most && !is_plain(&set) {
            max_seq_len *= 2;
            set = read(max_seq_len)?;
        }
        Ok(Self { lengths: overview::lengths(&set), set, max_seq_len })
    }

    /// What they are, in two lines.
    pub(super) fn text(&self) -> String {
        format!("  {}\n  lengths {}\n", terminal::plain(&self.described()), overview::summary(&self.lengths))
    }

    /// What they are, in one line.
    pub(super) fn described(&self) -> String {
        let (set, tokens) = (&self.set, self.lengths.iter().sum::<usize>());
        let cut = match set.cut {
            0 => String::new(),
            cut => format!(", {cut} cut to {} tokens", self.max_seq_len),
        };
        format!(
            "{}: {} examples, {tokens} tokens, loss on {}{cut}",
            set.layout,
            set.examples.len(),
            set.target_tokens()
        )
    }

    /// What they look like: texts, chats, a few short answers again and again, or else facts.
    pub(super) fn task(&self) -> Task {
        if is_plain(&self.set) {
            return Task::Text;
        }
        let answers = self.set.examples.iter().map(|example| {
            let targets = example.tokens.iter().zip(&example.loss_mask).filter(|(_, target)| **target);
            targets.map(|(token, _)| *token).collect::<Vec<_>>()
        });
        let (count, mut different, mut longest) = (self.set.examples.len(), BTreeSet::new(), 0);
        for answer in answers {
            longest = longest.max(answer.len());
            different.insert(answer);
        }
        if longest <= LABEL_LENGTH
            && different.len() <= MAX_LABELS
            && different.len() * LABEL_REPEATS <= count
        {
            return Task::Classify;
        }
        match self.set.layout.contains("messages") || self.set.layout.contains("conversations") {
            true => Task::Chat,
            false => Task::Facts,
        }
    }
}

/// Whether the loss is on every token but the first, as of texts.
fn is_plain(set: &Dataset) -> bool {
    set.examples.iter().all(|example| example.loss_mask.iter().skip(1).all(|&target| target))
}
