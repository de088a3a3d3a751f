//! Paths in a file are relative to its folder.

use std::path::{Path, PathBuf};

use clap::ValueHint;

use super::key::Key;

/// The value as the command line would have it, for a file in this folder.
pub(super) fn resolved(key: &Key<'_>, value: &str, folder: &Path) -> PathBuf {
    if !depends_on_folder(key, value) {
        return value.into();
    }
    if let Some(rest) = value.strip_prefix("~/")
        && let Ok(home) = etcetera::home_dir()
    {
        return home.join(rest);
    }
    let path = folder.join(value);
    // FILE|NAME: a name, unless there is such a file.
    if key.value_name().contains("NAME") && !path.exists() { value.into() } else { path }
}

/// Whether a value is a path, or may be one.
pub(super) fn depends_on_folder(key: &Key<'_>, value: &str) -> bool {
    is_path(key) && !is_word(key, value) && !has_scheme(value)
}

/// Whether the values of a key are paths.
pub(super) fn is_path(key: &Key<'_>) -> bool {
    matches!(
        key.arg.get_value_hint(),
        ValueHint::AnyPath | ValueHint::FilePath | ValueHint::DirPath | ValueHint::ExecutablePath
    )
}

/// `-`, and words that stand for themselves: in `self|FILE|none` those in lower case.
fn is_word(key: &Key<'_>, value: &str) -> bool {
    let is_lower = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase());
    value == "-" || key.value_name().split('|').any(|word| word == value && is_lower(word))
}

/// Whether a value names something elsewhere, such as `ollama:NAME` or `hf:OWNER/NAME`. A letter and a colon are
/// a drive.
pub(in crate::commands) fn has_scheme(value: &str) -> bool {
    let scheme = value.split_once(':').map_or("", |(scheme, _)| scheme);
    scheme.len() > 1 && scheme.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}
