//! The rows of a data file, told by its content: JSON lines, a JSON array, a table, or one plain text.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::columns::Columns;
use crate::Error;
use crate::compressed::uncompressed_name;
use crate::error::CallerOption;

/// The content of a data file.
#[derive(Debug)]
pub(super) struct Source<'t> {
    pub content: Content<'t>,
    /// What the file is, in words.
    pub kind: &'static str,
}

#[derive(Debug)]
pub(super) enum Content<'t> {
    /// (Line number from 1, JSON text of the row.)
    Rows(Vec<(usize, Cow<'t, str>)>),
    /// One plain text.
    Plain(&'t str),
}

/// The column names that make a file a table, a line JSON lines, or a row an example.
const COLUMNS: [&str; 12] = [
    "text",
    "prompt",
    "completion",
    "messages",
    "conversations",
    "instruction",
    "input",
    "output",
    "question",
    "answer",
    "response",
    "system",
];

/// Whether a row with these columns could be an example.
fn has_columns<'n>(mut names: impl Iterator<Item = &'n str>, columns: &Columns) -> bool {
    let usual = |name| COLUMNS.contains(&name) && name != "input" && name != "system";
    names.any(|name| columns.has(name) || columns.is_usual() && usual(name))
}

/// The rows of a data file.
///
/// Without the ending of a compression, a file that ends in `.json` or `.jsonl` is JSON, one that ends in `.csv` or `.tsv` a table. Of another, the
/// beginning decides: a JSON array, an object that could be an example, or a line of column names. What
/// remains is plain text. Where `columns` have names of their own, these are the ones looked for.
pub(super) fn read<'t>(path: &Path, bytes: &'t [u8], columns: &Columns) -> Result<Source<'t>, Error> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count() + 1;
        not_utf8(path, line)
    })?;
    let Some(first) = text.lines().find(|line| !line.trim().is_empty()) else { return Err(empty(path)) };
    let rows = |kind, rows| Ok(Source { content: Content::Rows(rows), kind });
    let ending = ending(path);
    let is_json = ["json", "jsonl"].contains(&ending.as_str());
    if let Some(separator) = separator(&ending, first, columns).filter(|_| !is_json) {
        let kind = if separator == b'\t' { "a table (TSV)" } else { "a table (CSV)" };
        return rows(kind, table(path, text, separator, columns)?);
    }
    let is_row = object(first).is_some_and(|row| has_columns(row.keys().map(String::as_str), columns));
    let is_lines = is_json_lines(path, first, columns);
    if !is_row
        && (is_json || is_lines || text.trim_start().starts_with('['))
        && let Some(whole) = whole(text, columns)
    {
        return rows("JSON", whole);
    }
    if is_json || is_lines {
        return rows("JSON lines", lines(text));
    }
    if !columns.is_usual() {
        let help = "leave out the choice of columns, or give it a first line that names them";
        return Err(Error::file(path, "is plain text, which has no columns", help));
    }
    Ok(Source { content: Content::Plain(text), kind: "plain text" })
}

fn ending(path: &Path) -> String {
    uncompressed_name(path).extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase()
}

/// The error of a line that is not UTF-8.
pub(super) fn not_utf8(path: &Path, line: usize) -> Error {
    Error::line(path, line, "is not UTF-8", "convert the file to UTF-8")
}

/// The error of an empty file.
pub(super) fn empty(path: &Path) -> Error {
    Error::file(path, "is empty", "give it at least one example")
}

/// Whether a data file whose first line with text is `first` is JSON lines: each line is a row of its own.
pub(super) fn is_json_lines(path: &Path, first: &str, columns: &Columns) -> bool {
    let ending = ending(path);
    match object(first) {
        Some(row) => {
            ["json", "jsonl"].contains(&ending.as_str())
                || has_columns(row.keys().map(String::as_str), columns)
        }
        // A fault in the first line is told as one, not trained as text.
        None => ending == "jsonl" || ending != "txt" && first.trim_start().starts_with('{'),
    }
}

/// A JSON object by its keys.
fn object(text: &str) -> Option<BTreeMap<String, &RawValue>> {
    serde_json::from_str(text.trim()).ok()
}

fn lines(text: &str) -> Vec<(usize, Cow<'_, str>)> {
    let rows = text.split('\n').zip(1..).filter(|(line, _)| !line.trim().is_empty());
    rows.map(|(line, number)| (number, line.into())).collect()
}

/// The rows of a text that is one JSON value of several lines: an array of rows; an object that has one, as
/// the key `data` in exports; or an object that is itself a row. `None` for other texts.
fn whole<'t>(text: &'t str, columns: &Columns) -> Option<Vec<(usize, Cow<'t, str>)>> {
    if let Ok(array) = serde_json::from_str(text) {
        return Some(located(text, array));
    }
    let object = object(text)?;
    if has_columns(object.keys().map(String::as_str), columns) {
        return Some(vec![(1, text.trim().into())]);
    }
    let is_row = |row: &&RawValue| row.get().starts_with('{');
    let arrays = object.values().filter_map(|value| serde_json::from_str::<Vec<&RawValue>>(value.get()).ok());
    let mut arrays = arrays.filter(|array| array.first().is_some_and(is_row));
    match (arrays.next(), arrays.next()) {
        (Some(array), None) => Some(located(text, array)),
        _ => None,
    }
}

/// The lines of these parts of a text, which are in its order.
fn located<'t>(text: &'t str, rows: Vec<&'t RawValue>) -> Vec<(usize, Cow<'t, str>)> {
    let (mut from, mut line) = (0, 1);
    let mut with_line = |row: &'t RawValue| {
        let start = row.get().as_ptr() as usize - text.as_ptr() as usize;
        line += text[from..start].matches('\n').count();
        from = start;
        (line, row.get().into())
    };
    rows.into_iter().map(&mut with_line).collect()
}

/// What separates the columns, if the file is a table: by its ending, or because the first line names columns
/// of examples.
fn separator(ending: &str, first: &str, columns: &Columns) -> Option<u8> {
    let names = |separator: char| -> Vec<String> { first.split(separator).map(column_name).collect() };
    let known = |separator: &char| {
        let names = names(*separator);
        let known = names.iter().filter(|name| COLUMNS.contains(&name.as_str())).count();
        // One known word may stand in any text; a table of texts alone needs the ending.
        let chosen = names.iter().any(|name| columns.has(name));
        chosen || columns.is_usual() && known >= 2 && has_columns(names.iter().map(String::as_str), columns)
    };
    match (ending, ['\t', ',', ';'].into_iter().find(known)) {
        (_, Some(separator)) => Some(separator as u8),
        ("tsv", None) => Some(b'\t'),
        ("csv", None) => Some(b','),
        _ => None,
    }
}

/// A column's name as JSON has it.
fn column_name(cell: &str) -> String {
    cell.trim().trim_matches('"').trim().to_ascii_lowercase()
}

/// The rows of a table whose first line names the columns. Cells are texts. Empty ones are left out, or null
/// if columns are chosen.
fn table(
    path: &Path,
    text: &str,
    separator: u8,
    columns: &Columns,
) -> Result<Vec<(usize, Cow<'static, str>)>, Error> {
    let mut reader = csv::ReaderBuilder::new().delimiter(separator).from_reader(text.as_bytes());
    let bad = |error: csv::Error| {
        let line = error.position().map_or(1, |place| place.line() as usize);
        let problem = match error.kind() {
            csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                format!("has {len} columns, but the first line has {expected_len}")
            }
            _ => format!("is no row of a table: {error}"),
        };
        Error::line(path, line, problem, "put cells with separators, quotes or line breaks in double quotes")
    };
    let names: Vec<String> = reader.headers().map_err(bad)?.iter().map(column_name).collect();
    if columns.is_usual() && !has_columns(names.iter().map(String::as_str), columns) {
        let names = crate::error::shortened(&names.join(", "), 200);
        let problem = format!("names the columns {names}, and none that is trained");
        return Err(Error::line(path, 1, problem, COLUMNS_HELP).avoidable(CallerOption::Columns));
    }
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(bad)?;
        let line = record.position().map_or(1, |place| place.line() as usize);
        let cells = names.iter().zip(&record).filter(|(_, cell)| !cell.is_empty() || !columns.is_usual());
        let value = |cell: &str| if cell.is_empty() { Value::Null } else { cell.into() };
        let row: Map<String, Value> = cells.map(|(name, cell)| (name.clone(), value(cell))).collect();
        rows.push((line, Value::Object(row).to_string().into()));
    }
    if rows.is_empty() { Err(empty(path)) } else { Ok(rows) }
}

/// How to name columns.
const COLUMNS_HELP: &str = "name them text; or prompt and completion; question and answer; or instruction, \
    input and output; or choose columns";

#[cfg(test)]
mod tests {
    use super::*;

    /// What a file is, and its rows with their lines.
    type Found = (&'static str, Vec<(usize, String)>);

    fn found(name: &str, text: &str) -> Result<Found, String> {
        let source =
            read(Path::new(name), text.as_bytes(), &Columns::Usual).map_err(|error| error.to_string())?;
        let rows = match source.content {
            Content::Rows(rows) => rows.into_iter().map(|(line, row)| (line, row.into_owned())).collect(),
            Content::Plain(_) => Vec::new(),
        };
        Ok((source.kind, rows))
    }

    fn kind(name: &str, text: &str) -> &'static str {
        found(name, text).unwrap().0
    }

    #[test]
    fn content_decides_where_the_ending_does_not() {
        let row = r#"{"prompt": "a", "completion": "b"}"#;
        for name in ["a", "a.txt", "a.dat", "a.json", "a.jsonl"] {
            assert_eq!(kind(name, &format!("\n {row}\n{row}")), "JSON lines", "{name}");
            assert_eq!(kind(name, &format!("[{row},\n{row}]")), "JSON", "{name}");
        }
        assert_eq!(kind("a.json", "{\"version\": 1,\n \"data\": [{\"text\": \"a\"}]}"), "JSON");
        assert_eq!(kind("a.json", "{\n\"text\": \"a\"\n}"), "JSON");
        for name in ["a.csv", "a.txt", "a"] {
            assert_eq!(kind(name, "prompt,completion\na,b\n"), "a table (CSV)", "{name}");
            assert_eq!(kind(name, "\"Question\";\"Answer\"\na;b\n"), "a table (CSV)", "{name}");
            assert_eq!(kind(name, "id\tquestion\tanswer\n1\ta\tb\n"), "a table (TSV)", "{name}");
        }
        assert_eq!(kind("a.csv", "text\nhello\n"), "a table (CSV)");
        for text in ["hello", "Text, and more.\n", "question\n", "[1] A note", "{a} set", "{\"key\": 1}"] {
            assert_eq!(kind("a.txt", text), "plain text", "{text}");
        }
        assert_eq!(kind("a.md", "# Prompt, completion and more\n"), "plain text");
        // What looks like a row and is damaged is not trained as text.
        assert_eq!(kind("a", "{\"text\": \"a\n"), "JSON lines");
    }

    #[test]
    fn rows_know_their_lines() {
        let (_, rows) = found("a.json", "[\n {\"text\": \"a\"},\n\n {\"text\":\n\"b\"}]").unwrap();
        assert_eq!(rows, [(2, "{\"text\": \"a\"}".to_owned()), (4, "{\"text\":\n\"b\"}".to_owned())]);
        let (_, rows) = found("a.csv", "prompt,completion,id\na,\"b\n,c\",\nd,e,5\n").unwrap();
        let right = [
            (2, r#"{"completion":"b\n,c","prompt":"a"}"#),
            (4, r#"{"completion":"e","id":"5","prompt":"d"}"#),
        ];
        assert_eq!(rows, right.map(|(line, row)| (line, row.to_owned())));
    }

    #[test]
    fn a_table_that_cannot_be_trained_says_why() {
        for (text, wanted) in [
            ("a,b\n1,2\n", "d.csv:1: names the columns a, b, and none that is trained; name them text"),
            ("prompt,completion\na,b\nc\n", "d.csv:3: has 1 columns, but the first line has 2; put cells"),
            ("prompt,completion\n", "d.csv: is empty"),
        ] {
            let line = found("d.csv", text).unwrap_err();
            assert!(line.contains(wanted), "{line}");
        }
    }
}
