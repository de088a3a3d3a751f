//! Training and test examples: from a file to tokens and their loss mask.
//!
//! Rows as mlx-lm and TRL take them: `{"text"}`, `{"prompt", "completion"}` (with `"choices"` for
//! [`read_choices`]) or `{"messages": [{"role", "content"}]}`, with what else the chat template takes
//! (`"tools"`, `"documents"`, `"chat_template_kwargs"`), and rows of other known data sets; as JSON lines, a
//! JSON array or a table; or plain text. Each may be compressed ([`compressed`](crate::compressed)). The loss counts all tokens of
//! a text, the completions, and the assistant's turns.
//!
//! A prompt and its completion are tokenized separately and joined, so a prompt has the same tokens in
//! training, in evaluation and in use.

mod choices;
mod columns;
mod files;
mod making;
mod order;
mod overview;
#[cfg(feature = "parquet")]
mod parquet;
mod questions;
mod reading;
mod records;
mod rows;
mod share;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;

use crate::Error;
use crate::chat::{ChatError, ChatTemplate};
use crate::tokenizer::{Tokenizer, TokenizerError};
pub use choices::{ChoiceExample, has_choices, read_choices};
pub use columns::{Columns, Labels, Part, Template};
pub use files::{files, is_data};
use order::is_spread;
pub use order::order;
pub use overview::Overview;
pub use questions::{Question, read_questions};
use rows::Content;
pub use share::{Share, is_large};

/// What is wrong with an example, before its line is known.
struct Problem {
    problem: String,
    help: String,
}

impl Problem {
    fn new(problem: impl Into<String>, help: impl Into<String>) -> Self {
        Problem { problem: problem.into(), help: help.into() }
    }

    fn at(self, path: &Path, line: usize) -> Error {
        Error::line(path, line, self.problem, self.help)
    }
}

impl From<ChatError> for Problem {
    fn from(error: ChatError) -> Self {
        Problem::new(error.problem(), error.help())
    }
}

impl From<TokenizerError> for Problem {
    fn from(error: TokenizerError) -> Self {
        Problem::new(error.to_string(), "or leave the example out")
    }
}

/// One sequence to train on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// Token ids, at most `max_seq_len`.
    pub tokens: Vec<u32>,
    /// As long as `tokens`: whether the loss counts the prediction of `tokens[i]` from the tokens before it.
    /// The first is never a target.
    pub loss_mask: Vec<bool>,
}

/// How examples are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataOptions {
    /// Upper limit of the length of an example, in tokens; at least 2. Default: 1024.
    pub max_seq_len: usize,
    /// Whether EOS follows a completion or a text, as a target, so that the model learns where an answer
    /// ends. Default: true.
    pub append_eos: bool,
    /// Which columns of a row are the parts of its example. Default: those of the usual names.
    pub columns: Columns,
}

/// The examples of a file, in its order.
#[derive(Clone, Debug, Default)]
pub struct Dataset {
    /// Each with at least one target.
    pub examples: Vec<Example>,
    /// Number of examples that were longer than `max_seq_len` and are truncated. A plain text is divided
    /// instead.
    pub cut: usize,
    /// Number of examples that were left out because they have no target.
    pub dropped: usize,
    /// SHA-256 of the file's bytes, once decompressed, hex.
    pub sha256: String,
    /// The limit that the examples were made with, in tokens.
    pub max_seq_len: usize,
    /// How the file was understood, in words.
    pub layout: String,
    /// Whether the examples are in the order in which the first epoch takes them: those of a
    /// [share](Self::read_share).
    pub in_order: bool,
}

impl Default for DataOptions {
    fn default() -> Self {
        Self { max_seq_len: 1024, append_eos: true, columns: Columns::Usual }
    }
}

impl Dataset {
    /// Takes `count` examples out, evenly spread over the file, as a data set of their own: for validation.
    #[must_use]
    pub fn hold_out(&mut self, count: usize) -> Self {
        let total = self.examples.len();
        let (mut kept, mut held_out) = (Vec::with_capacity(total), Vec::with_capacity(count));
        for (i, example) in std::mem::take(&mut self.examples).into_iter().enumerate() {
            if is_spread(i, count, total) { held_out.push(example) } else { kept.push(example) }
        }
        self.examples = kept;
        let Self { sha256, max_seq_len, layout, in_order, .. } = self;
        let (sha256, max_seq_len, layout) = (sha256.clone(), *max_seq_len, layout.clone());
        Self { examples: held_out, cut: 0, dropped: 0, sha256, max_seq_len, layout, in_order: *in_order }
    }

    /// Reads several files as one data set, in their order. Its digest is that of the files' digests, and of one file its
    /// own.
    ///
    /// # Errors
    /// Those of [`read`](Self::read), for each file.
    pub fn read_all<P: AsRef<Path>>(
        paths: &[P],
        tokenizer: &Tokenizer,
        template: Option<&ChatTemplate>,
        options: &DataOptions,
    ) -> Result<Self, Error> {
        let read = |path: &P| Self::read(path, tokenizer, template, options);
        let mut sets = paths.iter().map(read).collect::<Result<Vec<_>, _>>()?.into_iter();
        let Some(mut all) = sets.next() else {
            return Err(Error::request("there is no file of examples", "name one"));
        };
        let mut parts = vec![(all.sha256.clone(), all.layout.clone())];
        for set in sets {
            all.examples.extend(set.examples);
            all.cut += set.cut;
            all.dropped += set.dropped;
            parts.push((set.sha256, set.layout));
        }
        (all.sha256, all.layout) = joined(parts);
        Ok(all)
    }

    /// Keeps `count` examples, evenly spread over the file. What was cut or left out is still that of all.
    pub fn thin_out(&mut self, count: usize) {
        if count < self.examples.len() {
            self.examples = self.hold_out(count).examples;
        }
    }

    /// Reads a data file; `-` is standard input. `template` is the model's chat template, which only conversations need.
    ///
    /// An example that is too long keeps its start. A prompt with a completion keeps its end: the prompt
    /// loses its start (BOS stays), and only a completion that is too long alone loses its end. A plain text
    /// is divided into windows of `max_seq_len` tokens. Each starts with BOS if the model's settings add it,
    /// else with the last token of the previous window, so that every token but the first is a target once.
    ///
    /// # Errors
    /// If the file cannot be read, is empty, is not UTF-8, or a line is not one of the three kinds; if it has
    /// messages and the model no chat template that fits; if no example has a target.
    pub fn read(
        path: impl AsRef<Path>,
        tokenizer: &Tokenizer,
        template: Option<&ChatTemplate>,
        options: &DataOptions,
    ) -> Result<Self, Error> {
        let path = path.as_ref();
        check(path, options)?;
        let (mut dataset, mut columns) = (Self::empty(options), BTreeSet::new());
        let read = reading::read(path, &options.columns, &mut |part| {
            match part {
                Content::Plain(text) => {
                    dataset.examples = making::windows(text, tokenizer, options)
                        .map_err(|problem| Error::file(path, problem.problem, problem.help))?;
                }
                Content::Rows(rows) => {
                    let records = reading::records(path, &rows, &options.columns)?;
                    columns.extend(records.iter().map(|(_, row)| row.columns));
                    for made in making::all(path, records, tokenizer, template, options)? {
                        let mut learned = dataset.count(made);
                        dataset.examples.append(&mut learned);
                    }
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        dataset.sha256 = read.sha256;
        dataset.layout = records::layout(read.kind, &columns, &options.columns);
        if dataset.examples.is_empty() { Err(nothing_to_learn(path)) } else { Ok(dataset) }
    }

    /// Without examples yet.
    fn empty(options: &DataOptions) -> Self {
        Self {
            examples: Vec::new(),
            cut: 0,
            dropped: 0,
            sha256: String::new(),
            max_seq_len: options.max_seq_len,
            layout: String::new(),
            in_order: false,
        }
    }

    /// Counts what was made of a record, and returns what can be learned.
    fn count(&mut self, made: Vec<(Example, bool)>) -> Vec<Example> {
        self.cut += made.iter().filter(|(_, cut)| *cut).count();
        let all = made.len();
        let learned: Vec<Example> =
            made.into_iter().filter_map(|(example, _)| making::learnable(example)).collect();
        self.dropped += all - learned.len();
        learned
    }

    /// The first example that [`read`](Self::read) gives, and whether it is truncated. The rest of the file
    /// is not read.
    ///
    /// # Errors
    /// Those of [`read`](Self::read), for the file up to the example.
    pub fn first(
        path: impl AsRef<Path>,
        tokenizer: &Tokenizer,
        template: Option<&ChatTemplate>,
        options: &DataOptions,
    ) -> Result<(Example, bool), Error> {
        let path = path.as_ref();
        check(path, options)?;
        let mut first = None;
        reading::read(path, &options.columns, &mut |part| {
            match part {
                Content::Plain(text) => first = Some(making::first_window(path, text, tokenizer, options)?),
                Content::Rows(rows) => {
                    for (line, text) in rows {
                        let record = records::record(path, line, &text, &options.columns)?.record;
                        let made = making::examples(record, tokenizer, template, options);
                        let made = made.map_err(|problem| problem.at(path, line))?;
                        let mut made = made.into_iter();
                        first = made.find_map(|(example, cut)| Some((making::learnable(example)?, cut)));
                        if first.is_some() {
                            break;
                        }
                    }
                }
            }
            Ok(if first.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        first.ok_or_else(|| nothing_to_learn(path))
    }

    /// The number of target tokens of all examples.
    pub fn target_tokens(&self) -> usize {
        self.examples.iter().flat_map(|example| &example.loss_mask).filter(|&&target| target).count()
    }
}

fn check(path: &Path, options: &DataOptions) -> Result<(), Error> {
    if options.max_seq_len >= 2 {
        return Ok(());
    }
    Err(Error::file(
        path,
        format!("cannot be used in sequences of {} tokens", options.max_seq_len),
        "use sequences of at least 2 tokens",
    ))
}

/// The digest and layout of several files, from those of each.
fn joined(mut files: Vec<(String, String)>) -> (String, String) {
    if files.len() == 1 {
        return files.remove(0);
    }
    let (digests, mut layouts): (Vec<String>, Vec<String>) = files.into_iter().unzip();
    let sha256 = curmerge_formats::sha256_hex(digests.concat().as_bytes());
    let mut seen = BTreeSet::new();
    layouts.retain(|layout| seen.insert(layout.clone()));
    (sha256, format!("{} files: {}", digests.len(), layouts.join("; ")))
}

fn nothing_to_learn(path: &Path) -> Error {
    let help = "give it completions, assistant turns or longer texts, or allow longer sequences";
    Error::file(path, "has no example with anything to learn", help)
}

#[cfg(test)]
mod tests;
