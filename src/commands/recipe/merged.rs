//! What the command line and the file set together.

use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::file::File;
use super::setting::{self, Setting};
use super::{error, key, refused};

/// The settings of a run. The command line wins: what the file says of the same option is left out, and so is
/// what clap refuses beside the command line.
///
/// # Errors
/// A value of the file that is refused.
pub(super) fn settings(
    command: &Command,
    given: &[Setting],
    file: &File,
) -> Result<Vec<Setting>, clap::Error> {
    file.check_values(command)?;
    let mut all = given.to_vec();
    for setting in file.settings(command)? {
        let same = given.iter().any(|given| given.key == setting.key);
        let beside = || setting::words(command, &[given, std::slice::from_ref(&setting)].concat());
        let excluded =
            || refused(command, &beside()).is_some_and(|e| e.kind() == ErrorKind::ArgumentConflict);
        if !same && !excluded() {
            all.push(setting);
        }
    }
    let order: Vec<String> = key::all(command).into_iter().map(|key| key.name).collect();
    all.sort_by_key(|setting| order.iter().position(|name| *name == setting.key));
    Ok(all)
}

/// Refuses settings without a required one.
///
/// # Errors
/// The options that are missing.
pub(super) fn check_complete(
    command: &Command,
    settings: &[Setting],
    file: &File,
) -> Result<(), clap::Error> {
    let missing: Vec<String> = missing(command, settings);
    let is_set = |shown: &String| {
        let key = key::all(command).into_iter().find(|key| key.shown() == *shown);
        key.is_some_and(|key| settings.iter().any(|setting| setting.key == key.name))
    };
    let missing: Vec<String> = missing.into_iter().filter(|shown| !is_set(shown)).collect();
    if missing.is_empty() { Ok(()) } else { Err(error::missing(command, &missing, file)) }
}

/// What clap misses in these settings, as it shows it.
pub(super) fn missing(command: &Command, settings: &[Setting]) -> Vec<String> {
    let error = command.clone().try_get_matches_from(&setting::words(command, settings)[1..]).err();
    let error = error.filter(|error| error.kind() == ErrorKind::MissingRequiredArgument);
    match error.as_ref().and_then(|error| error.get(ContextKind::InvalidArg)) {
        Some(ContextValue::Strings(all)) => all.clone(),
        Some(ContextValue::String(one)) => vec![one.clone()],
        _ => Vec::new(),
    }
}
