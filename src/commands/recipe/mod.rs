//! `--config FILE.toml`: the options of a command in a file, so that an experiment is one file in git; and
//! `--print-config`, which prints them as such a file.
//!
//! What a file may hold follows from clap's own description of the commands: there is no second list of
//! options. The file and the command line become one command line, which clap parses as any other, so its
//! checks hold for both.

mod error;
mod file;
mod key;
mod merged;
mod path;
mod print;
mod setting;
#[cfg(test)]
mod tests;

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Command, CommandFactory, FromArgMatches, Parser};

use super::CommandLine;
use file::File;
pub(super) use path::has_scheme;
pub(super) use print::{quoted, value};

/// The ids of the options that this module is about.
const CONFIG: &str = "config";
const PRINT: &str = "print_config";

/// A command line, with the options of the file that `--config` names.
///
/// # Errors
/// Wrong usage: of the command line as clap says it, and of the file with its line and key.
pub fn command_line(words: impl IntoIterator<Item = OsString>) -> Result<CommandLine, clap::Error> {
    let words: Vec<OsString> = words.into_iter().collect();
    let matches = match CommandLine::command().try_get_matches_from(&words) {
        // What is missing may stand in the file.
        Err(error) if error.kind() == ErrorKind::MissingRequiredArgument => {
            let relaxed = CommandLine::command().ignore_errors(true).try_get_matches_from(&words)?;
            if !is_given(&relaxed, CONFIG) && !is_given(&relaxed, PRINT) {
                return Err(error);
            }
            relaxed
        }
        other => other?,
    };
    if is_given(&matches, "version") || !is_given(&matches, CONFIG) && !is_given(&matches, PRINT) {
        return CommandLine::from_arg_matches(&matches);
    }
    let mut root = CommandLine::command();
    root.build();
    let file = match matches.get_one::<std::path::PathBuf>(CONFIG) {
        Some(path) => File::read(path, &root)?,
        None => File::default(),
    };
    let (name, own) = match matches.subcommand() {
        Some((name, own)) => (name.to_owned(), own),
        None => (file.only_command()?, &matches),
    };
    let none = || error::which_command(&file.path, std::iter::empty());
    let command = root.find_subcommand(&name).ok_or_else(none)?;
    let given = setting::given(command, own);
    let settings = merged::settings(command, &given, &file)?;
    if is_given(&matches, PRINT) {
        let printed = print::text(command, &settings)?;
        return Ok(CommandLine { printed: Some(printed), ..nothing()? });
    }
    merged::check_complete(command, &settings, &file)?;
    let mut words = setting::words(command, &settings);
    words.extend(nested(own));
    CommandLine::try_parse_from(words).map_err(|refused| error::together(&refused, &file))
}

/// Whether an option is on the command line.
fn is_given(matches: &ArgMatches, id: &str) -> bool {
    matches.value_source(id) == Some(ValueSource::CommandLine)
}

/// A command line without anything.
fn nothing() -> Result<CommandLine, clap::Error> {
    let matches = CommandLine::command().ignore_errors(true).try_get_matches_from(["curmerge"])?;
    CommandLine::from_arg_matches(&matches)
}

/// The words of commands within a command, such as `clear` of `cache`, which have no options.
fn nested(matches: &ArgMatches) -> Vec<OsString> {
    match matches.subcommand() {
        Some((name, within)) => [vec![name.into()], nested(within)].concat(),
        None => Vec::new(),
    }
}

/// What clap refuses in these words of a command; what is missing is no fault yet.
fn refused(command: &Command, words: &[OsString]) -> Option<clap::Error> {
    let error = command.clone().try_get_matches_from(&words[1..]).err()?;
    (error.kind() != ErrorKind::MissingRequiredArgument).then_some(error)
}
