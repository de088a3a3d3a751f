//! Lines that begin with a slash.

use std::path::PathBuf;

use super::part;
use crate::commands::arguments::AdapterPart;
use crate::{Error, Result};

/// What a line asks for, other than an answer.
#[derive(Debug)]
pub(super) enum Command {
    Help,
    Reset,
    System(Option<String>),
    AdapterOff,
    AdapterOn,
    Adapter(AdapterPart),
    Compare(bool),
    Save(PathBuf),
    Exit,
}

/// The names of all commands.
pub(super) const NAMES: [&str; 7] = ["/help", "/reset", "/system", "/adapter", "/compare", "/save", "/exit"];

/// What `/help` shows.
pub(super) const HELP: &str = "\
/reset                  begin a new conversation
/system [TEXT]          begin a new conversation with this system message; without TEXT, with none of your own
/adapter off|on|FILE    answer without the adapter, with it, or with another one
/compare on|off         answer with the base and with the adapted model
/save FILE.jsonl        append the conversation to a file of examples for build
/exit                   end, as Ctrl-D does
\"\"\"                     begins and ends a message of several lines
Ctrl-C                  stops an answer; twice, the program
A message that begins with a slash: put a space before it.";

/// The command of a line, if it is one.
///
/// # Errors
/// An unknown command; one with a wrong word after it.
pub(super) fn parse(line: &str) -> Result<Option<Command>> {
    let Some(after) = line.strip_prefix('/') else { return Ok(None) };
    let (name, rest) = after.split_once(char::is_whitespace).unwrap_or((after, ""));
    // A path, or code.
    if name.contains(|c: char| !c.is_ascii_alphabetic() && c != '?') || name.is_empty() {
        return Ok(None);
    }
    let rest = rest.trim();
    let needs = |what: &str| Err(Error::request(format!("/{name} {rest}: {what}"), "see /help"));
    let alone = |command: Command| match rest {
        "" => Ok(command),
        _ => needs("nothing follows it"),
    };
    Ok(Some(match (name, rest) {
        ("help" | "?", _) => Command::Help,
        ("reset" | "clear", _) => alone(Command::Reset)?,
        ("exit" | "quit" | "bye", _) => alone(Command::Exit)?,
        ("system", "") => Command::System(None),
        ("system", text) => Command::System(Some(text.to_owned())),
        ("adapter" | "compare" | "save", "") => needs("a word is missing after it")?,
        ("adapter", "off") => Command::AdapterOff,
        ("adapter", "on") => Command::AdapterOn,
        ("adapter", file) => Command::Adapter(part(&unescaped(file))),
        ("compare", "on") => Command::Compare(true),
        ("compare", "off") => Command::Compare(false),
        ("compare", _) => needs("it is on or off")?,
        ("save", file) => Command::Save(unescaped(file).into()),
        _ => {
            let problem = format!("there is no command /{name}");
            let help = "/help lists them; a message that begins with a slash needs a space before it";
            return Err(Error::request(problem, help));
        }
    }))
}

/// A path as completion writes it, with a backslash before spaces, and with the home folder for `~`.
fn unescaped(path: &str) -> String {
    let path = path.replace("\\ ", " ");
    match (path.strip_prefix("~/"), std::env::var("HOME")) {
        (Some(rest), Ok(home)) => format!("{home}/{rest}"),
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_from_messages() {
        for message in ["hi", " /reset", "/usr/bin is what?", "/ 2", "//", ""] {
            assert!(parse(message).unwrap().is_none(), "{message}");
        }
        assert!(matches!(parse("/adapter off").unwrap(), Some(Command::AdapterOff)));
        assert!(
            matches!(parse("/system  be kind ").unwrap(), Some(Command::System(Some(text))) if text == "be kind")
        );
        assert!(
            matches!(parse("/save a b.jsonl").unwrap(), Some(Command::Save(path)) if path.as_os_str() == "a b.jsonl")
        );
        for wrong in ["/rest", "/adapter", "/save ", "/compare both", "/exit now"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        for name in NAMES {
            assert!(HELP.contains(name) || name == "/help", "{name}");
        }
    }
}
