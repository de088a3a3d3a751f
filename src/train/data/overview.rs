//! What a file of examples holds, without a model.

use std::path::Path;

use super::bytes;
use super::columns::Columns;
use super::records::{self, Record};
use super::rows::{self, Content};
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
        let bytes = bytes(path)?;
        let source = rows::read(path, &bytes, columns)?;
        let (layout, texts) = match source.content {
            Content::Plain(text) => (source.kind.to_owned(), vec![text.to_owned()]),
            Content::Rows(rows) => {
                let rows = super::records(path, &rows, columns)?;
                let layout = records::layout(source.kind, rows.iter().map(|(_, row)| row), columns);
                (layout, rows.into_iter().map(|(_, row)| text(row.record)).collect())
            }
        };
        Ok(Self { layout, bytes: bytes.len(), texts })
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
