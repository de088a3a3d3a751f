//! What a template finds in transformers beside Jinja itself, and where minijinja differs from Jinja2 and Python.
//!
//! What still differs: `%` does not format, the default of a macro's parameter does not see the parameters before it,
//! `safe` does nothing, and what Python makes a generator is a list. Calls with `*` or `**`, templates within templates,
//! and a namespace within another value are refused.

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Output, State};

use super::{json, operations, strings};

/// Functions, filters, tests and methods that a template may use.
pub(super) fn add_to(environment: &mut Environment<'_>) {
    environment.set_formatter(|out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value| {
        // A String takes all that is written.
        let written = match value.as_str() {
            Some(text) => out.write_str(text),
            None => out.write_str(&text(state, value)?),
        };
        written.map_err(Error::from)
    });
    environment.set_unknown_method_callback(method);
    environment.add_function(
        "raise_exception",
        |state: &State<'_, '_>, message: &Value| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, text(state, message)?))
        },
    );
    environment.add_function("strftime_now", |format: &str| strftime(format));
    environment.add_filter("tojson", json::tojson);
    environment.add_filter("string", |state: &State<'_, '_>, value: &Value| text(state, value));
    environment.add_filter("pprint", |state: &State<'_, '_>, value: &Value| {
        let mut out = String::new();
        represent(state, value, 0, &mut out).map(|()| out)
    });
    environment.add_filter("trim", |state: &State<'_, '_>, value: &Value, chars: Option<&str>| {
        let text = text(state, value)?;
        strings::pay_to_strip(state, &text, chars)?;
        Ok::<_, Error>(strings::strip(&text, chars, true, true).to_owned())
    });
    environment.add_filter(
        "split",
        |state: &State<'_, '_>, text: &str, separator: Option<&str>, limit: Option<i64>| {
            let limit = limit.and_then(|limit| usize::try_from(limit).ok());
            strings::split(state, text, separator, limit.unwrap_or(usize::MAX), false)
        },
    );
    environment.add_filter("lines", |state: &State<'_, '_>, text: &str| strings::lines(state, text, false));
    environment.add_filter("sum", operations::sum);
    environment.add_function("namespace", operations::namespace);
    environment.add_function("dict", operations::dict);
    // Jinja has it not, and it writes all that there is.
    environment.remove_global("debug");
    environment.add_filter("int", int);
    // To minijinja nothing is iterable too, but templates ask that of `tools` before they count them.
    environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
    // As in Python all that has a length and items: maps and strings too.
    environment.add_test("sequence", |value: &Value| value.is_undefined() || value.len().is_some());
}

/// Jinja's filter `int`: what is no number is `default`, 0 if it is not given.
fn int(value: &Value, default: Option<Value>, options: Kwargs) -> Result<Value, Error> {
    let default = match default {
        Some(default) => default,
        None => options.get::<Option<Value>>("default")?.unwrap_or_else(|| 0.into()),
    };
    let base: u32 = options.get::<Option<u32>>("base")?.unwrap_or(10);
    options.assert_all_used()?;
    let whole = |x: f64| if x.is_finite() { Value::from(x.trunc() as i128) } else { default.clone() };
    Ok(match value.kind() {
        ValueKind::Undefined => return Err(Error::from(ErrorKind::UndefinedError)),
        ValueKind::Bool => Value::from(i64::from(value.is_true())),
        ValueKind::Number if value.is_integer() => value.clone(),
        ValueKind::Number => whole(f64::try_from(value.clone())?),
        ValueKind::String => {
            let text = strings::strip(value.as_str().unwrap_or_default(), None, true, true);
            let digits = match base {
                2 => text.trim_start_matches("0b"),
                8 => text.trim_start_matches("0o"),
                16 => text.trim_start_matches("0x"),
                10 => text,
                _ => return Ok(default),
            };
            match (i64::from_str_radix(digits, base), text.parse::<f64>()) {
                (Ok(x), _) => x.into(),
                (_, Ok(x)) => whole(x),
                _ => default,
            }
        }
        _ => default,
    })
}

/// Methods of Python's strings, lists and dictionaries.
fn method(state: &mut State<'_, '_>, value: &Value, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    let known = match value.kind() {
        ValueKind::String => strings::method(state, value.as_str().unwrap_or_default(), name, arguments)?,
        ValueKind::Map if name == "copy" && arguments.is_empty() => Some(value.clone()),
        ValueKind::Seq if name == "index" => {
            let found = value.try_iter()?.position(|item| arguments == [item]);
            let missing = || Error::new(ErrorKind::InvalidOperation, "the item is not in the list");
            Some(Value::from(found.ok_or_else(missing)?))
        }
        _ => None,
    };
    match known {
        Some(result) => Ok(result),
        None => minijinja_contrib::pycompat::unknown_method_callback(state, value, name, arguments),
    }
}

/// Python's `str(value)`.
///
/// # Errors
/// If it is too long for the fuel that is left.
pub(super) fn text(state: &State<'_, '_>, value: &Value) -> Result<String, Error> {
    match value.kind() {
        ValueKind::Number => Ok(json::number(value)),
        ValueKind::Seq | ValueKind::Map | ValueKind::Iterable => {
            let mut out = String::new();
            represent(state, value, 0, &mut out)?;
            Ok(out)
        }
        _ => Ok(value.to_string()),
    }
}

/// Python's `repr(value)`.
fn represent(state: &State<'_, '_>, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
    if depth > operations::DEPTH {
        return Err(Error::new(ErrorKind::BadSerialization, "what is to be written is nested too deeply"));
    }
    let before = out.len();
    match value.kind() {
        ValueKind::Number => *out += &json::number(value),
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
        // None, True and False, and objects that are no more than a name.
        _ => *out += &format!("{value:?}"),
    }
    // A short list may hold itself many times over. Each byte is paid for at every level, which are few.
    state.consume_fuel(1 + (out.len() - before) as u64 / 64)
}

/// C's `strftime` at the time that the opening of [`chat`](super) tells; a code that is not known stands for itself.
fn strftime(format: &str) -> String {
    let mut out = String::with_capacity(format.len() + 16);
    let mut characters = format.chars().peekable();
    while let Some(character) = characters.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        // Without the zero in front.
        let bare = characters.next_if_eq(&'-').is_some();
        let code = characters.next();
        let text = match code {
            Some('Y') => "2024",
            Some('y') => "24",
            Some('m') if bare => "7",
            Some('m') => "07",
            Some('d' | 'e') => "26",
            Some('b' | 'h') => "Jul",
            Some('B') => "July",
            Some('a') => "Fri",
            Some('A') => "Friday",
            Some('u' | 'w') => "5",
            Some('j') => "208",
            Some('H' | 'M' | 'S') if bare => "0",
            Some('H' | 'M' | 'S') => "00",
            Some('I') => "12",
            Some('p') => "AM",
            Some('f') => "000000",
            Some('F') => "2024-07-26",
            Some('D' | 'x') => "07/26/24",
            Some('T' | 'X') => "00:00:00",
            Some('R') => "00:00",
            Some('c') => "Fri Jul 26 00:00:00 2024",
            Some('z' | 'Z') => "",
            Some('%') => "%",
            other => {
                out.push('%');
                out.extend(bare.then_some('-'));
                out.extend(other);
                ""
            }
        };
        out += text;
    }
    out
}
