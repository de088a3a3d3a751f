//! The rows of a data file, told by its content: JSON lines, a JSON array, a table, or one plain text.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{BufRead, Read};
use std::ops::ControlFlow;
use std::path::Path;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::columns::Columns;
use crate::Error;
use crate::compressed::uncompressed_name;
use crate::error::CallerOption;

/// Rows and bytes of a part. All processors have work for a while, and little memory is held.
const PART_ROWS: usize = 4096;
const PART_BYTES: usize = 4 << 20;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A part of a data file, or all of it.
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

/// What is done with each part of a file. It may break off.
pub(super) type Work<'w> = dyn FnMut(Content<'_>) -> Result<ControlFlow<()>, Error> + 'w;

/// The rows of a data file, part after part: JSON lines and tables of any size, other files as a whole. Returns
/// what the file is, in words.
///
/// Without the ending of a compression, a file that ends in `.json` or `.jsonl` is JSON, one that ends in `.csv` or `.tsv` a table. Of another, the
/// beginning decides: a JSON array, an object that could be an example, or a line of column names. What
/// remains is plain text. Where `columns` have names of their own, these are the ones looked for.
pub(super) fn parts(
    path: &Path,
    text: &mut dyn BufRead,
    columns: &Columns,
    work: &mut Work<'_>,
) -> Result<&'static str, Error> {
    let failed = |e| Error::io(path, "read the examples", e);
    // The file up to its first line that says something.
    let (mut start, mut blank) = (Vec::new(), 0);
    let first = loop {
        let from = start.len();
        if text.read_until(b'\n', &mut start).map_err(failed)? == 0 {
            return Err(empty(path));
        }
        if from == 0 && start.starts_with(BYTE_ORDER_MARK) {
            start.drain(..BYTE_ORDER_MARK.len());
        }
        let line = str::from_utf8(&start[from..]).map_err(|_| not_utf8(path, blank + 1))?;
        if !line.trim().is_empty() {
            break line;
        }
        blank += 1;
    };
    let ending = ending(path);
    let is_json = ["json", "jsonl"].contains(&ending.as_str());
    if let Some(separator) = separator(&ending, first, columns).filter(|_| !is_json) {
        table(path, &mut start.as_slice().chain(text), separator, columns, work)?;
        return Ok(if separator == b'\t' { "a table (TSV)" } else { "a table (CSV)" });
    }
    if object(first).is_some_and(|row| has_columns(row.keys().map(String::as_str), columns)) {
        let mut parts = Parts::new(work);
        let mut line = start.split_off(start.len() - first.len());
        for number in blank + 1.. {
            let row = str::from_utf8(&line).map_err(|_| not_utf8(path, number))?;
            let row = row.strip_suffix('\n').unwrap_or(row);
            if !row.trim().is_empty() && parts.push(number, row)?.is_break() {
                break;
            }
            line.clear();
            if text.read_until(b'\n', &mut line).map_err(failed)? == 0 {
                parts.end()?;
                break;
            }
        }
        return Ok("JSON lines");
    }
    let is_lines = is_json_lines(path, first, columns);
    text.read_to_end(&mut start).map_err(failed)?;
    let text = str::from_utf8(&start).map_err(|error| {
        let line = start[..error.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count() + 1;
        not_utf8(path, line)
    })?;
    if (is_json || is_lines || text.trim_start().starts_with('['))
        && let Some(whole) = whole(text, columns)
    {
        work(Content::Rows(whole)).map(|_| ())?;
        return Ok("JSON");
    }
    if is_json || is_lines {
        work(Content::Rows(lines(text))).map(|_| ())?;
        return Ok("JSON lines");
    }
    if !columns.is_usual() {
        let help = "leave out the choice of columns, or give it a first line that names them";
        return Err(Error::file(path, "is plain text, which has no columns", help));
    }
    work(Content::Plain(text)).map(|_| ())?;
    Ok("plain text")
}

/// Rows that wait to be a part.
pub(super) struct Parts<'w, 'd> {
    rows: Vec<(usize, Cow<'static, str>)>,
    bytes: usize,
    /// Rows of the next part: one at first, for whoever wants only that.
    most: usize,
    work: &'w mut Work<'d>,
}

impl<'w, 'd> Parts<'w, 'd> {
    pub fn new(work: &'w mut Work<'d>) -> Self {
        Self { rows: Vec::new(), bytes: 0, most: 1, work }
    }

    pub fn push(&mut self, line: usize, row: impl Into<String>) -> Result<ControlFlow<()>, Error> {
        let row = row.into();
        self.bytes += row.len();
        self.rows.push((line, row.into()));
        if self.rows.len() < self.most && self.bytes < PART_BYTES {
            return Ok(ControlFlow::Continue(()));
        }
        self.most = (2 * self.most).min(PART_ROWS);
        self.flush()
    }

    pub fn end(mut self) -> Result<(), Error> {
        self.flush().map(|_| ())
    }

    fn flush(&mut self) -> Result<ControlFlow<()>, Error> {
        self.bytes = 0;
        (self.work)(Content::Rows(std::mem::take(&mut self.rows)))
    }
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
    text: &mut dyn Read,
    separator: u8,
    columns: &Columns,
    work: &mut Work<'_>,
) -> Result<(), Error> {
    let mut reader = csv::ReaderBuilder::new().delimiter(separator).from_reader(text);
    let bad = |error: csv::Error| {
        let line = error.position().map_or(1, |place| place.line() as usize);
        let problem = match error.kind() {
            csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                format!("has {len} columns, but the first line has {expected_len}")
            }
            csv::ErrorKind::Utf8 { .. } => return not_utf8(path, line),
            csv::ErrorKind::Io(_) => match error.into_kind() {
                csv::ErrorKind::Io(error) => return Error::io(path, "read the examples", error),
                _ => return empty(path),
            },
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
    let (mut parts, mut any) = (Parts::new(work), false);
    for record in reader.records() {
        let record = record.map_err(bad)?;
        any = true;
        let line = record.position().map_or(1, |place| place.line() as usize);
        let cells = names.iter().zip(&record).filter(|(_, cell)| !cell.is_empty() || !columns.is_usual());
        let value = |cell: &str| if cell.is_empty() { Value::Null } else { cell.into() };
        let row: Map<String, Value> = cells.map(|(name, cell)| (name.clone(), value(cell))).collect();
        if parts.push(line, Value::Object(row).to_string())?.is_break() {
            return Ok(());
        }
    }
    if any { parts.end() } else { Err(empty(path)) }
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
        let mut rows = Vec::new();
        let mut work = |part: Content<'_>| {
            if let Content::Rows(part) = part {
                rows.extend(part.into_iter().map(|(line, row)| (line, row.into_owned())));
            }
            Ok(ControlFlow::Continue(()))
        };
        let kind = parts(Path::new(name), &mut text.as_bytes(), &Columns::Usual, &mut work);
        let kind = kind.map_err(|error| error.to_string())?;
        Ok((kind, rows))
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
