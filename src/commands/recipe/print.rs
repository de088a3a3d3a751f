//! `--print-config`: the options of a run as a file that `--config` reads.

use clap::Command;

use super::error;
use super::key::{self, Key};
use super::setting::{self, Setting};
use super::{merged, path, refused};

/// A file with these settings, the defaults, and as comments the options that are not set. Defaults that clap refuses
/// beside other options, and those that are paths, are comments, too.
///
/// # Errors
/// A value that TOML cannot hold, since it is not UTF-8.
pub(super) fn text(command: &Command, settings: &[Setting]) -> Result<String, clap::Error> {
    let keys = key::all(command);
    let mut text = format!(
        "# Relative paths hold in the folder that this was printed in: keep the file there.\n[{}]\n",
        command.get_name()
    );
    for setting in settings {
        let key = keys.iter().find(|key| key.name == setting.key);
        let Some(key) = key else { continue };
        let values = setting.values.iter().map(|value| value.to_str().map(str::to_owned));
        let values: Option<Vec<String>> = values.collect();
        let values = values.ok_or_else(|| error::not_utf8(&key.shown()))?;
        text += &line(key, &values);
    }
    let others = keys.iter().filter(|key| !settings.iter().any(|setting| setting.key == key.name));
    let others: Vec<&Key<'_>> = others.filter(|key| !key.arg.is_hide_set()).collect();
    let mut live = settings.to_vec();
    let (mut defaults, mut unset) = (String::new(), String::new());
    for key in others {
        let Some(values) = default(key) else {
            unset += &format!("# {}{}\n", line(key, &[choices(key)]).trim_end(), note(key));
            continue;
        };
        let more =
            Setting { key: key.name.clone(), values: values.iter().map(Into::into).collect(), line: 0 };
        let with = [live.clone(), vec![more]].concat();
        // A default path is one of the current folder, and not of the file's.
        let moves = values.iter().any(|value| path::depends_on_folder(key, value));
        let fits = !moves
            && refused(command, &setting::words(command, &with)).is_none()
            && merged::missing(command, &with) == merged::missing(command, &live);
        match fits {
            true => {
                live = with;
                defaults += &line(key, &values);
            }
            false => unset += &format!("# {}", line(key, &values)),
        }
    }
    for (title, lines) in [("Defaults:", defaults), ("Not set:", unset)] {
        if !lines.is_empty() {
            text += &format!("\n# {title}\n{lines}");
        }
    }
    Ok(text)
}

/// The values that an option has by default.
fn default(key: &Key<'_>) -> Option<Vec<String>> {
    let values: Option<Vec<String>> =
        key.arg.get_default_values().iter().map(|value| value.to_str().map(str::to_owned)).collect();
    values.filter(|values| !values.is_empty() && !key.is_flag())
}

/// What an option takes: its values, or what they are called.
fn choices(key: &Key<'_>) -> String {
    let all = key.arg.get_possible_values();
    let shown = all.iter().filter(|one| !one.is_hide_set()).map(|one| one.get_name());
    let shown: Vec<&str> = shown.collect();
    if shown.is_empty() { key.value_name() } else { shown.join("|") }
}

/// A line of TOML.
fn line(key: &Key<'_>, values: &[String]) -> String {
    let value = match values {
        _ if key.is_flag() => "true".to_owned(),
        all if key.is_list() => {
            let all: Vec<String> = all.iter().map(|value| quoted(value)).collect();
            format!("[{}]", all.join(", "))
        }
        all => all.first().map_or(String::new(), |value| scalar(key, value)),
    };
    format!("{} = {value}\n", key.name)
}

/// A number where the option takes one and TOML would read the same text, else a text.
fn scalar(key: &Key<'_>, text: &str) -> String {
    let texts = [
        clap::builder::ValueParser::string().type_id(),
        clap::builder::ValueParser::os_string().type_id(),
        clap::builder::ValueParser::path_buf().type_id(),
    ];
    let is_text = texts.contains(&key.arg.get_value_parser().type_id()) || path::is_path(key);
    if is_text { quoted(text) } else { value(text) }
}

/// A number as it is, and any other text in quotes.
pub(in crate::commands) fn value(text: &str) -> String {
    if is_number(text) { text.to_owned() } else { quoted(text) }
}

/// Whether a text is a decimal number in TOML's form.
fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let whole = digits.split(['.', 'e', 'E']).next().unwrap_or("");
    let plain = |c: char| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '-' | '+');
    digits.chars().all(plain) && (whole == "0" || !whole.starts_with('0')) && {
        let value = format!("x = {text}").parse::<toml::Table>();
        value.is_ok_and(|table| table["x"].is_integer() || table["x"].is_float())
    }
}

/// A text in TOML's quotes.
pub(in crate::commands) fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// The default that a program finds while it runs, out of an option's help.
fn note(key: &Key<'_>) -> String {
    let help = key.arg.get_long_help().or(key.arg.get_help()).map(ToString::to_string).unwrap_or_default();
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let default = help.rsplit_once("[default: ").and_then(|(_, rest)| rest.split_once(']'));
    default.map_or(String::new(), |(default, _)| format!("    # default: {default}"))
}
