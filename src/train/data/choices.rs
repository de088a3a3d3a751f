//! Prompts with possible answers, to score by likelihood.

use std::ops::ControlFlow;
use std::path::Path;

use rayon::prelude::*;

use super::columns::Columns;
use super::records::{self, Record};
use super::rows::Content;
use super::{Problem, reading};
use crate::Error;
use crate::tokenizer::Tokenizer;

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
    let mut all = Vec::new();
    reading::read(path, columns, &mut |part| {
        let Content::Rows(rows) = part else {
            return Err(Error::file(path, "is plain text, which has no choices", wanted));
        };
        let rows = reading::records(path, &rows, columns)?;
        let made: Vec<_> =
            rows.par_iter().map(|(line, row)| (line, choice_example(&row.record, tokenizer))).collect();
        for (line, example) in made {
            all.push(example.map_err(|problem| problem.at(path, *line))?);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(all)
}

/// Whether the first example of a file has `"choices"`, so that it can be scored by [`read_choices`].
///
/// # Errors
/// If the file cannot be read or is not a data file.
pub fn has_choices(path: impl AsRef<Path>, columns: &Columns) -> Result<bool, Error> {
    let path = path.as_ref();
    let mut found = false;
    reading::read(path, columns, &mut |part| {
        if let Content::Rows(rows) = part
            && let Some((line, first)) = rows.first()
        {
            let record = records::record(path, *line, first, columns)?.record;
            found = matches!(record, Record::Pair { choices: Some(_), .. });
        }
        Ok(ControlFlow::Break(()))
    })?;
    Ok(found)
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
