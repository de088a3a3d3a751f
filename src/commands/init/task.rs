//! What examples teach, and what training needs for it.

use clap::ValueEnum;

use crate::{Error, Result};

/// What examples teach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Task {
    /// How to talk: a tone, a role, a form of answer.
    Chat,
    /// One of a few labels for each text.
    Classify,
    /// What the model does not know yet, word by word.
    Facts,
    /// A style or a subject, out of texts that are to be continued.
    Text,
}

impl Task {
    /// The task of this name.
    ///
    /// # Errors
    /// Another name.
    pub(super) fn parse(name: &str) -> Result<Self> {
        Self::from_str(name, true).map_err(|_| {
            Error::request(format!("'{}' is no task", name.escape_debug()), format!("use {}", Self::names()))
        })
    }

    /// Its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Task::Chat => "chat",
            Task::Classify => "classify",
            Task::Facts => "facts",
            Task::Text => "text",
        }
    }

    /// All names.
    pub(super) fn names() -> String {
        Self::value_variants().iter().map(|task| task.name()).collect::<Vec<_>>().join(", ")
    }

    /// Passes over the examples: those with which docs/measurements.md and experiments/ have this kind of task learnt.
    pub(super) fn epochs(self) -> u64 {
        match self {
            Task::Chat => 4,
            Task::Facts => 6,
            Task::Classify | Task::Text => 2,
        }
    }

    /// Why it is so, for a comment.
    pub(super) fn note(self) -> &'static str {
        match self {
            Task::Chat => "A tone is learnt in about four passes.",
            Task::Classify => "Labels are learnt in two passes, the default.",
            Task::Facts => "What the model must say word by word takes more passes.",
            Task::Text => "Two passes, the default; more of them learn texts by heart.",
        }
    }

    /// How `eval` shows what was learnt: what stands beside its `data`.
    pub(super) fn evaluation(self) -> &'static str {
        match self {
            Task::Chat | Task::Text => "",
            Task::Classify => {
                "# With \"choices\" beside each prompt, eval prints the accuracy; generate counts answers.\n"
            }
            Task::Facts => "generate = true\n",
        }
    }
}
