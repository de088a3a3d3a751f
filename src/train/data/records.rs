//! The lines of a data file, checked: text, prompt and completion, or messages.

use std::path::Path;

use serde_json::{Map, Value};

use crate::Error;
use crate::chat::Conversation;

/// What one line holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// `{"text"}`: language modelling.
    Text(String),
    /// `{"prompt", "completion"}`, with `"choices"` or without.
    Pair { prompt: String, completion: String, choices: Option<Vec<String>> },
    /// `{"messages"}`, with `"tools"` and so on or without.
    Chat(Conversation),
}

/// The content of a data file.
pub(super) enum Content {
    /// JSON lines: (line number from 1, record).
    Records(Vec<(usize, Record)>),
    /// One plain text.
    Plain(String),
}

const KINDS: &str = "give the line one of {\"text\"}, {\"prompt\", \"completion\"} or {\"messages\": [{\"role\", \"content\"}]}";

/// Reads the bytes of a data file. A file that ends in `.txt` is plain text, one that ends in `.json` or
/// `.jsonl` is JSON lines; any other is JSON lines if its first character is `{`.
pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Content, Error> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count() + 1;
        not_utf8(path, line)
    })?;
    if text.trim().is_empty() {
        return Err(empty(path));
    }
    if !is_json_lines(path, text) {
        return Ok(Content::Plain(text.to_owned()));
    }
    let lines = text.split('\n').zip(1..).filter(|(line, _)| !line.trim().is_empty());
    lines
        .map(|(line, number)| Ok((number, record(path, number, line)?)))
        .collect::<Result<_, _>>()
        .map(Content::Records)
}

/// The error of a line that is not UTF-8.
pub(super) fn not_utf8(path: &Path, line: usize) -> Error {
    Error::line(path, line, "is not UTF-8", "convert the file to UTF-8")
}

/// The error of an empty file.
pub(super) fn empty(path: &Path) -> Error {
    Error::file(path, "is empty", "give it at least one example")
}

/// Whether a data file that starts with `text` is JSON lines.
pub(super) fn is_json_lines(path: &Path, text: &str) -> bool {
    let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    match ending.as_str() {
        "txt" => false,
        "json" | "jsonl" => true,
        _ => text.trim_start().starts_with('{'),
    }
}

/// Reads one line.
pub(super) fn record(path: &Path, number: usize, line: &str) -> Result<Record, Error> {
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
    let has = |key: &str| object.contains_key(key);
    let string = |key: &str| match object.get(key) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(bad(format!("\"{key}\" is {}", kind(other)), "make it a string")),
        None => Err(bad(format!("has no \"{key}\""), KINDS)),
    };
    let pair = has("prompt") || has("completion");
    match (has("text"), pair, has("messages")) {
        (true, false, false) => Ok(Record::Text(string("text")?)),
        (false, true, false) => Ok(Record::Pair {
            prompt: string("prompt")?,
            completion: string("completion")?,
            choices: choices(&object).map_err(|problem| bad(problem, "make it a list of strings"))?,
        }),
        (false, false, true) => {
            Conversation::from_json(line).map(Record::Chat).map_err(|error| bad(error.problem, error.help))
        }
        (false, false, false) => Err(bad("has no \"text\", \"prompt\" or \"messages\"".into(), KINDS)),
        _ => Err(bad("mixes \"text\", \"prompt\"/\"completion\" and \"messages\"".into(), KINDS)),
    }
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

    fn records(text: &str) -> Result<Vec<(usize, Record)>, String> {
        match parse(Path::new("d.jsonl"), text.as_bytes()) {
            Ok(Content::Records(records)) => Ok(records),
            Ok(Content::Plain(_)) => panic!("plain"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn a_byte_order_mark_crlf_and_blank_lines_are_borne() {
        let got = records("\u{feff}{\"text\":\"a\"}\r\n\r\n  \n{\"text\":\"b\", \"id\": 7}").unwrap();
        assert_eq!(got, [(1, Record::Text("a".into())), (4, Record::Text("b".into()))]);
    }

    #[test]
    fn each_fault_names_its_line_and_what_to_do() {
        for (line, wanted) in [
            ("{\"text\": 1}", "\"text\" is a number"),
            ("{\"text\": \"a\"", "bad JSON at column"),
            ("[1]", "no object"),
            ("{}", "has no \"text\""),
            ("{\"prompt\": \"a\"}", "has no \"completion\""),
            ("{\"completion\": \"a\"}", "has no \"prompt\""),
            ("{\"text\": \"a\", \"prompt\": \"b\"}", "mixes"),
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
            let error = records(&format!("{{\"text\":\"ok\"}}\n{line}\n")).unwrap_err();
            assert!(error.starts_with("d.jsonl:2: ") && error.contains(wanted), "{line}: {error}");
            assert!(!error.contains('\n'));
        }
    }

    #[test]
    fn deep_nesting_is_an_error_not_a_crash() {
        assert!(records(&"[".repeat(100_000)).is_err());
        assert!(records(&format!("{{\"text\":{}", "[".repeat(100_000))).is_err());
    }

    #[test]
    fn files_that_cannot_be_read_as_text_say_where() {
        let error = parse(Path::new("x"), b"{\"text\":\"a\"}\n\xff").err().unwrap().to_string();
        assert!(error.starts_with("x:2: is not UTF-8"), "{error}");
        assert!(parse(Path::new("x"), b" \n").err().unwrap().to_string().contains("empty"));
    }

    #[test]
    fn plain_text_is_told_by_ending_or_content() {
        let plain =
            |path: &str, text: &str| matches!(parse(Path::new(path), text.as_bytes()), Ok(Content::Plain(_)));
        assert!(plain("a.txt", "{\"text\":\"a\"}"));
        assert!(plain("a.md", "hello"));
        assert!(!plain("a", " {\"text\":\"a\"}"));
        assert!(!plain("a.jsonl", "hello"));
    }
}
