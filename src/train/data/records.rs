//! What a row of a data file holds, by the names of its columns.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value};

use super::columns::Columns;
use crate::Error;
use crate::chat::{Conversation, Message};
use crate::error::CallerOption;

/// What one row holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// `{"text"}`: language modelling.
    Text(String),
    /// `{"prompt", "completion"}`, with `"choices"` or without.
    Pair { prompt: String, completion: String, choices: Option<Vec<String>> },
    /// `{"messages"}`, with `"tools"` and so on or without.
    Chat(Conversation),
    /// A question and its answer, which a chat model is asked through its template.
    Exchange { system: Option<String>, question: String, answer: String, plain: String },
}

impl Record {
    /// The conversation or the pair that an exchange is for a model with a chat template or without.
    pub(super) fn asked(self, through_template: bool) -> Self {
        match self {
            Record::Exchange { system, question, answer, .. } if through_template => {
                let system = system.map(|text| Message::new("system", text));
                let turns = [Message::new("user", question), Message::new("assistant", answer)];
                let messages = system.into_iter().chain(turns).collect();
                Record::Chat(Conversation { messages, ..Conversation::default() })
            }
            Record::Exchange { system, answer, plain, .. } => {
                let prompt = system.map_or_else(String::new, |text| text + "\n\n") + &plain;
                Record::Pair { prompt, completion: answer, choices: None }
            }
            other => other,
        }
    }
}

/// A row, and the columns that it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub record: Record,
    pub columns: &'static str,
}

const KINDS: &str = "give it one of {\"text\"}, {\"prompt\", \"completion\"}, {\"messages\": [{\"role\", \"content\"}]}, \
    {\"question\", \"answer\"} or {\"instruction\", \"output\"}, or choose columns";

/// The names that an answer goes by.
const ANSWERS: [&str; 3] = ["output", "response", "answer"];

/// How a file of this kind was understood, in words, if rows had these columns.
pub(super) fn layout(kind: &str, found: &BTreeSet<&'static str>, columns: &Columns) -> String {
    let words: Vec<&str> = found.iter().copied().collect();
    let words = words.join(" or ");
    match found.is_empty() {
        true => kind.to_owned(),
        false if columns.is_usual() => format!("{kind}, columns {words}"),
        false => format!("{kind}, columns {} as {words}", columns.names().join(", ")),
    }
}

/// Reads the JSON text of a row, with its columns by their own names.
///
/// Besides `text`, `prompt` with `completion` and `messages`, rows of known data sets: `conversations`
/// (ShareGPT), `instruction` with `output` and perhaps `input` (Alpaca; `response` and `context` in Dolly),
/// `question` with `answer`, and TRL's lists of messages as `prompt` and `completion`. Other columns are left
/// alone. So is Alpaca's `text`, which has the same once more.
pub(super) fn record(path: &Path, number: usize, line: &str, columns: &Columns) -> Result<Row, Error> {
    let line = &*columns.usual(path, number, line)?;
    let bad = |problem: String, help: &'static str| Error::line(path, number, problem, help);
    let value: Value = serde_json::from_str(line).map_err(|error| {
        // serde_json counts lines within the string, so only the column is meaningful here.
        let reason = error.to_string();
        let reason = reason.split(" at line ").next().unwrap_or(&reason).to_owned();
        bad(format!("bad JSON at column {}: {reason}", error.column()), "write one JSON object a line")
    })?;
    let Value::Object(object) = value else {
        return Err(bad("is JSON, but no object".into(), "write one JSON object a line"));
    };
    let has = |key: &str| object.get(key).is_some_and(|value| !value.is_null());
    let string = |key: &str| match object.get(key) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Null) | None => Err(bad(format!("has no \"{key}\""), KINDS)),
        Some(other) => Err(bad(format!("\"{key}\" is {}", kind(other)), "make it a string")),
    };
    let optional = |key: &str| has(key).then(|| string(key)).transpose();
    let row = |record, columns| Ok(Row { record, columns });
    let chat = |columns| {
        let conversation = Conversation::from_json(line).map_err(|error| bad(error.problem, error.help))?;
        row(Record::Chat(conversation), columns)
    };
    if has("chosen") && has("rejected") {
        let problem = "is a preference (\"chosen\" and \"rejected\"), which is not trained".to_owned();
        return Err(bad(problem, "keep what is preferred, as \"completion\" or as \"messages\""));
    }
    let listed = |key: &str| matches!(object.get(key), Some(Value::Array(_)));
    let in_lists = listed("prompt") && listed("completion");
    let answer = ANSWERS.into_iter().find(|key| has(key));
    let kinds = [
        ("messages", has("messages")),
        ("conversations", has("conversations")),
        ("prompt, completion", has("prompt") && has("completion")),
        ("instruction, output", has("instruction") && answer.is_some()),
        ("question, answer", has("question") && answer.is_some()),
    ];
    let mut found = kinds.into_iter().filter_map(|(kind, is)| is.then_some(kind));
    match (found.next(), found.next()) {
        (Some(kind), Some(other)) => {
            let problem = format!("mixes the columns {kind} with {other}");
            Err(bad(problem, "keep the columns of one kind"))
        }
        (Some("prompt, completion"), None) if has("text") => {
            Err(bad("mixes the columns prompt, completion with text".into(), "keep the columns of one kind"))
        }
        (Some(kind @ ("messages" | "conversations")), None) => chat(kind),
        (Some("prompt, completion"), None) if in_lists => chat("prompt, completion: lists of messages"),
        (Some("prompt, completion"), None) => {
            let choices = choices(&object).map_err(|problem| bad(problem, "make it a list of strings"))?;
            row(
                Record::Pair { prompt: string("prompt")?, completion: string("completion")?, choices },
                "prompt, completion",
            )
        }
        (Some(kind), None) => {
            let answer = string(answer.unwrap_or(ANSWERS[0]))?;
            let system = optional("system")?.filter(|text| !text.is_empty());
            if kind == "question, answer" {
                let question = string("question")?;
                let plain = format!("Question: {question}\nAnswer: ");
                return row(Record::Exchange { system, question, answer, plain }, "question, answer");
            }
            let instruction = string("instruction")?;
            let input = optional(if has("input") { "input" } else { "context" })?.unwrap_or_default();
            let plain = alpaca(&instruction, &input);
            let question = if input.is_empty() { instruction } else { format!("{instruction}\n\n{input}") };
            row(Record::Exchange { system, question, answer, plain }, "instruction, input, output")
        }
        (None, _) if has("text") => row(Record::Text(string("text")?), "text"),
        (None, _) => {
            for (one, other) in [
                ("prompt", "completion"),
                ("completion", "prompt"),
                ("question", "answer"),
                ("instruction", "output"),
            ] {
                if has(one) {
                    string(other)?;
                }
            }
            let names: Vec<&str> = object.keys().take(8).map(String::as_str).collect();
            let names = names.join(", ").escape_debug().to_string();
            let problem = format!("has no column that is trained, only: {names}");
            Err(bad(problem, KINDS).avoidable(CallerOption::Columns))
        }
    }
}

/// The prompt of a row of Stanford Alpaca for a model without a chat template, in the form that its models
/// were trained with (github.com/tatsu-lab/stanford_alpaca).
fn alpaca(instruction: &str, input: &str) -> String {
    let (with, more) = match input.is_empty() {
        true => ("", String::new()),
        false => (", paired with an input that provides further context", format!("### Input:\n{input}\n\n")),
    };
    format!(
        "Below is an instruction that describes a task{with}. Write a response that appropriately completes the \
         request.\n\n### Instruction:\n{instruction}\n\n{more}### Response:\n"
    )
}

fn choices(object: &Map<String, Value>) -> Result<Option<Vec<String>>, String> {
    let list = match object.get("choices") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(list)) => list,
        Some(other) => return Err(format!("\"choices\" is {}", kind(other))),
    };
    list.iter()
        .enumerate()
        .map(|(i, choice)| match choice {
            Value::String(text) => Ok(text.clone()),
            other => Err(format!("\"choices\"[{i}] is {}", kind(other))),
        })
        .collect::<Result<_, _>>()
        .map(Some)
}

/// What a JSON value is, for an error message.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(row: &str) -> Result<Record, String> {
        record(Path::new("d.jsonl"), 2, row, &Columns::Usual)
            .map(|row| row.record)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn rows_of_known_data_sets_are_understood() {
        let exchange = |system: Option<&str>, question: &str, plain: &str| Record::Exchange {
            system: system.map(str::to_owned),
            question: question.into(),
            answer: "y".into(),
            plain: plain.into(),
        };
        let alpaca = "Below is an instruction that describes a task. Write a response that appropriately \
            completes the request.\n\n### Instruction:\nx\n\n### Response:\n";
        let with_input = "Below is an instruction that describes a task, paired with an input that provides \
            further context. Write a response that appropriately completes the request.\n\n\
            ### Instruction:\nx\n\n### Input:\nz\n\n### Response:\n";
        for (row, right) in [
            (
                r#"{"instruction": "x", "input": "", "output": "y", "text": "all"}"#,
                exchange(None, "x", alpaca),
            ),
            (r#"{"instruction": "x", "input": "z", "output": "y"}"#, exchange(None, "x\n\nz", with_input)),
            (
                r#"{"instruction": "x", "context": "z", "response": "y"}"#,
                exchange(None, "x\n\nz", with_input),
            ),
            (r#"{"question": "x", "answer": "y", "id": 3}"#, exchange(None, "x", "Question: x\nAnswer: ")),
            (
                r#"{"system": "s", "question": "x", "response": "y"}"#,
                exchange(Some("s"), "x", "Question: x\nAnswer: "),
            ),
        ] {
            assert_eq!(read(row).unwrap(), right, "{row}");
        }
        let right = read(
            r#"{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}"#,
        );
        for row in [
            r#"{"conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "x"}, {"from": "gpt", "value": "y"}]}"#,
            r#"{"system": "s", "conversations": [{"from": "human", "value": "x"}, {"from": "gpt", "value": "y"}]}"#,
            r#"{"conversations": [{"role": "system", "content": "s"}, {"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}"#,
            r#"{"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "x"}], "completion": [{"role": "assistant", "content": "y"}]}"#,
            r#"{"prompt": "x", "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}"#,
        ] {
            assert_eq!(read(row), right, "{row}");
        }
        let asked = exchange(Some("s"), "x", "").asked(true);
        assert_eq!(Ok(asked), right);
        let asked = exchange(Some("s"), "x", "Q: x").asked(false);
        assert_eq!(asked, Record::Pair { prompt: "s\n\nQ: x".into(), completion: "y".into(), choices: None });
        // TRL's prompt is context, also where it has an earlier answer.
        let row = r#"{"prompt": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}], "completion": [{"role": "assistant", "content": "d"}]}"#;
        let Ok(Record::Chat(Conversation { messages, .. })) = read(row) else { panic!("a conversation") };
        assert_eq!(messages.iter().map(Message::is_learned).collect::<Vec<_>>(), [false, false, false, true]);
    }
    #[test]
    fn each_fault_names_its_line_and_what_to_do() {
        for (line, wanted) in [
            ("{\"text\": 1}", "\"text\" is a number"),
            ("{\"text\": \"a\"", "bad JSON at column"),
            ("[1]", "no object"),
            ("{}", "has no column that is trained"),
            ("{\"title\": \"a\", \"body\": \"b\"}", "only: body, title; give it one of"),
            ("{\"question\": \"a\", \"answer\": {}}", "\"answer\" is an object"),
            ("{\"question\": \"a\"}", "has no \"answer\""),
            ("{\"instruction\": \"a\"}", "has no \"output\""),
            ("{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}", "is a preference"),
            (
                "{\"question\": \"a\", \"answer\": \"b\", \"messages\": [1]}",
                "mixes the columns messages with",
            ),
            (
                "{\"conversations\": [{\"from\": \"crowd\", \"value\": \"x\"}]}",
                "\"conversations\"[0].from is \"crowd\"",
            ),
            ("{\"conversations\": [{\"value\": \"x\"}]}", "\"conversations\"[0] has no \"role\""),
            ("{\"prompt\": \"a\"}", "has no \"completion\""),
            ("{\"completion\": \"a\"}", "has no \"prompt\""),
            ("{\"text\": \"a\", \"prompt\": \"b\", \"completion\": \"c\"}", "mixes"),
            ("{\"prompt\": \"a\", \"completion\": \"b\", \"choices\": \"b\"}", "\"choices\" is a string"),
            ("{\"prompt\": \"a\", \"completion\": \"b\", \"choices\": [1]}", "\"choices\"[0] is a number"),
            ("{\"messages\": []}", "empty"),
            ("{\"messages\": {}}", "an object"),
            ("{\"messages\": [{\"role\": 1}]}", "\"messages\"[0].role is a number"),
            ("{\"messages\": [{\"role\": \"user\"}], \"tools\": {}}", "\"tools\" is not a list of objects"),
            ("{\"messages\": [{\"role\": \"user\"}], \"tools\": \"[\"}", "\"tools\" is a text, but not JSON"),
            (
                "{\"messages\": [{\"role\": \"user\"}], \"documents\": [1]}",
                "\"documents\" is not a list of objects",
            ),
            ("{\"messages\": [{\"role\": \"user\"}], \"chat_template_kwargs\": 1}", "kwargs\" is a number"),
            (
                "{\"messages\": [{\"role\": \"user\"}], \"chat_template_kwargs\": {\"a\": 1, \"tools\": []}}",
                "\"tools\", which is not a variable of the template; put it beside",
            ),
            (
                "{\"messages\": [{\"role\": \"user\"}], \"chat_template_kwargs\": {\"_generation_marks\": \"ab\"}}",
                "\"_generation_marks\", which is not a variable of the template; leave it out",
            ),
            (
                "{\"messages\": [{\"role\": \"user\"}], \"chat_template_kwargs\": {\"add_generation_prompt\": true}}",
                "\"add_generation_prompt\", which is",
            ),
            ("{\"messages\": [3]}", "\"messages\"[0] is a number"),
            ("{\"messages\": [{}]}", "\"messages\"[0] has no \"role\""),
        ] {
            let error = read(line).unwrap_err();
            assert!(error.starts_with("d.jsonl:2: ") && error.contains(wanted), "{line}: {error}");
            assert!(!error.contains('\n'));
        }
    }

    #[test]
    fn deep_nesting_is_an_error_not_a_crash() {
        assert!(read(&"[".repeat(100_000)).is_err());
        assert!(read(&format!("{{\"text\":{}", "[".repeat(100_000))).is_err());
    }
}
