//! What the options of one run are set to, and the command line that says the same.

use std::ffi::OsString;

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};

use super::key::{self, Key};

/// An option and its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// The key's name.
    pub(super) key: String,
    /// Its values; a flag that is set has none.
    pub(super) values: Vec<OsString>,
    /// The line of the file that says so; 0 for the command line.
    pub(super) line: usize,
}

/// What a command line sets.
pub(super) fn given(command: &Command, matches: &ArgMatches) -> Vec<Setting> {
    let is_given = |key: &Key<'_>| {
        let id = key.arg.get_id().as_str();
        matches.try_contains_id(id).unwrap_or(false)
            && matches.value_source(id) == Some(ValueSource::CommandLine)
    };
    let setting = |key: Key<'_>| {
        let raw = matches.get_raw(key.arg.get_id().as_str()).filter(|_| !key.is_flag());
        let values = raw.into_iter().flatten().map(OsString::from).collect();
        Setting { key: key.name, values, line: 0 }
    };
    key::all(command).into_iter().filter(is_given).map(setting).collect()
}

/// The command line of these settings. Positional arguments after one that is not set are left out.
pub(super) fn words(command: &Command, settings: &[Setting]) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["curmerge".into(), command.get_name().into()];
    let mut positions = Vec::new();
    let mut whole = true;
    for key in key::all(command) {
        let Some(setting) = settings.iter().find(|setting| setting.key == key.name) else {
            whole &= !key.arg.is_positional();
            continue;
        };
        match key.arg.get_long() {
            None if whole => positions.extend(setting.values.iter().cloned()),
            None => {}
            Some(long) if key.is_flag() => words.push(format!("--{long}").into()),
            Some(long) => words.extend(setting.values.iter().map(|value| {
                let mut word = OsString::from(format!("--{long}="));
                word.push(value);
                word
            })),
        }
    }
    if !positions.is_empty() {
        words.push("--".into());
        words.extend(positions);
    }
    words
}
