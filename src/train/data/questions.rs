//! Questions with one right answer, for the model to answer freely.

use std::ops::ControlFlow;
use std::path::Path;

use super::columns::Columns;
use super::making::readable;
use super::records::Record;
use super::rows::Content;
use super::{Problem, reading};
use crate::Error;
use crate::chat::{ChatError, ChatTemplate, Conversation, Message};
use crate::tokenizer::Tokenizer;

/// A prompt and its right answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Tokens of the prompt, at least one: with BOS if the model's settings add it, or of the conversation
    /// up to the assistant's last turn.
    pub prompt: Vec<u32>,
    /// The right answer, without white space around it: one line that is not empty.
    pub answer: String,
}

/// Reads a file of `{"prompt", "completion"}`, or of `{"messages"}` whose last turn is the assistant's
/// answer; `columns` say which columns these are. `template` is the model's chat template, which only conversations need. `context` is the model's
/// context, in tokens.
///
/// # Errors
/// If the file cannot be read; if a line has no prompt, a prompt that leaves no room for an answer, or no
/// answer of one line; if it has messages and the model no chat template that fits.
pub fn read_questions(
    path: impl AsRef<Path>,
    tokenizer: &Tokenizer,
    template: Option<&ChatTemplate>,
    context: usize,
    columns: &Columns,
) -> Result<Vec<Question>, Error> {
    let path = path.as_ref();
    let mut questions = Vec::new();
    reading::read(path, columns, &mut |part| {
        let Content::Rows(rows) = part else {
            let help = "give each line {\"prompt\", \"completion\"} or {\"messages\"}";
            return Err(Error::file(path, "is plain text, which asks nothing", help));
        };
        for (line, row) in reading::records(path, &rows, columns)? {
            let made = question(row.record, tokenizer, template, context);
            questions.push(made.map_err(|problem| problem.at(path, line))?);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(questions)
}

fn question(
    record: Record,
    tokenizer: &Tokenizer,
    template: Option<&ChatTemplate>,
    context: usize,
) -> Result<Question, Problem> {
    let (prompt, answer) = match record.asked(template.is_some()) {
        Record::Text(_) => {
            let help = "give it a \"prompt\" and a \"completion\"";
            return Err(Problem::new("is a text, which asks nothing", help));
        }
        Record::Exchange { question: prompt, answer: completion, .. }
        | Record::Pair { prompt, completion, .. } => (tokenizer.encode_with_bos(&prompt)?, completion),
        Record::Chat(conversation) => conversation_question(&conversation, tokenizer, template)?,
    };
    let answer = answer.trim();
    if answer.is_empty() || answer.contains('\n') {
        let help = "give it one line of text; the model's answer ends at a line break";
        return Err(Problem::new("has an answer that is empty or longer than a line", help));
    }
    if prompt.is_empty() {
        return Err(Problem::new("the prompt is empty", "give it some text"));
    }
    if prompt.len() >= context {
        let problem = format!("the prompt has {} tokens, and the model's context {context}", prompt.len());
        return Err(Problem::new(problem, "give a shorter prompt"));
    }
    Ok(Question { prompt, answer: answer.to_owned() })
}

/// The tokens of a conversation up to the answer, and the answer.
fn conversation_question(
    conversation: &Conversation,
    tokenizer: &Tokenizer,
    template: Option<&ChatTemplate>,
) -> Result<(Vec<u32>, String), Problem> {
    let template = template.ok_or(ChatError::NoTemplate)?;
    let conversation = &*readable(conversation, template);
    let answered = conversation.messages.split_last().filter(|(last, _)| last.role() == "assistant");
    let answered = answered.and_then(|(last, asked)| Some((last.content()?, asked)));
    let Some((answer, asked)) = answered.filter(|(_, asked): &(String, &[Message])| !asked.is_empty()) else {
        let help = "end it with a turn of the assistant whose \"content\" is the right answer";
        return Err(Problem::new("has no answer after its messages", help));
    };
    let text = template.render_with(asked, &conversation.variables, true)?;
    Ok((tokenizer.encode_with_bos(&text)?, answer))
}
