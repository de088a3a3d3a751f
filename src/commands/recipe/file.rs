//! The TOML file of `--config`, with the line of each key.

use std::path::{Path, PathBuf};

use clap::Command;
use curmerge_formats::input;
use toml::de::{DeTable, DeValue};

use super::error::{self, Place};
use super::key::{self, Key};
use super::setting::Setting;
use super::{path, refused, setting};
use crate::Error;

/// A recipe is longer than this only by mistake.
const MAX_BYTES: u64 = 1 << 20;

/// What a file sets.
#[derive(Clone, Debug, Default)]
pub(super) struct File {
    pub(super) path: PathBuf,
    /// The keys above the tables, which hold for each command that has them.
    common: Vec<Entry>,
    /// The tables, one a command.
    tables: Vec<Table>,
}

/// The keys of a command.
#[derive(Clone, Debug)]
struct Table {
    command: String,
    line: usize,
    entries: Vec<Entry>,
}

/// A key with its value.
#[derive(Clone, Debug)]
struct Entry {
    key: String,
    line: usize,
    value: Value,
}

/// A value of TOML, with numbers as they are written.
#[derive(Clone, Debug)]
enum Value {
    Flag(bool),
    Text(String),
    List(Vec<String>),
    /// What no option takes: a table, a date, or a list of other things than texts and numbers.
    Other(&'static str),
}

impl File {
    /// Reads a file and checks all of it: its keys, and the values of each command that it names.
    ///
    /// # Errors
    /// Wrong usage with file, line and key.
    pub(super) fn read(path: &Path, root: &Command) -> Result<Self, clap::Error> {
        let file = Self::parse(path)?;
        for Table { command: name, line, entries } in &file.tables {
            let place = Place { file: path, line: *line, key: name };
            let command = root.find_subcommand(name).ok_or_else(|| error::no_command(&place, root))?;
            for entry in entries {
                let known = key::find(command, &entry.key);
                known.ok_or_else(|| error::unknown_key(&file.place(entry), root, Some(command)))?;
            }
            file.check_values(command)?;
        }
        for entry in &file.common {
            if !root.get_subcommands().any(|command| key::find(command, &entry.key).is_some()) {
                return Err(error::unknown_key(&file.place(entry), root, None));
            }
        }
        Ok(file)
    }

    /// Reads a file.
    fn parse(path: &Path) -> Result<Self, clap::Error> {
        let failed = |e| error::unreadable(&Error::io(path, "read the configuration", e));
        let bytes = input::read(path, MAX_BYTES).map_err(failed)?;
        let text = String::from_utf8(bytes).map_err(|e| {
            let line =
                1 + e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|&&b| b == b'\n').count();
            error::at(&Place { file: path, line, key: "" }, "it is not UTF-8")
        })?;
        let line =
            |at: usize| 1 + text.as_bytes()[..at.min(text.len())].iter().filter(|&&b| b == b'\n').count();
        let document = DeTable::parse(&text).map_err(|e| {
            let line = line(e.span().map_or(0, |span| span.start));
            error::at(&Place { file: path, line, key: "" }, e.message())
        })?;
        let mut file = Self { path: path.to_owned(), ..Self::default() };
        let entry = |key: &toml::Spanned<_>, value: &DeValue<'_>| Entry {
            key: AsRef::<str>::as_ref(key.get_ref()).to_owned(),
            line: line(key.span().start),
            value: Value::of(value),
        };
        for (key, value) in document.get_ref() {
            let DeValue::Table(table) = value.get_ref() else {
                file.common.push(entry(key, value.get_ref()));
                continue;
            };
            let mut entries: Vec<Entry> =
                table.iter().map(|(key, value)| entry(key, value.get_ref())).collect();
            entries.sort_by_key(|entry| entry.line);
            let command = key.get_ref().to_string();
            file.tables.push(Table { command, line: line(key.span().start), entries });
        }
        file.common.sort_by_key(|entry| entry.line);
        Ok(file)
    }

    /// The command of a file that has one table.
    ///
    /// # Errors
    /// None or several.
    pub(super) fn only_command(&self) -> Result<String, clap::Error> {
        match &self.tables[..] {
            [table] => Ok(table.command.clone()),
            all => Err(error::which_command(&self.path, all.iter().map(|table| table.command.as_str()))),
        }
    }

    /// What the file sets for a command: its table before the keys above the tables.
    ///
    /// # Errors
    /// A value of the wrong type; a key that is there twice.
    pub(super) fn settings(&self, command: &Command) -> Result<Vec<Setting>, clap::Error> {
        let own = self.tables.iter().filter(|table| table.command == command.get_name());
        let own = own.flat_map(|table| &table.entries);
        let own = self.read_entries(own, command)?;
        let mut all = self.read_entries(self.common.iter(), command)?;
        all.retain(|common| !own.iter().any(|(key, ..)| *key == common.0));
        all.extend(own);
        Ok(all.into_iter().filter_map(|(_, setting)| setting).collect())
    }

    /// The settings of those entries that the command has, with their keys' names; `None` for what is not set.
    fn read_entries<'e>(
        &self,
        entries: impl Iterator<Item = &'e Entry>,
        command: &Command,
    ) -> Result<Vec<(String, Option<Setting>)>, clap::Error> {
        let mut all: Vec<(String, Option<Setting>)> = Vec::new();
        for entry in entries {
            let Some(key) = key::find(command, &entry.key) else { continue };
            if all.iter().any(|(name, _)| *name == key.name) {
                return Err(error::at(&self.place(entry), &format!("{} is set twice", key.name)));
            }
            let values = self.values(&key, entry)?;
            let setting = |values| Setting { key: key.name.clone(), values, line: entry.line };
            all.push((key.name.clone(), values.map(setting)));
        }
        Ok(all)
    }

    /// The values of an entry; `None` for a flag that is false and a list of nothing.
    fn values(&self, key: &Key<'_>, entry: &Entry) -> Result<Option<Vec<std::ffi::OsString>>, clap::Error> {
        let folder = self.path.parent().unwrap_or(Path::new(""));
        let resolve = |value: &String| path::resolved(key, value, folder).into_os_string();
        let wrong = |wanted: String| Err(error::at(&self.place(entry), &wanted));
        match &entry.value {
            Value::Flag(set) if key.is_flag() => Ok(set.then(Vec::new)),
            _ if key.is_flag() => wrong("it is true or false".into()),
            Value::Text(value) => Ok(Some(vec![resolve(value)])),
            Value::List(values) if key.is_list() => {
                Ok((!values.is_empty()).then(|| values.iter().map(resolve).collect()))
            }
            Value::List(_) => wrong(format!("it has one value, {}, and not a list", key.value_name())),
            Value::Flag(_) => {
                wrong(format!("it has a value, {}, and is not true or false", key.value_name()))
            }
            Value::Other(what) => wrong(format!("it has a value, {}, and not {what}", key.value_name())),
        }
    }

    /// Checks each value that the file sets for a command.
    pub(super) fn check_values(&self, command: &Command) -> Result<(), clap::Error> {
        for setting in self.settings(command)? {
            if let Some(refused) = refused(command, &alone(command, &setting)) {
                let place = Place { file: &self.path, line: setting.line, key: &setting.key };
                return Err(error::refused(&place, &refused));
            }
        }
        Ok(())
    }

    fn place<'a>(&'a self, entry: &'a Entry) -> Place<'a> {
        Place { file: &self.path, line: entry.line, key: &entry.key }
    }
}

/// The words of one setting. A positional argument has others before it.
fn alone(command: &Command, setting: &Setting) -> Vec<std::ffi::OsString> {
    let before = key::all(command).into_iter().filter(|key| key.arg.is_positional());
    let before = before.take_while(|key| key.name != setting.key);
    let filler = |key: Key<'_>| Setting { key: key.name, values: vec!["x".into()], line: 0 };
    let is_position = key::find(command, &setting.key).is_some_and(|key| key.arg.is_positional());
    let mut settings: Vec<Setting> = before.filter(|_| is_position).map(filler).collect();
    settings.push(setting.clone());
    setting::words(command, &settings)
}

impl Value {
    fn of(value: &DeValue<'_>) -> Self {
        match value {
            DeValue::Boolean(set) => Value::Flag(*set),
            DeValue::Table(_) => Value::Other("a table"),
            DeValue::Datetime(_) => Value::Other("a date"),
            DeValue::Array(values) => {
                let texts: Option<Vec<String>> = values.iter().map(|value| scalar(value.get_ref())).collect();
                texts.map_or(Value::Other("a list of anything but texts and numbers"), Value::List)
            }
            other => scalar(other).map_or(Value::Other("this"), Value::Text),
        }
    }
}

/// A text, or a number as it is written, but for a base other than ten.
fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().to_owned()),
        DeValue::Integer(number) => {
            u64::from_str_radix(number.as_str(), number.radix()).ok().map(|number| number.to_string())
        }
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}
