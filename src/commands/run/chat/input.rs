//! Messages from a terminal, with editing and history, or from a pipe.

use std::io::{BufRead, IsTerminal, Read, StdinLock};

use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::MemHistory;
use rustyline::validate::Validator;
use rustyline::{Config, Context, Editor, Helper};

use super::command;
use crate::commands::interrupt;
use crate::{Error, Result};

/// Before a message, and before its further lines.
const PROMPTS: [&str; 2] = [">>> ", "... "];
/// Begins and ends a message of several lines.
const QUOTES: &str = "\"\"\"";
/// The greatest length of a message, in bytes.
const MAX_BYTES: u64 = 16 << 20;

/// What was typed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Text(String),
    /// Ctrl-C.
    Interrupted,
}

/// Where messages come from.
pub(super) enum Input {
    Terminal(Box<Editor<Words, MemHistory>>),
    Pipe(StdinLock<'static>),
}

impl Input {
    /// Standard input.
    pub(super) fn open() -> Self {
        let is_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        let editor = || {
            let config = Config::builder().auto_add_history(true).build();
            let mut editor = Editor::with_history(config, MemHistory::new()).ok()?;
            editor.set_helper(Some(Words { files: FilenameCompleter::new() }));
            Some(Self::Terminal(Box::new(editor)))
        };
        let terminal = if is_terminal { editor() } else { None };
        terminal.unwrap_or_else(|| Self::Pipe(std::io::stdin().lock()))
    }

    pub(super) fn is_terminal(&self) -> bool {
        matches!(self, Self::Terminal(_))
    }

    /// The next message; `None` at the end.
    ///
    /// # Errors
    /// What cannot be read or is not UTF-8; a message that is too long.
    pub(super) fn next(&mut self) -> Result<Option<Line>> {
        let first = match self.line(PROMPTS[0])? {
            Some(Line::Text(first)) => first,
            other => return Ok(other),
        };
        let Some(begun) = first.trim_start().strip_prefix(QUOTES) else { return Ok(Some(Line::Text(first))) };
        let mut text = begun.to_owned();
        // Quotes may end in the line that they begin in.
        while !text.trim_end().ends_with(QUOTES) {
            match self.line(PROMPTS[1])? {
                Some(Line::Text(more)) => text = text + "\n" + &more,
                Some(Line::Interrupted) => return Ok(Some(Line::Interrupted)),
                None => break,
            }
            if text.len() as u64 > MAX_BYTES {
                return Err(too_long());
            }
        }
        let end = text.trim_end().strip_suffix(QUOTES).map_or(text.len(), str::len);
        Ok(Some(Line::Text(text[..end].trim_matches('\n').to_owned())))
    }

    fn line(&mut self, prompt: &str) -> Result<Option<Line>> {
        let failed = |e| Error::io("standard input", "read", e);
        match self {
            Self::Terminal(editor) => match interrupt::at_prompt(|| editor.readline(prompt)) {
                Ok(text) => Ok(Some(Line::Text(text))),
                Err(ReadlineError::Interrupted) => Ok(Some(Line::Interrupted)),
                Err(ReadlineError::Eof) => Ok(None),
                Err(ReadlineError::Io(e)) => Err(failed(e)),
                Err(other) => Err(failed(std::io::Error::other(other))),
            },
            Self::Pipe(stdin) => {
                let mut bytes = Vec::new();
                let read = stdin.take(MAX_BYTES + 1).read_until(b'\n', &mut bytes).map_err(failed)?;
                if read == 0 {
                    return Ok(None);
                }
                if bytes.len() as u64 > MAX_BYTES {
                    return Err(too_long());
                }
                let text = String::from_utf8(bytes)
                    .map_err(|_| Error::request("standard input is not UTF-8", "send texts as UTF-8"))?;
                Ok(Some(Line::Text(text.trim_end_matches(['\r', '\n']).to_owned())))
            }
        }
    }
}

fn too_long() -> Error {
    Error::request(format!("a message of more than {} MiB", MAX_BYTES >> 20), "send a shorter one")
}

/// Completes commands, and files after those that take one.
pub(super) struct Words {
    files: FilenameCompleter,
}

impl Completer for Words {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        at: usize,
        context: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        if !line.starts_with('/') {
            return Ok((at, Vec::new()));
        }
        if line.contains(' ') {
            return self.files.complete(line, at, context);
        }
        let names = command::NAMES.iter().filter(|name| name.starts_with(&line[..at]));
        let pair = |name: &&str| Pair { display: name.to_string(), replacement: format!("{name} ") };
        Ok((0, names.map(pair).collect()))
    }
}

impl Hinter for Words {
    type Hint = String;
}

impl Highlighter for Words {}
impl Validator for Words {}
impl Helper for Words {}
