//! Options that say which columns of a file of examples are trained.

use clap::Args;

use crate::train::data::{Columns, Labels, Part, Template};
use crate::{Error, Result};

/// Which columns of a row are the parts of an example. Upper and lower case do not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct ColumnArgs {
    /// Train on the texts of this column [default: text].
    #[arg(long, value_name = "NAME", alias = "text-feature", conflicts_with_all = ["messages_column", "question_column", "answer_column", "prompt_column", "prompt_template", "completion_column", "completion_template", "choices_column", "label_names"])]
    pub text_column: Option<String>,
    /// The column of prompts [default: prompt].
    #[arg(long, value_name = "NAME", alias = "prompt-feature", conflicts_with = "prompt_template")]
    pub prompt_column: Option<String>,
    /// Prompts of several columns, each in braces: 'Review: {sentence}\nLabel:'. \n is a line break, {{ and }} are
    /// braces.
    #[arg(long, value_name = "TEXT", value_parser = Template::parse)]
    pub prompt_template: Option<Template>,
    /// The column of completions, or of labels [default: completion].
    #[arg(
        long,
        value_name = "NAME",
        visible_alias = "label-column",
        alias = "completion-feature",
        conflicts_with = "completion_template"
    )]
    pub completion_column: Option<String>,
    /// Completions as a text with columns in braces: ' {label}'.
    #[arg(long, value_name = "TEXT", value_parser = Template::parse)]
    pub completion_template: Option<Template>,
    /// Words in place of the completion's values: 0=negative,1=positive; or the words of 0, 1 and so on, in order. eval
    /// chooses among them.
    #[arg(long, value_name = "VALUE=WORD,...", value_parser = Labels::parse)]
    pub label_names: Option<Labels>,
    /// The column that lists the possible completions, for eval [default: choices].
    #[arg(long, value_name = "NAME", conflicts_with = "label_names")]
    pub choices_column: Option<String>,
    /// The column of conversations: lists of messages [default: messages or conversations].
    #[arg(long, value_name = "NAME", alias = "chat-feature", conflicts_with_all = ["question_column", "answer_column", "prompt_column", "prompt_template", "completion_column", "completion_template", "choices_column", "label_names"])]
    pub messages_column: Option<String>,
    /// The column of questions, which a chat model is asked through its template [default: question].
    #[arg(long, value_name = "NAME", conflicts_with_all = ["prompt_column", "prompt_template", "completion_column", "completion_template", "choices_column", "label_names"])]
    pub question_column: Option<String>,
    /// The column of their answers [default: answer].
    #[arg(long, value_name = "NAME", conflicts_with_all = ["prompt_column", "prompt_template", "completion_column", "completion_template", "choices_column", "label_names"])]
    pub answer_column: Option<String>,
}

impl ColumnArgs {
    /// The same for the library.
    pub fn columns(&self) -> Columns {
        if *self == Self::default() {
            return Columns::Usual;
        }
        if let Some(name) = &self.text_column {
            return Columns::Text(name.clone());
        }
        if let Some(name) = &self.messages_column {
            return Columns::Messages(name.clone());
        }
        let named = |name: &Option<String>, usual: &str| name.clone().unwrap_or_else(|| usual.to_owned());
        if self.question_column.is_some() || self.answer_column.is_some() {
            let question = named(&self.question_column, "question");
            return Columns::Exchange { question, answer: named(&self.answer_column, "answer") };
        }
        let part = |template: &Option<Template>, name: &Option<String>, usual: &str| match template {
            Some(template) => Part::Template(template.clone()),
            None => Part::Column(named(name, usual)),
        };
        Columns::Pair {
            prompt: part(&self.prompt_template, &self.prompt_column, "prompt"),
            completion: part(&self.completion_template, &self.completion_column, "completion"),
            choices: self.choices_column.clone(),
            labels: self.label_names.clone(),
        }
    }

    /// The options that are given, and their values.
    pub(super) fn given(&self) -> Vec<(&'static str, String)> {
        let template = |template: &Option<Template>| template.as_ref().map(Template::to_string);
        let all = [
            ("text-column", self.text_column.clone()),
            ("prompt-column", self.prompt_column.clone()),
            ("prompt-template", template(&self.prompt_template)),
            ("completion-column", self.completion_column.clone()),
            ("completion-template", template(&self.completion_template)),
            ("label-names", self.label_names.as_ref().map(Labels::to_string)),
            ("choices-column", self.choices_column.clone()),
            ("messages-column", self.messages_column.clone()),
            ("question-column", self.question_column.clone()),
            ("answer-column", self.answer_column.clone()),
        ];
        all.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }

    /// Refuses the options where nothing uses them; `option` is what would.
    pub fn must_be_unused(&self, option: &str) -> Result<()> {
        if *self == Self::default() {
            return Ok(());
        }
        let help = format!("leave them out, or add {option}");
        Err(Error::request("options of columns have no effect here", help))
    }
}
