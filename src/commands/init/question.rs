//! Questions on a terminal. Elsewhere, and for what an option answers, nothing is asked.

use std::io::IsTerminal;

use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::MemHistory;
use rustyline::validate::Validator;
use rustyline::{Config, Context, Editor, Helper};

use crate::commands::interrupt;
use crate::commands::report::{errors, terminal};
use crate::{Error, Result};

/// Where answers come from.
pub(super) struct Questions {
    /// `None` where nobody can answer.
    editor: Option<Box<Editor<Paths, MemHistory>>>,
}

impl Questions {
    /// Asks on standard input and output, if both are a terminal.
    pub(super) fn open() -> Self {
        let is_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        let editor = || {
            let mut editor = Editor::with_history(Config::builder().build(), MemHistory::new()).ok()?;
            editor.set_helper(Some(Paths { files: FilenameCompleter::new() }));
            Some(Box::new(editor))
        };
        Self { editor: if is_terminal { editor() } else { None } }
    }

    /// An answer and what its check makes of it: the option's, or else one that is asked for until the check takes it.
    /// Nothing typed is the default.
    ///
    /// # Errors
    /// An option's value that the check refuses; an answer that is missing where nobody can be asked.
    pub(super) fn answer<A, C>(
        &mut self,
        question: &str,
        (option, default): (&str, Option<String>),
        given: Option<A>,
        parse: impl Fn(&str) -> Result<A>,
        check: impl Fn(&A) -> Result<C>,
    ) -> Result<(A, C)> {
        if let Some(answer) = given {
            let checked = check(&answer)?;
            return Ok((answer, checked));
        }
        let taken = |text: &str| {
            let answer = parse(text)?;
            let checked = check(&answer)?;
            Ok((answer, checked))
        };
        if self.editor.is_none() {
            return match &default {
                Some(default) => taken(default),
                None => Err(Error::request(
                    format!("{option} is missing, and there is no terminal to ask on"),
                    "give --base and --data; --task, --memory and --adapter have defaults",
                )),
            };
        }
        let shown = default.as_ref().map_or(String::new(), |default| format!(" [{default}]"));
        loop {
            let typed = self.line(&format!("{question}{shown}: "))?;
            let typed = if typed.is_empty() { default.clone().unwrap_or_default() } else { typed };
            if typed.is_empty() {
                continue;
            }
            match taken(&typed) {
                Ok(taken) => return Ok(taken),
                Err(error) => terminal::print(&format!("  {}\n", errors::line(&error)))?,
            }
        }
    }

    /// Whether the answer is yes. Where nobody can be asked, it is no.
    pub(super) fn agree(&mut self, question: &str) -> Result<bool> {
        if self.editor.is_none() {
            return Ok(false);
        }
        let typed = self.line(&format!("{question} [y/N]: "))?;
        Ok(matches!(typed.to_lowercase().as_str(), "y" | "yes"))
    }

    /// A line, without the spaces around it and the quotes of a path that was dragged into the terminal.
    fn line(&mut self, prompt: &str) -> Result<String> {
        let Some(editor) = &mut self.editor else { return Ok(String::new()) };
        match interrupt::at_prompt(|| editor.readline(prompt)) {
            Ok(text) => {
                let text = text.trim();
                let bare = ['\'', '"'].iter().find_map(|&q| text.strip_prefix(q)?.strip_suffix(q));
                Ok(bare.unwrap_or(text).to_owned())
            }
            Err(ReadlineError::Interrupted | ReadlineError::Eof) => {
                std::process::exit(interrupt::STATUS.into())
            }
            Err(ReadlineError::Io(e)) => Err(Error::io("standard input", "read", e)),
            Err(other) => Err(Error::io("standard input", "read", std::io::Error::other(other))),
        }
    }
}

/// Completes paths.
struct Paths {
    files: FilenameCompleter,
}

impl Completer for Paths {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        at: usize,
        context: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        self.files.complete(line, at, context)
    }
}

impl Hinter for Paths {
    type Hint = String;
}

impl Highlighter for Paths {}
impl Validator for Paths {}
impl Helper for Paths {}
