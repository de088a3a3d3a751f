//! What transformers offers a template besides Jinja itself, and where minijinja differs from Jinja2 and
//! Python.
//!
//! These differences remain: `%` does not format, the default of a macro's parameter does not see earlier
//! parameters, `safe` does nothing, and Python's generators are lists. Calls with `*` or `**`, templates
//! within templates, and a namespace within another value are refused.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value, ValueKind, ValueOrKwargs};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State};

use super::fuel::{FUEL, SLOT, invalid, owned, pay_for};
use super::python_text::{python_text, represent};
use super::strftime::strftime;
use super::{json, strings};

/// An environment with everything that a template may use.
///
/// # Errors
/// Those of minijinja.
pub(in crate::chat) fn environment() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_fuel(Some(FUEL));
    environment.set_formatter(|out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value| {
        let written = match value.as_str() {
            Some(text) => out.write_str(text),
            None => out.write_str(&python_text(state, value)?),
        };
        written.map_err(Error::from)
    });
    environment.set_unknown_method_callback(method);
    environment.add_function(
        "raise_exception",
        |state: &State<'_, '_>, message: &Value| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, python_text(state, message)?))
        },
    );
    environment.add_function("strftime_now", |format: &str| strftime(format));
    environment.add_filter("tojson", json::tojson);
    environment.add_filter("string", |state: &State<'_, '_>, value: &Value| python_text(state, value));
    environment.add_filter("pprint", |state: &State<'_, '_>, value: &Value| {
        let mut out = String::new();
        represent(state, value, 0, &mut out).map(|()| out)
    });
    environment.add_filter("trim", |state: &State<'_, '_>, value: &Value, chars: Option<&str>| {
        let text = python_text(state, value)?;
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
    environment.add_filter("sum", sum);
    environment.add_function("namespace", namespace);
    environment.add_function("dict", dict);
    // Jinja does not have it, and it writes the whole state.
    environment.remove_global("debug");
    environment.add_filter("int", int);
    // In minijinja none is iterable, but templates test `tools` before they count them.
    environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
    // As in Python: everything with a length and items, which includes maps and strings.
    environment.add_test("sequence", |value: &Value| value.is_undefined() || value.len().is_some());
    Ok(environment)
}

/// Jinja's filter `int`: a value that is not a number becomes `default`, or 0.
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

/// `namespace(name=value, ...)`, or `namespace(map)`.
fn namespace(state: &State<'_, '_>, parts: Option<ValueOrKwargs>) -> Result<Value, Error> {
    if let Some(parts) = &parts {
        owned(state, Value::clone(parts))?;
    }
    minijinja::functions::namespace(parts)
}

/// `dict(name=value, ...)`, or `dict(map, name=value, ...)`.
fn dict(state: &State<'_, '_>, parts: Option<Value>, others: Kwargs) -> Result<Value, Error> {
    pay_for(state, parts.as_ref().and_then(Value::len).unwrap_or(0), 2 * SLOT as usize)?;
    owned(state, minijinja::functions::dict(parts, others)?)
}

/// The filter `sum`, of numbers.
fn sum(
    state: &mut State<'_, '_>,
    values: &Value,
    attribute: Option<Value>,
    start: Option<Value>,
    options: Kwargs,
) -> Result<Value, Error> {
    let start = start.or(options.get("start")?).unwrap_or_else(|| 0.into());
    let attribute = attribute.or(options.get("attribute")?);
    options.assert_all_used()?;
    // minijinja would copy a text or list once per item.
    if start.kind() != ValueKind::Number {
        return Err(invalid("can only sum numbers"));
    }
    let attribute = attribute.as_ref().and_then(Value::as_str);
    let none = Kwargs::from_iter(std::iter::empty::<(String, Value)>());
    minijinja::filters::sum(state, values.clone(), attribute, Some(start), none)
}
