//! Every option of every command, from the command line to a file and back.

use std::ffi::OsString;
use std::fs;

use clap::builder::ArgAction;
use clap::{Command, CommandFactory};

use super::key::{self, Key};
use super::setting::{self, Setting};
use super::{merged, refused};
use crate::commands::CommandLine;

fn root() -> Command {
    let mut root = CommandLine::command();
    root.build();
    root
}

/// Values of which some option takes each.
const SAMPLES: [&str; 15] = [
    "-0.5",
    "0.25",
    "7",
    "2-5",
    "2G",
    "q4_k_m",
    "q8_0",
    "portable",
    "bash",
    "x y \"z\"\n",
    "a {b}\\n{{c}}",
    "ö=3",
    "1e-3",
    "auto",
    "-1",
];

/// The values that a key takes, of these.
fn samples(command: &Command, key: &Key<'_>) -> Vec<Vec<OsString>> {
    if key.is_flag() {
        return vec![Vec::new()];
    }
    let named = key.arg.get_possible_values();
    let named: Vec<&str> = named.iter().map(|value| value.get_name()).collect();
    let all: Vec<Vec<OsString>> = named
        .into_iter()
        .chain(SAMPLES)
        .map(|value| vec![OsString::from(value)])
        .filter(|values| {
            let setting = Setting { key: key.name.clone(), values: values.clone(), line: 0 };
            key.arg.is_positional() || refused(command, &setting::words(command, &[setting])).is_none()
        })
        .collect();
    match key.is_list() {
        true => [all.clone(), vec![all.concat()]].concat(),
        false => all,
    }
}

/// These settings with those that clap asks for beside them, or `None` if they exclude each other.
fn completed(command: &Command, mut settings: Vec<Setting>) -> Option<Vec<Setting>> {
    for _ in 0..9 {
        if refused(command, &setting::words(command, &settings)).is_some() {
            return None;
        }
        let missing = merged::missing(command, &settings);
        let Some(shown) = missing.first() else { return Some(settings) };
        // Of a group, <--a <X>|--b <Y>>, the first.
        let keys = key::all(command);
        let wanted = keys.iter().find(|key| key.shown() == *shown);
        let wanted = wanted.or_else(|| keys.iter().find(|key| shown.contains(&key.shown())))?;
        let values = samples(command, wanted).into_iter().next()?;
        settings.push(Setting { key: wanted.name.clone(), values, line: 0 });
    }
    None
}

#[test]
fn every_option_of_every_command_comes_back_from_a_file() {
    let (root, folder) = (root(), tempfile::tempdir().unwrap());
    // Paths stay as they are, since they are absolute.
    let file = folder.path().join("run.toml");
    let mut options = 0;
    for command in root.get_subcommands().filter(|command| command.get_name() != "help") {
        for key in key::all(command) {
            let before = options;
            for values in samples(command, &key) {
                let values = values.into_iter().map(|value| match super::path::is_path(&key) {
                    true => folder.path().join(value).into_os_string(),
                    false => value,
                });
                let own = Setting { key: key.name.clone(), values: values.collect(), line: 0 };
                let Some(settings) = completed(command, vec![own]) else { continue };
                let settings = settings.into_iter().map(|mut setting| {
                    let key = key::find(command, &setting.key).unwrap();
                    if super::path::is_path(&key) {
                        let absolute = |value| folder.path().join(value).into_os_string();
                        setting.values = setting.values.into_iter().map(absolute).collect();
                    }
                    setting
                });
                let settings: Vec<Setting> = settings.collect();
                let words = setting::words(command, &settings);
                let direct = super::command_line(words.clone()).unwrap();
                let printing = words.iter().take(2).cloned().chain(["--print-config".into()]);
                let printing = super::command_line(printing.chain(words.iter().skip(2).cloned())).unwrap();
                let printed = printing.printed.unwrap();
                fs::write(&file, &printed).unwrap();
                let again: Vec<OsString> = vec![
                    "curmerge".into(),
                    command.get_name().into(),
                    "--config".into(),
                    file.clone().into(),
                ];
                let from_file =
                    super::command_line(again.clone()).unwrap_or_else(|e| panic!("{e}\n{printed}"));
                assert_eq!(format!("{direct:?}"), format!("{from_file:?}"), "{words:?}\n{printed}");
                // And what is printed of the file is the file, but for what it calls a default.
                let reprinted = super::command_line(again.into_iter().chain(["--print-config".into()]));
                let set = |text: &str| text.parse::<toml::Table>().unwrap();
                assert_eq!(set(&reprinted.unwrap().printed.unwrap()), set(&printed));
                options += 1;
            }
            assert!(options > before, "{} {}: no value of it was tried", command.get_name(), key.name);
        }
    }
    assert!(options > 400, "{options}");
}

#[test]
fn every_option_has_a_key_of_its_own() {
    let root = root();
    for command in root.get_subcommands() {
        let all = key::all(command);
        for key in &all {
            let found = key::find(command, &key.name).unwrap();
            assert_eq!(found.arg.get_id(), key.arg.get_id(), "{} {}", command.get_name(), key.name);
        }
        for arg in command.get_arguments().filter(|arg| !super::key::NO_KEYS.contains(&arg.get_id().as_str()))
        {
            let known = all.iter().any(|key| key.arg.get_id() == arg.get_id());
            assert!(known, "{} {}: no key", command.get_name(), arg.get_id());
            let action = arg.get_action();
            assert!(
                matches!(action, ArgAction::SetTrue | ArgAction::Set | ArgAction::Append),
                "{} {}: a file cannot hold this",
                command.get_name(),
                arg.get_id()
            );
        }
    }
}
