//! Training and test examples: from a file to tokens and their loss mask.
//!
//! Rows as mlx-lm and TRL take them: `{"text"}`, `{"prompt", "completion"}` (with `"choices"` for
//! [`read_choices`]) or `{"messages": [{"role", "content"}]}`, with what else the chat template takes
//! (`"tools"`, `"documents"`, `"chat_template_kwargs"`), and rows of other known data sets; as JSON lines, a
//! JSON array or a table; or plain text. Each may be compressed ([`compressed`]). The loss counts all tokens of
//! a text, the completions, and the assistant's turns.
//!
//! A prompt and its completion are tokenized separately and joined, so a prompt has the same tokens in
//! training, in evaluation and in use.

mod columns;
mod files;
mod overview;
mod questions;
mod records;
mod rows;

use std::borrow::Cow;
use std::io::{BufRead, BufReader};
use std::path::Path;

use rayon::prelude::*;

use crate::Error;
use crate::chat::{self, ChatError, ChatTemplate, Conversation, MaskedTokens};
use crate::compressed;
use crate::tokenizer::{Tokenizer, TokenizerError};
pub use files::{files, is_data};
pub use columns::{Columns, Labels, Part, Template};
pub use files::files;
pub use overview::Overview;
pub use questions::{Question, read_questions};
use records::{Record, Row};
use rows::{Content, Source};

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
#[derive(Clone, Debug)]
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
        // Example i is held out where i count / total passes a whole number.
        let held = |i: usize| (i + 1) * count / total > i * count / total;
        let (mut kept, mut held_out) = (Vec::with_capacity(total), Vec::with_capacity(count));
        for (i, example) in std::mem::take(&mut self.examples).into_iter().enumerate() {
            if held(i) { held_out.push(example) } else { kept.push(example) }
        }
        self.examples = kept;
        let Self { sha256, max_seq_len, layout, .. } = self;
        let (sha256, max_seq_len, layout) = (sha256.clone(), *max_seq_len, layout.clone());
        Self { examples: held_out, cut: 0, dropped: 0, sha256, max_seq_len, layout }
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
        let (mut digests, mut layouts) = (vec![all.sha256.clone()], vec![all.layout.clone()]);
        for set in sets {
            all.examples.extend(set.examples);
            all.cut += set.cut;
            all.dropped += set.dropped;
            digests.push(set.sha256);
            if !layouts.contains(&set.layout) {
                layouts.push(set.layout);
            }
        }
        if digests.len() > 1 {
            all.sha256 = curmerge_formats::sha256_hex(digests.concat().as_bytes());
            all.layout = format!("{} files: {}", digests.len(), layouts.join("; "));
        }
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
        let bytes = bytes(path)?;
        let mut dataset = Dataset {
            examples: Vec::new(),
            cut: 0,
            dropped: 0,
            sha256: curmerge_formats::sha256_hex(&bytes),
            max_seq_len: options.max_seq_len,
            layout: String::new(),
        };
        let Source { content, kind } = rows::read(path, &bytes, &options.columns)?;
        match content {
            Content::Plain(text) => {
                kind.clone_into(&mut dataset.layout);
                dataset.examples = windows(text, tokenizer, options)
                    .map_err(|problem| Error::file(path, problem.problem, problem.help))?;
            }
            Content::Rows(rows) => {
                let rows = records(path, &rows, &options.columns)?;
                dataset.layout = records::layout(kind, rows.iter().map(|(_, row)| row), &options.columns);
                // Collected in order first: which of several errors is reported must not depend on the
                // threads.
                let made: Vec<_> = rows
                    .into_par_iter()
                    .map(|(line, row)| (line, examples(row.record, tokenizer, template, options)))
                    .collect();
                for (line, made) in made {
                    for (example, cut) in made.map_err(|problem| problem.at(path, line))? {
                        dataset.cut += usize::from(cut);
                        let Some(example) = learnable(example) else {
                            dataset.dropped += 1;
                            continue;
                        };
                        dataset.examples.push(example);
                    }
                }
            }
        }
        if dataset.examples.is_empty() { Err(nothing_to_learn(path)) } else { Ok(dataset) }
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
        if path == Path::new(files::STANDARD_INPUT) {
            return first_of_whole(path, tokenizer, template, options);
        }
        let failed = |source| Error::io(path, "read the examples", source);
        let mut file = BufReader::new(compressed::open(path).map_err(failed)?);
        let (mut bytes, mut begun) = (Vec::new(), false);
        for number in 1.. {
            bytes.clear();
            if file.read_until(b'\n', &mut bytes).map_err(failed)? == 0 {
                break;
            }
            let line =
                if number == 1 { bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes) } else { &bytes };
            let line = str::from_utf8(line).map_err(|_| rows::not_utf8(path, number))?;
            if line.trim().is_empty() {
                continue;
            }
            if !begun && !rows::is_json_lines(path, line, &options.columns) {
                return first_of_whole(path, tokenizer, template, options);
            }
            let text = line.strip_suffix('\n').unwrap_or(line);
            let record = match records::record(path, number, text, &options.columns) {
                Ok(row) => row.record,
                // One value of several lines begins like a damaged line.
                Err(_) if !begun => return first_of_whole(path, tokenizer, template, options),
                Err(error) => return Err(error),
            };
            begun = true;
            let found = first_of(record, tokenizer, template, options);
            if let Some(found) = found.map_err(|problem| problem.at(path, number))? {
                return Ok(found);
            }
        }
        Err(if begun { nothing_to_learn(path) } else { rows::empty(path) })
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

fn nothing_to_learn(path: &Path) -> Error {
    let help = "give it completions, assistant turns or longer texts, or allow longer sequences";
    Error::file(path, "has no example with anything to learn", help)
}

/// The example without the first token as a target, since nothing predicts it; `None` if no target remains.
fn learnable(mut example: Example) -> Option<Example> {
    if let Some(first) = example.loss_mask.first_mut() {
        *first = false;
    }
    example.loss_mask.contains(&true).then_some(example)
}

/// The first example of a file that is not one of JSON lines.
fn first_of_whole(
    path: &Path,
    tokenizer: &Tokenizer,
    template: Option<&ChatTemplate>,
    options: &DataOptions,
) -> Result<(Example, bool), Error> {
    let bytes = bytes(path)?;
    let rows = match rows::read(path, &bytes, &options.columns)?.content {
        Content::Plain(text) => return first_window(path, text, tokenizer, options),
        Content::Rows(rows) => rows,
    };
    for (line, text) in rows {
        let record = records::record(path, line, &text, &options.columns)?.record;
        let found = first_of(record, tokenizer, template, options);
        if let Some(found) = found.map_err(|problem| problem.at(path, line))? {
            return Ok(found);
        }
    }
    Err(nothing_to_learn(path))
}

/// The first example of a record that has a target, and whether it was cut short.
fn first_of(
    record: Record,
    tokenizer: &Tokenizer,
    template: Option<&ChatTemplate>,
    options: &DataOptions,
) -> Result<Option<(Example, bool)>, Problem> {
    let made = examples(record, tokenizer, template, options)?;
    Ok(made.into_iter().find_map(|(example, cut)| Some((learnable(example)?, cut))))
}

/// The first window of a plain text.
fn first_window(
    path: &Path,
    all: &str,
    tokenizer: &Tokenizer,
    options: &DataOptions,
) -> Result<(Example, bool), Error> {
    // Far more text than fills a window, so the cut changes none of its tokens.
    let max_bytes = options.max_seq_len.saturating_mul(64).min(all.len());
    let part = (0..=max_bytes).rev().find(|&at| all.is_char_boundary(at)).unwrap_or(0);
    for text in [&all[..part], all] {
        let made = windows(text, tokenizer, options);
        let made = made.map_err(|problem| Error::file(path, problem.problem, problem.help))?;
        let is_full = |first: &Example| first.tokens.len() == options.max_seq_len;
        if let Some(first) = made.into_iter().next().filter(|first| is_full(first) || all == text) {
            return Ok((first, false));
        }
    }
    Err(nothing_to_learn(path))
}

/// A prompt with its possible answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChoiceExample {
    /// Tokens of the prompt, with BOS if the model's settings add it.
    pub prompt: Vec<u32>,
    /// Tokens of each answer, none of them empty.
    pub choices: Vec<Vec<u32>>,
    /// Which of `choices` is right.
    pub answer: usize,
}

/// Reads a file of `{"prompt", "completion", "choices"}` to score by likelihood. `columns` say which columns
/// these are.
///
/// # Errors
/// If the file cannot be read, or a line has no prompt, no choices, an empty choice, or a completion that is
/// not one of its choices.
pub fn read_choices(
    path: impl AsRef<Path>,
    tokenizer: &Tokenizer,
    columns: &Columns,
) -> Result<Vec<ChoiceExample>, Error> {
    let path = path.as_ref();
    let wanted = "give each line {\"prompt\", \"completion\", \"choices\": [...]}";
    let bytes = bytes(path)?;
    let Content::Rows(rows) = rows::read(path, &bytes, columns)?.content else {
        return Err(Error::file(path, "is plain text, which has no choices", wanted));
    };
    let rows = records(path, &rows, columns)?;
    let made: Vec<_> =
        rows.par_iter().map(|(line, row)| (line, choice_example(&row.record, tokenizer))).collect();
    made.into_iter().map(|(&line, example)| example.map_err(|problem| problem.at(path, line))).collect()
}

/// Whether the first example of a file has `"choices"`, so that it can be scored by [`read_choices`].
///
/// # Errors
/// If the file cannot be read or is not a data file.
pub fn has_choices(path: impl AsRef<Path>, columns: &Columns) -> Result<bool, Error> {
    let path = path.as_ref();
    let bytes = bytes(path)?;
    let Content::Rows(rows) = rows::read(path, &bytes, columns)?.content else { return Ok(false) };
    let Some((line, first)) = rows.first() else { return Ok(false) };
    let record = records::record(path, *line, first, columns)?.record;
    Ok(matches!(record, Record::Pair { choices: Some(_), .. }))
}

fn choice_example(record: &Record, tokenizer: &Tokenizer) -> Result<ChoiceExample, Problem> {
    let Record::Pair { prompt, completion, choices: Some(choices) } = record else {
        return Err(Problem::new(
            "has no \"choices\" with its \"prompt\"",
            "list the possible completions there",
        ));
    };
    let answer = choices.iter().position(|choice| choice == completion).ok_or_else(|| {
        let shown: String = completion.chars().take(40).collect();
        Problem::new(format!("the completion {shown:?} is not one of the choices"), "add it to \"choices\"")
    })?;
    let prompt = tokenizer.encode_with_bos(prompt)?;
    if prompt.is_empty() {
        return Err(Problem::new("the prompt is empty", "give it some text"));
    }
    let choices: Vec<Vec<u32>> =
        choices.iter().map(|choice| tokenizer.encode_after(&prompt, choice)).collect::<Result<_, _>>()?;
    if let Some(empty) = choices.iter().position(Vec::is_empty) {
        return Err(Problem::new(format!("\"choices\"[{empty}] is empty"), "give it some text"));
    }
    Ok(ChoiceExample { prompt, choices, answer })
}

/// The bytes of a data file.
fn bytes(path: &Path) -> Result<Vec<u8>, Error> {
    if path == Path::new(files::STANDARD_INPUT) {
        return files::standard_input();
    }
    compressed::read(path).map_err(|source| Error::io(path, "read the examples", source))
}

/// What each row holds, with its line.
fn records(
    path: &Path,
    rows: &[(usize, Cow<'_, str>)],
    columns: &Columns,
) -> Result<Vec<(usize, Row)>, Error> {
    rows.iter().map(|(line, text)| Ok((*line, records::record(path, *line, text, columns)?))).collect()
}

/// The conversation as the template can render it: with texts in place of lists of texts, if it drops or
/// misunderstands the lists.
fn readable<'c>(conversation: &'c Conversation, template: &ChatTemplate) -> Cow<'c, Conversation> {
    let Some(joined) = conversation.with_joined_texts() else { return Cow::Borrowed(conversation) };
    let words = |conversation: &Conversation| {
        let text = template.render_with(&conversation.messages, &conversation.variables, false);
        text.ok().map(|text| text.split_whitespace().collect::<String>())
    };
    let (own, plain) = (words(conversation), words(&joined));
    if plain.is_none() || own == plain { Cow::Borrowed(conversation) } else { Cow::Owned(joined) }
}

/// The examples of a record, and whether each was cut short. A conversation may make several; see
/// [`chat::tokenize`].
fn examples(
    record: Record,
    tokenizer: &Tokenizer,
    template: Option<&ChatTemplate>,
    options: &DataOptions,
) -> Result<Vec<(Example, bool)>, Problem> {
    let max = options.max_seq_len;
    match record.asked(template.is_some()) {
        Record::Text(text) => {
            let mut tokens = tokenizer.encode_with_bos(&text)?;
            let append_eos = options.append_eos || tokenizer.adds_eos();
            end(&mut tokens, tokenizer, append_eos);
            let loss_mask = vec![true; tokens.len()];
            Ok(vec![keep_start(Example { tokens, loss_mask }, max)])
        }
        Record::Chat(conversation) => {
            let template = template.ok_or(ChatError::NoTemplate)?;
            let made =
                chat::tokenize(&readable(&conversation, template), template, tokenizer, options.append_eos)?;
            let example = |MaskedTokens { tokens, loss_mask }| Example { tokens, loss_mask };
            Ok(made.into_iter().map(|made| keep_start(example(made), max)).collect())
        }
        Record::Exchange { question: prompt, answer: completion, .. }
        | Record::Pair { prompt, completion, .. } => {
            let prompt = tokenizer.encode_with_bos(&prompt)?;
            let mut completion = tokenizer.encode_after(&prompt, &completion)?;
            end(&mut completion, tokenizer, options.append_eos);
            Ok(vec![keep_end(prompt, completion, tokenizer, max)])
        }
    }
}

/// Ends a text that does not end yet.
fn end(tokens: &mut Vec<u32>, tokenizer: &Tokenizer, append_eos: bool) {
    if let (true, Some(eos)) = (append_eos, tokenizer.eos())
        && tokens.last() != Some(&eos)
    {
        tokens.push(eos);
    }
}

fn keep_start(mut example: Example, max: usize) -> (Example, bool) {
    let cut = example.tokens.len() > max;
    example.tokens.truncate(max);
    example.loss_mask.truncate(max);
    (example, cut)
}

/// Joins prompt and completion. If they are too long, the prompt loses its start after BOS, down to one
/// token; then the completion loses its end.
fn keep_end(
    mut prompt: Vec<u32>,
    mut completion: Vec<u32>,
    tokenizer: &Tokenizer,
    max: usize,
) -> (Example, bool) {
    let cut = prompt.len() + completion.len() > max;
    if cut {
        let bos = usize::from(tokenizer.adds_bos()).min(prompt.len());
        let min_prompt = bos.max(1).min(prompt.len());
        let keep = max.saturating_sub(completion.len()).max(min_prompt).min(prompt.len());
        prompt.drain(bos..bos + prompt.len() - keep);
        completion.truncate(max - prompt.len());
    }
    let mut loss_mask = vec![false; prompt.len()];
    loss_mask.resize(prompt.len() + completion.len(), true);
    prompt.append(&mut completion);
    (Example { tokens: prompt, loss_mask }, cut)
}

/// A plain text as windows; see [`Dataset::read`].
fn windows(text: &str, tokenizer: &Tokenizer, options: &DataOptions) -> Result<Vec<Example>, Problem> {
    let mut tokens = tokenizer.encode_after(&[], text)?;
    end(&mut tokens, tokenizer, options.append_eos);
    let bos = tokenizer.bos().filter(|_| tokenizer.adds_bos());
    // A window is one token of context and up to this many targets.
    let step = options.max_seq_len - 1;
    let (mut context, rest) = match (bos, tokens.split_first()) {
        (Some(bos), _) => (bos, &tokens[..]),
        (None, Some((&first, rest))) => (first, rest),
        (None, None) => return Ok(Vec::new()),
    };
    let mut examples = Vec::with_capacity(rest.len() / step + 1);
    for chunk in rest.chunks(step) {
        let mut window = Vec::with_capacity(chunk.len() + 1);
        window.push(context);
        window.extend_from_slice(chunk);
        let mut loss_mask = vec![true; window.len()];
        loss_mask[0] = false;
        if let (None, Some(&last)) = (bos, chunk.last()) {
            context = last;
        }
        examples.push(Example { tokens: window, loss_mask });
    }
    Ok(examples)
}

#[cfg(test)]
mod tests;
