//! What a file of examples holds, without a model.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;

use super::columns::Columns;
use super::reading;
use super::records::{self, Record};
use super::rows::Content;
use crate::Result;

/// The rows of a data file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overview {
    /// How the file was understood, in words.
    pub layout: String,
    /// The bytes of the file, once decompressed.
    pub bytes: usize,
    /// The text of each row, in the order of the file: of a conversation, its turns. A plain text is one row.
    pub texts: Vec<String>,
}

impl Overview {
    /// Reads a data file; `-` is standard input. `columns` are the parts of its examples.
    ///
    /// # Errors
    /// Those of [`Dataset::read`](super::Dataset::read), but for tokens and templates.
    pub fn read(path: impl AsRef<Path>, columns: &Columns) -> Result<Self> {
        let path = path.as_ref();
        let (mut texts, mut found) = (Vec::new(), BTreeSet::new());
        let read = reading::read(path, columns, &mut |part| {
            match part {
                Content::Plain(text) => texts.push(text.to_owned()),
                Content::Rows(rows) => {
                    for (_, row) in reading::records(path, &rows, columns)? {
                        found.insert(row.columns);
                        texts.push(text(row.record));
                    }
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        let layout = records::layout(read.kind, &found, columns);
        Ok(Self { layout, bytes: usize::try_from(read.bytes).unwrap_or(usize::MAX), texts })
    }
}

/// What a record says.
fn text(record: Record) -> String {
    match record {
        Record::Text(text) => text,
        Record::Pair { prompt, completion, .. } => prompt + &completion,
        Record::Exchange { system, question, answer, .. } => {
            let system = system.map_or_else(String::new, |system| format!("system: {system}\n"));
            format!("{system}user: {question}\nassistant: {answer}")
        }
        Record::Chat(conversation) => {
            let turns = conversation.messages.iter();
            let turns: Vec<String> = turns
                .map(|turn| format!("{}: {}", turn.role(), turn.content().unwrap_or_default()))
                .collect();
            turns.join("\n")
        }
    }
}
