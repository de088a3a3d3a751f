//! Wrong usage of a file, in the form of clap's errors.

use std::path::Path;

use clap::Command;
use clap::error::{Error, ErrorKind};

use super::file::File;
use super::key;
use crate::commands::report::{errors, terminal};

/// Names that are less alike are not suggested, as clap has it.
const ALIKE: f64 = 0.7;

/// A place in a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) file: &'a Path,
    pub(super) line: usize,
    /// Empty where there is none.
    pub(super) key: &'a str,
}

fn raw(kind: ErrorKind, message: &str) -> Error {
    let lines: Vec<String> = message.lines().map(terminal::plain).collect();
    Error::raw(kind, lines.join("\n") + "\n")
}

/// A problem of a place.
pub(super) fn at(place: &Place<'_>, problem: &str) -> Error {
    let Place { file, line, key } = place;
    let key = if key.is_empty() { String::new() } else { format!("{key}: ") };
    raw(ErrorKind::InvalidValue, &format!("{}:{line}: {key}{problem}", file.display()))
}

/// A file that cannot be read.
pub(super) fn unreadable(error: &crate::Error) -> Error {
    raw(ErrorKind::Io, &errors::line(error))
}

/// A value that clap refuses.
pub(super) fn refused(place: &Place<'_>, refused: &Error) -> Error {
    at(place, &message(refused))
}

/// Settings that clap refuses together.
pub(super) fn together(refused: &Error, file: &File) -> Error {
    match file.path.as_os_str().is_empty() {
        true => raw(refused.kind(), &message(refused)),
        false => raw(refused.kind(), &format!("{}: {}", file.path.display(), message(refused))),
    }
}

/// What an error of clap says, without usage and help.
fn message(error: &Error) -> String {
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let ends = ["\n\nUsage:", "\n\nFor more information"].map(|end| text.find(end).unwrap_or(text.len()));
    text[..ends[0].min(ends[1])].trim_end().to_owned()
}

/// A key that no option has. `command` is that of its table.
pub(super) fn unknown_key(place: &Place<'_>, root: &Command, command: Option<&Command>) -> Error {
    let name = place.key.replace('_', "-");
    let (what, commands) = match command {
        Some(command) => (format!("'{}' has no such option", command.get_name()), vec![command]),
        None => ("no command has such an option".to_owned(), root.get_subcommands().collect()),
    };
    let names = commands.into_iter().flat_map(key::all).map(|key| key.name);
    let elsewhere: Vec<&str> = root
        .get_subcommands()
        .filter(|other| key::find(other, &name).is_some())
        .map(Command::get_name)
        .collect();
    let tip = match (nearest(&name, names), &elsewhere[..]) {
        (Some(near), []) => format!("\n\n  tip: a similar key exists: '{near}'"),
        (None, []) => String::new(),
        (_, all) => format!("\n\n  tip: it is a key of '{}'", all.join("', '")),
    };
    at(place, &(what + &tip))
}

/// A table that is no command.
pub(super) fn no_command(place: &Place<'_>, root: &Command) -> Error {
    let names = root.get_subcommands().map(|command| command.get_name().to_owned());
    let tip = match nearest(place.key, names) {
        Some(near) => format!("\n\n  tip: a similar command exists: '{near}'"),
        None => String::new(),
    };
    at(place, &format!("there is no such command{tip}"))
}

/// A file without a command on the command line, which has these tables.
pub(super) fn which_command<'a>(file: &Path, tables: impl Iterator<Item = &'a str>) -> Error {
    let file = file.display();
    let commands: Vec<String> = tables.map(|name| format!("\n  curmerge {name} --config {file}")).collect();
    let message = match &commands[..] {
        [] => "a command is missing; see curmerge --help".to_owned(),
        all => format!("{file} has several commands; name one of them:\n{}", all.concat()),
    };
    raw(ErrorKind::MissingSubcommand, &message)
}

/// Required options that neither the command line nor the file has, as clap shows them.
pub(super) fn missing(command: &Command, missing: &[String], file: &File) -> Error {
    let mut lines = vec!["these are required, and not given:".to_owned()];
    for shown in missing {
        let key = key::all(command).into_iter().find(|key| key.shown() == *shown);
        let key = key.map_or(String::new(), |key| format!("  (key {})", key.name));
        lines.push(format!("  {shown}{key}"));
    }
    let place = match file.path.as_os_str().is_empty() {
        true => String::new(),
        false => format!("{}: ", file.path.display()),
    };
    command.clone().error(ErrorKind::MissingRequiredArgument, place + &lines.join("\n"))
}

/// The name most like this one, if one is like it.
fn nearest(name: &str, names: impl Iterator<Item = String>) -> Option<String> {
    let alike = names.map(|other| (strsim::jaro_winkler(name, &other), other));
    alike.filter(|(likeness, _)| *likeness > ALIKE).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, other)| other)
}

/// A value that TOML cannot hold.
pub(super) fn not_utf8(shown: &str) -> Error {
    raw(ErrorKind::InvalidUtf8, &format!("the value of {shown} is not UTF-8, as a TOML file is"))
}
