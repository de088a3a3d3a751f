//! Columns with names of their own: which of them are the parts of an example.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::Error;
use crate::error::shortened;

/// Columns that mean the same under every choice, and stay beside the chosen ones.
const COMPANIONS: [&str; 4] = ["system", "tools", "documents", "chat_template_kwargs"];
/// How much of a column's names an error shows, in characters.
const SHOWN: usize = 200;
/// Names at least so alike are offered in place of a missing one.
const ALIKE: f64 = 0.7;

/// Which columns of a row are the parts of an example. A column is found by its exact name, or by one that
/// differs in upper and lower case alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Columns {
    /// Those that have the names that a row is known by, such as `prompt` and `completion`.
    #[default]
    Usual,
    /// This column is a text.
    Text(String),
    /// This column is a list of messages, OpenAI's or ShareGPT's.
    Messages(String),
    /// A prompt and its completion.
    Pair {
        /// The prompt.
        prompt: Part,
        /// The completion.
        completion: Part,
        /// The column that lists the possible completions. With `labels`, their words are listed.
        choices: Option<String>,
        /// Words in place of the values of the completion's columns.
        labels: Option<Labels>,
    },
    /// A question and its answer, which a chat model is asked through its template.
    Exchange {
        /// The column of the question.
        question: String,
        /// The column of the answer.
        answer: String,
    },
}

/// A text of a row's columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// The column of this name. A list of messages stays one.
    Column(String),
    /// A text with columns in it.
    Template(Template),
}

/// A text with columns in braces, such as `Review: {sentence}\nLabel:`. `\n` is a line break, `\t` a tab,
/// `\\` a backslash; `{{` and `}}` are braces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Column(String),
}

/// Words in place of the values of a column of labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels(Vec<(String, String)>);

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// A brace without its partner, braces around nothing, no column at all.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (mut pieces, mut plain) = (Vec::new(), String::new());
        let mut rest = text.chars().peekable();
        while let Some(letter) = rest.next() {
            match (letter, rest.peek()) {
                ('\\', Some('n')) => plain.push('\n'),
                ('\\', Some('t')) => plain.push('\t'),
                ('\\', Some('\\')) => plain.push('\\'),
                ('{', Some('{')) => plain.push('{'),
                ('}', Some('}')) => plain.push('}'),
                ('}', _) => return Err("a } has no {: write }} for a brace".into()),
                ('{', _) => {
                    let mut name = String::new();
                    loop {
                        match rest.next() {
                            Some('}') => break,
                            Some(letter) => name.push(letter),
                            None => return Err("a { has no }: write {{ for a brace".into()),
                        }
                    }
                    if name.trim().is_empty() {
                        return Err("{} names no column: write {{}} for braces".into());
                    }
                    pieces.push(Piece::Text(std::mem::take(&mut plain)));
                    pieces.push(Piece::Column(name.trim().to_owned()));
                    continue;
                }
                _ => {
                    plain.push(letter);
                    continue;
                }
            }
            rest.next();
        }
        if pieces.is_empty() {
            return Err("it has no column: name one in braces, such as {sentence}".into());
        }
        pieces.push(Piece::Text(plain));
        pieces.retain(|piece| !matches!(piece, Piece::Text(text) if text.is_empty()));
        Ok(Self(pieces))
    }
}

/// As [`Template::parse`] reads it.
impl std::fmt::Display for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for piece in &self.0 {
            match piece {
                Piece::Column(name) => write!(f, "{{{name}}}")?,
                Piece::Text(text) => {
                    for letter in text.chars() {
                        match letter {
                            '\n' => f.write_str("\\n")?,
                            '\t' => f.write_str("\\t")?,
                            '\\' => f.write_str("\\\\")?,
                            '{' => f.write_str("{{")?,
                            '}' => f.write_str("}}")?,
                            letter => write!(f, "{letter}")?,
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// As [`Labels::parse`] reads them.
impl std::fmt::Display for Labels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pairs: Vec<String> = self.0.iter().map(|(value, word)| format!("{value}={word}")).collect();
        f.write_str(&pairs.join(","))
    }
}

impl Part {
    fn names(&self) -> Vec<&str> {
        match self {
            Part::Column(name) => vec![name],
            Part::Template(Template(pieces)) => {
                let named = pieces.iter().filter_map(|piece| match piece {
                    Piece::Column(name) => Some(name.as_str()),
                    Piece::Text(_) => None,
                });
                named.collect()
            }
        }
    }
}

impl Labels {
    /// Reads `0=negative,1=positive`, or the words of 0, 1 and so on: `negative,positive`.
    ///
    /// # Errors
    /// A value or word that is empty or named twice; values beside words without one.
    pub fn parse(text: &str) -> Result<Self, String> {
        let items: Vec<&str> = text.split(',').collect();
        let with_values = items.iter().filter(|item| item.contains('=')).count();
        if with_values != 0 && with_values != items.len() {
            return Err("give every word its value, such as 0=negative,1=positive, or none".into());
        }
        let mut labels: Vec<(String, String)> = Vec::new();
        for (number, item) in items.into_iter().enumerate() {
            let (value, word) = match item.split_once('=') {
                Some((value, word)) => (value.trim().to_owned(), word.trim().to_owned()),
                None => (number.to_string(), item.trim().to_owned()),
            };
            if value.is_empty() || word.is_empty() {
                return Err(format!("{item:?} lacks a value or a word"));
            }
            if labels.iter().any(|(other, _)| *other == value) {
                return Err(format!("{value} is named twice"));
            }
            labels.push((value, word));
        }
        Ok(Self(labels))
    }

    /// The word of a value: of the same text, or of the same number.
    fn word(&self, value: &str) -> Option<&str> {
        let (text, number) = (value.trim(), value.trim().parse::<f64>().ok());
        let same = |of: &str| of == text || number.is_some() && of.parse().ok() == number;
        let exact = self.0.iter().find(|(of, _)| of == text);
        exact.or_else(|| self.0.iter().find(|(of, _)| same(of))).map(|(_, word)| word.as_str())
    }

    /// Every word once, in order.
    fn words(&self) -> Vec<&str> {
        let mut words: Vec<&str> = Vec::new();
        for (_, word) in &self.0 {
            if !words.contains(&word.as_str()) {
                words.push(word);
            }
        }
        words
    }
}

impl Columns {
    /// Whether rows are read by their usual names.
    pub fn is_usual(&self) -> bool {
        *self == Columns::Usual
    }

    /// The columns that are chosen.
    pub(super) fn names(&self) -> Vec<&str> {
        match self {
            Columns::Usual => Vec::new(),
            Columns::Text(name) | Columns::Messages(name) => vec![name],
            Columns::Exchange { question, answer } => vec![question, answer],
            Columns::Pair { prompt, completion, choices, .. } => {
                let mut names = prompt.names();
                names.extend(completion.names());
                names.extend(choices.as_deref());
                names
            }
        }
    }

    /// Whether a column of this name is chosen.
    pub(super) fn has(&self, name: &str) -> bool {
        self.names().iter().any(|own| own.eq_ignore_ascii_case(name))
    }

    /// A row with its columns under their usual names, as JSON text.
    ///
    /// # Errors
    /// Text that is not a JSON object; a chosen column that the row lacks, or that holds nothing; an object
    /// or a list in place of a text; a label without a word.
    pub(super) fn usual<'r>(&self, path: &Path, line: usize, row: &'r str) -> Result<Cow<'r, str>, Error> {
        if self.is_usual() {
            return Ok(Cow::Borrowed(row));
        }
        let Ok(cells) = serde_json::from_str::<BTreeMap<String, &RawValue>>(row.trim()) else {
            // What is wrong with it is told where it is read.
            return Ok(Cow::Borrowed(row));
        };
        let row = Row { path, line, cells };
        let mut found: Map<String, Value> = Map::new();
        let mut listed = None;
        match self {
            Columns::Usual => {}
            Columns::Text(name) => {
                found.insert("text".into(), row.text(name)?.into());
            }
            Columns::Exchange { question, answer } => {
                found.insert("question".into(), row.text(question)?.into());
                found.insert("answer".into(), row.text(answer)?.into());
            }
            Columns::Messages(name) => {
                let list = row.filled(name)?;
                let is_share_gpt = serde_json::from_str::<Vec<BTreeMap<String, &RawValue>>>(list)
                    .is_ok_and(|turns| turns.first().is_some_and(|turn| turn.contains_key("from")));
                listed = Some((if is_share_gpt { "conversations" } else { "messages" }, list));
            }
            Columns::Pair { prompt, completion, choices, labels } => {
                found.insert("prompt".into(), row.part(prompt, None)?);
                found.insert("completion".into(), row.part(completion, labels.as_ref())?);
                match (choices, labels) {
                    (_, Some(labels)) if completion.names().len() == 1 => {
                        let word = |word: &&str| row.with(completion, |_| Ok((*word).to_owned()));
                        let words: Vec<_> = labels.words().iter().map(word).collect::<Result<_, _>>()?;
                        found.insert("choices".into(), json!(words));
                    }
                    (Some(name), _) => listed = Some(("choices", row.filled(name)?)),
                    // It may be of another use: of texts, and the completion among them, it is what it seems.
                    (None, _) => {
                        let list = row.cells.get("choices").map(|list| list.get());
                        let has_it = |list: &&str| {
                            let texts = serde_json::from_str::<Vec<Value>>(list).unwrap_or_default();
                            found.get("completion").is_some_and(|completion| texts.contains(completion))
                        };
                        listed = list.filter(has_it).map(|list| ("choices", list));
                    }
                }
            }
        }
        let own = found.into_iter().map(|(name, value)| (name, value.to_string()));
        let companions = COMPANIONS.into_iter().filter_map(|name| Some((name, row.cells.get(name)?.get())));
        let raw = listed.into_iter().chain(companions);
        let parts = own.chain(raw.map(|(name, text)| (name.to_owned(), text.to_owned())));
        let parts: Vec<String> = parts.map(|(name, value)| format!("\"{name}\":{value}")).collect();
        Ok(format!("{{{}}}", parts.join(",")).into())
    }
}

/// A row and its place.
struct Row<'r> {
    path: &'r Path,
    line: usize,
    cells: BTreeMap<String, &'r RawValue>,
}

impl<'r> Row<'r> {
    fn bad(&self, problem: String, help: impl Into<String>) -> Error {
        Error::line(self.path, self.line, problem, help)
    }

    /// What a column holds, as JSON.
    fn cell(&self, name: &str) -> Result<&'r str, Error> {
        let exact = self.cells.get(name);
        let found = exact.or_else(|| {
            let mut alike = self.cells.iter().filter(|(own, _)| own.eq_ignore_ascii_case(name));
            alike.next().filter(|_| alike.next().is_none()).map(|(_, cell)| cell)
        });
        found.map(|cell| cell.get()).ok_or_else(|| {
            let names: Vec<&str> = self.cells.keys().map(String::as_str).collect();
            let likeness = |own: &&&str| strsim::jaro_winkler(&own.to_lowercase(), &name.to_lowercase());
            let near = names.iter().filter(|own| likeness(own) >= ALIKE);
            let near = near.max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
            let help = near.map_or("name one of them".into(), |near| {
                format!("did you mean {}?", shortened(near, SHOWN))
            });
            let (name, names) = (shortened(name, SHOWN), shortened(&names.join(", "), SHOWN));
            self.bad(format!("has no column {name}, only: {names}"), help)
        })
    }

    /// The same of a column that is not null.
    fn filled(&self, name: &str) -> Result<&'r str, Error> {
        let cell = self.cell(name)?;
        if cell == "null" {
            let problem = format!("has nothing in column {}", shortened(name, SHOWN));
            return Err(self.bad(problem, "fill it in, or leave the row out"));
        }
        Ok(cell)
    }

    /// The text of a column: a string, a number, true or false.
    fn text(&self, name: &str) -> Result<String, Error> {
        self.plain(name, self.filled(name)?)
    }

    fn plain(&self, name: &str, cell: &str) -> Result<String, Error> {
        let is = match cell.as_bytes().first() {
            Some(b'"') => {
                let problem = |error: serde_json::Error| self.bad(error.to_string(), "mend its JSON");
                return serde_json::from_str(cell).map_err(problem);
            }
            Some(b'[') => "a list",
            Some(b'{') => "an object",
            _ => return Ok(cell.to_owned()),
        };
        let problem = format!("column {} is {is}", shortened(name, SHOWN));
        Err(self.bad(problem, "choose a column of texts or numbers"))
    }

    /// A part as JSON.
    fn part(&self, part: &Part, labels: Option<&Labels>) -> Result<Value, Error> {
        if let (Part::Column(name), None) = (part, labels)
            && let cell = self.filled(name)?
            && cell.starts_with('[')
        {
            return serde_json::from_str(cell).map_err(|e| self.bad(e.to_string(), "mend its JSON"));
        }
        let value = |name: &str| match (labels, part) {
            (Some(labels), _) => self.label(name, labels),
            // In a template, nothing is an empty text.
            (None, Part::Template(_)) => match self.cell(name)? {
                "null" => Ok(String::new()),
                cell => self.plain(name, cell),
            },
            (None, Part::Column(_)) => self.text(name),
        };
        self.with(part, value).map(Value::String)
    }

    /// A part with these texts of its columns.
    fn with(&self, part: &Part, value: impl Fn(&str) -> Result<String, Error>) -> Result<String, Error> {
        match part {
            Part::Column(name) => value(name),
            Part::Template(Template(pieces)) => {
                let texts = pieces.iter().map(|piece| match piece {
                    Piece::Text(text) => Ok(text.clone()),
                    Piece::Column(name) => value(name),
                });
                texts.collect()
            }
        }
    }

    fn label(&self, name: &str, labels: &Labels) -> Result<String, Error> {
        let value = self.text(name)?;
        labels.word(&value).map(str::to_owned).ok_or_else(|| {
            let known: Vec<&str> = labels.0.iter().map(|(value, _)| value.as_str()).collect();
            let (value, known) = (shortened(&value, 40), shortened(&known.join(", "), SHOWN));
            let problem = format!(
                "has the label {value} in column {}, and words only for {known}",
                shortened(name, SHOWN)
            );
            self.bad(problem, "give it a word, too")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str) -> Part {
        Part::Column(name.into())
    }

    fn template(text: &str) -> Part {
        Part::Template(Template::parse(text).unwrap())
    }

    fn pair(prompt: Part, completion: Part, labels: Option<&str>) -> Columns {
        let labels = labels.map(|labels| Labels::parse(labels).unwrap());
        Columns::Pair { prompt, completion, choices: None, labels }
    }

    fn usual(columns: &Columns, row: &str) -> Result<Value, String> {
        let text = columns.usual(Path::new("d.csv"), 3, row).map_err(|error| error.to_string())?;
        Ok(serde_json::from_str(&text).unwrap())
    }

    #[test]
    fn chosen_columns_get_their_usual_names_and_others_go() {
        let row = r#"{"Review": "a\nb", "stars": 1, "text": "other", "system": "s"}"#;
        let found = usual(&Columns::Text("review".into()), row).unwrap();
        assert_eq!(found, json!({ "text": "a\nb", "system": "s" }));
        let labels = Some("0=bad,1.0=good");
        let found = usual(&pair(column("Review"), column("stars"), labels), row).unwrap();
        assert_eq!(
            found,
            json!({ "prompt": "a\nb", "completion": "good", "choices": ["bad", "good"], "system": "s" })
        );
        let parts = pair(template(r"{Review}\n{{stars}}: {none}"), template(" {stars}"), Some("bad,good"));
        let row = r#"{"Review": "a", "stars": "0", "none": null}"#;
        let right = json!({ "prompt": "a\n{stars}: ", "completion": " bad", "choices": [" bad", " good"] });
        assert_eq!(usual(&parts, row).unwrap(), right);
        let columns = Columns::Exchange { question: "q".into(), answer: "a".into() };
        let right = json!({ "question": "x", "answer": "true" });
        assert_eq!(usual(&columns, r#"{"q": "x", "a": true, "text": 1}"#).unwrap(), right);
    }

    #[test]
    fn lists_of_messages_stay_as_they_are() {
        let turns = r#"[{"role":"user","content":"b","a":1}]"#;
        let columns = Columns::Messages("chat".into());
        let row = format!(r#"{{"tools": [{{"z":1,"a":2}}], "chat": {turns}}}"#);
        let text = columns.usual(Path::new("d"), 1, &row).unwrap().into_owned();
        assert_eq!(text, format!(r#"{{"messages":{turns},"tools":[{{"z":1,"a":2}}]}}"#));
        let row = r#"{"chat": [{"from": "human", "value": "a"}]}"#;
        assert!(usual(&columns, row).unwrap()["conversations"].is_array());
        let columns = pair(column("in"), column("out"), None);
        let row = format!(r#"{{"in": {turns}, "out": {turns}}}"#);
        assert!(usual(&columns, &row).unwrap()["prompt"].is_array());
    }

    #[test]
    fn what_a_row_lacks_is_told_with_what_it_has() {
        let labels = Some("0=bad,1=good");
        let columns = pair(column("sentence"), column("label"), labels);
        for (row, wanted) in [
            (
                r#"{"sentense": "a", "label": 0}"#,
                "d.csv:3: has no column sentence, only: label, sentense; did you mean sentense?",
            ),
            (r#"{"body": "a", "label": 0}"#, "only: body, label; name one of them"),
            (r#"{"sentence": "a", "label": null}"#, "has nothing in column label; fill it in"),
            (r#"{"sentence": {}, "label": 0}"#, "column sentence is an object; choose"),
            (r#"{"sentence": "a", "label": []}"#, "column label is a list; choose"),
            (r#"{"sentence": "a", "label": 2}"#, "has the label 2 in column label, and words only for 0, 1;"),
        ] {
            let error = usual(&columns, row).unwrap_err();
            assert!(error.contains(wanted) && !error.contains('\n'), "{row}: {error}");
        }
    }

    #[test]
    fn templates_and_labels_that_mean_nothing_are_refused() {
        for (text, wanted) in [("a", "no column"), ("{a", "no }"), ("a}", "no {"), ("{ }", "names no column")]
        {
            assert!(Template::parse(text).unwrap_err().contains(wanted), "{text}");
        }
        for text in ["{{}} {a}", r"a\\n\n\t{b}{c} é"] {
            let template = Template::parse(text).unwrap();
            assert_eq!(template.to_string(), text);
        }
        for (text, wanted) in [
            ("0=a,b", "every word"),
            ("0=", "lacks"),
            ("a,,b", "lacks"),
            ("0=a,0=b", "0 is named twice"),
            ("", "lacks"),
        ] {
            assert!(Labels::parse(text).unwrap_err().contains(wanted), "{text}");
        }
        assert_eq!(Labels::parse("a,b").unwrap(), Labels::parse("0=a, 1= b").unwrap());
        assert_eq!(Labels::parse("a,b").unwrap().to_string(), "0=a,1=b");
    }
}
