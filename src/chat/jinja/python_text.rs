//! The texts that Python writes for values.

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

use super::fuel::MAX_DEPTH;
use super::json::number;
use super::strings;

/// Python's `str(value)`.
///
/// # Errors
/// If there is not enough fuel for its length.
pub(super) fn python_text(state: &State<'_, '_>, value: &Value) -> Result<String, Error> {
    match value.kind() {
        ValueKind::Number => Ok(number(value)),
        ValueKind::Seq | ValueKind::Map | ValueKind::Iterable => {
            let mut out = String::new();
            represent(state, value, 0, &mut out)?;
            Ok(out)
        }
        _ => Ok(value.to_string()),
    }
}

/// Python's `repr(value)`.
///
/// # Errors
/// Those of [`python_text`]; a value that is nested too deeply.
pub(super) fn represent(
    state: &State<'_, '_>,
    value: &Value,
    depth: usize,
    out: &mut String,
) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(Error::new(ErrorKind::BadSerialization, "the value to write is nested too deeply"));
    }
    let before = out.len();
    match value.kind() {
        ValueKind::Number => *out += &number(value),
        ValueKind::String => strings::represent(value.as_str().unwrap_or_default(), out),
        ValueKind::Seq | ValueKind::Iterable => {
            let [begin, end] = if value.is_tuple() { ["(", ")"] } else { ["[", "]"] };
            *out += begin;
            let mut count = 0;
            for item in value.try_iter()?.checked() {
                *out += if count > 0 { ", " } else { "" };
                represent(state, &item?, depth + 1, out)?;
                count += 1;
            }
            *out += if value.is_tuple() && count == 1 { "," } else { "" };
            *out += end;
        }
        ValueKind::Map => {
            out.push('{');
            for (i, key) in value.try_iter()?.enumerate() {
                *out += if i > 0 { ", " } else { "" };
                represent(state, &key, depth + 1, out)?;
                *out += ": ";
                represent(state, &value.get_item(&key)?, depth + 1, out)?;
            }
            out.push('}');
        }
        // None, True and False, and objects that are only a name.
        _ => *out += &format!("{value:?}"),
    }
    // A short list may contain the same list many times over. Each byte is paid for at every level; there are
    // few levels.
    state.consume_fuel(1 + (out.len() - before) as u64 / 64)
}
