//! The keys of a command: what its options and positional arguments are called in a file.

use clap::builder::ArgAction;
use clap::{Arg, Command};

/// Options that are no part of a recipe.
pub(super) const NO_KEYS: [&str; 4] = ["help", "version", super::CONFIG, super::PRINT];

/// An option or positional argument under its name in a file.
#[derive(Clone, Debug)]
pub(super) struct Key<'a> {
    /// The long name of an option; the name of a positional argument, such as `base`.
    pub(super) name: String,
    /// Other names that are read.
    aliases: Vec<String>,
    /// What clap knows of it.
    pub(super) arg: &'a Arg,
}

/// The keys of a command, in the order of its help. Clap has built the command.
pub(super) fn all(command: &Command) -> Vec<Key<'_>> {
    let args = command.get_arguments().filter(|arg| !NO_KEYS.contains(&arg.get_id().as_str()));
    args.filter_map(Key::of).collect()
}

/// The key of this name, with `_` for `-`.
pub(super) fn find<'a>(command: &'a Command, name: &str) -> Option<Key<'a>> {
    let name = name.replace('_', "-");
    all(command).into_iter().find(|key| key.name == name || key.aliases.contains(&name))
}

impl<'a> Key<'a> {
    fn of(arg: &'a Arg) -> Option<Self> {
        let id = arg.get_id().as_str().replace('_', "-");
        if arg.is_positional() {
            let shown = arg.get_value_names().and_then(<[_]>::first).map(|name| name.to_lowercase());
            let word = shown.as_deref().and_then(|name| name.split(|c: char| !c.is_alphanumeric()).next());
            let name = word.filter(|word| !word.is_empty()).unwrap_or(&id).to_owned();
            return Some(Self { name, aliases: vec![id], arg });
        }
        let name = arg.get_long()?.to_owned();
        let aliases = arg.get_all_aliases().unwrap_or_default().into_iter().map(str::to_owned).collect();
        Some(Self { name, aliases, arg })
    }

    /// Whether it is true or false, and has no value.
    pub(super) fn is_flag(&self) -> bool {
        matches!(self.arg.get_action(), ArgAction::SetTrue)
    }

    /// Whether it may be given several times.
    pub(super) fn is_list(&self) -> bool {
        matches!(self.arg.get_action(), ArgAction::Append)
    }

    /// What its values are called, such as `FILE`.
    pub(super) fn value_name(&self) -> String {
        let names = self.arg.get_value_names().unwrap_or_default();
        names.first().map_or_else(|| self.name.to_uppercase(), ToString::to_string)
    }

    /// What clap calls it where it is missing.
    pub(super) fn shown(&self) -> String {
        match self.arg.is_positional() {
            true => format!("<{}>{}", self.value_name(), if self.is_list() { "..." } else { "" }),
            false => self.arg.to_string(),
        }
    }
}
