//! Methods of Python's strings that minijinja-contrib lacks, or implements differently.

use minijinja::value::{Kwargs, Tuple, Value, from_args};
use minijinja::{Error, ErrorKind, State};

use super::fuel::{pay, pay_for};

/// The result of a string's method; `None` for methods that this file does not implement.
///
/// # Errors
/// If the arguments are wrong, or there is not enough fuel.
pub(super) fn method(
    state: &State<'_, '_>,
    text: &str,
    name: &str,
    arguments: &[Value],
) -> Result<Option<Value>, Error> {
    let bad = |problem: &'static str| Err(Error::new(ErrorKind::InvalidOperation, problem));
    Ok(Some(match name {
        "strip" | "lstrip" | "rstrip" => {
            let (chars,): (Option<&str>,) = from_args(arguments)?;
            pay_to_strip(state, text, chars)?;
            strip(text, chars, name != "rstrip", name != "lstrip").into()
        }
        "split" | "rsplit" => {
            let (separator, limit, options): (Option<&str>, Option<i64>, Kwargs) = from_args(arguments)?;
            let separator = separator.or(options.get("sep")?);
            let limit = limit.or(options.get("maxsplit")?).and_then(|limit| usize::try_from(limit).ok());
            options.assert_all_used()?;
            if separator == Some("") {
                return bad("empty separator");
            }
            split(state, text, separator, limit.unwrap_or(usize::MAX), name == "rsplit")?
        }
        "splitlines" => {
            let (keep, options): (Option<bool>, Kwargs) = from_args(arguments)?;
            let keep = keep.or(options.get("keepends")?).unwrap_or(false);
            options.assert_all_used()?;
            lines(state, text, keep)?
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(arguments)?;
            let last = name == "rpartition";
            let parts = if last { text.rsplit_once(separator) } else { text.split_once(separator) };
            let parts = match parts {
                Some((before, after)) => [before, separator, after],
                None if last => ["", "", text],
                None => [text, "", ""],
            };
            Value::from(Tuple::from(parts.map(Value::from)))
        }
        "removeprefix" | "removesuffix" => {
            let (part,): (&str,) = from_args(arguments)?;
            let rest = if name == "removeprefix" { text.strip_prefix(part) } else { text.strip_suffix(part) };
            rest.unwrap_or(text).into()
        }
        "index" => {
            let (part,): (&str,) = from_args(arguments)?;
            match text.find(part) {
                Some(at) => text[..at].chars().count().into(),
                None => return bad("substring not found"),
            }
        }
        // A width in the format may be arbitrarily large, and a value may occur many times.
        "format" => {
            let wide = text.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
            let wide =
                wide.fold(0, |sum: usize, digits| sum.saturating_add(digits.parse().unwrap_or(usize::MAX)));
            pay_for(state, wide, 1)?;
            let within = text.split('}').any(|field| field.replace("{{", "").matches('{').count() > 1);
            if within {
                return bad("a format within a format is not supported");
            }
            for _ in text.matches('{') {
                pay(state, arguments)?;
            }
            return Ok(None);
        }
        "join" => {
            if let [values] = arguments {
                pay_for(state, values.len().unwrap_or(0), 32 + text.len())?;
            }
            return Ok(None);
        }
        "title" => {
            let () = from_args(arguments)?;
            title(text).into()
        }
        "ljust" | "rjust" | "center" | "zfill" => {
            let (width, fill): (usize, Option<&str>) = from_args(arguments)?;
            let missing = width.saturating_sub(text.chars().count());
            state.consume_fuel(missing as u64 / 16)?;
            let before = match name {
                "ljust" => 0,
                "center" => missing / 2 + (missing & width & 1),
                _ => missing,
            };
            let fill = fill.unwrap_or(if name == "zfill" { "0" } else { " " });
            let (sign, text) = match text.strip_prefix(['-', '+']) {
                Some(rest) if name == "zfill" => text.split_at(text.len() - rest.len()),
                _ => ("", text),
            };
            format!("{sign}{}{text}{}", fill.repeat(before), fill.repeat(missing - before)).into()
        }
        _ => return Ok(None),
    }))
}

/// Pays for the parts of a text before they are made: each is a value of its own, of a few machine words.
fn pay_for_parts(state: &State<'_, '_>, count: usize) -> Result<(), Error> {
    pay_for(state, count, 64)
}

/// Pays for [`strip`], which looks up each character at the ends in `chars`.
///
/// # Errors
/// If there is not enough fuel.
pub(super) fn pay_to_strip(state: &State<'_, '_>, text: &str, chars: Option<&str>) -> Result<(), Error> {
    pay_for(state, text.len(), chars.map_or(0, str::len) / 16)
}

/// Whether Python counts a character as white space; it includes the separators of ASCII.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// The text without the characters of `chars` at its ends; without `chars`, without white space there.
pub(super) fn strip<'a>(text: &'a str, chars: Option<&str>, left: bool, right: bool) -> &'a str {
    let taken = |c: char| chars.map_or_else(|| is_space(c), |chars| chars.contains(c));
    let text = if left { text.trim_start_matches(taken) } else { text };
    if right { text.trim_end_matches(taken) } else { text }
}

/// Python's `split` or `rsplit`.
///
/// # Errors
/// If there is not enough fuel.
pub(super) fn split(
    state: &State<'_, '_>,
    text: &str,
    separator: Option<&str>,
    limit: usize,
    from_right: bool,
) -> Result<Value, Error> {
    let Some(separator) = separator else {
        pay_for_parts(state, text.split_whitespace().take(limit).count())?;
        return Ok(words(text, limit, from_right).into_iter().collect());
    };
    pay_for_parts(state, text.matches(separator).take(limit).count())?;
    let count = limit.saturating_add(1);
    if !from_right {
        return Ok(text.splitn(count, separator).collect());
    }
    let mut parts: Vec<&str> = text.rsplitn(count, separator).collect();
    parts.reverse();
    Ok(parts.into_iter().collect())
}

/// The words between white space: at most `limit` from one end. The rest is one part, with the white space at
/// its far end.
fn words(text: &str, limit: usize, from_right: bool) -> Vec<&str> {
    let mut parts: Vec<&str> = Vec::new();
    let near = |text| strip(text, None, !from_right, from_right);
    let mut rest = near(text);
    while !rest.is_empty() {
        let found = if from_right { rest.rfind(is_space) } else { rest.find(is_space) };
        let Some(at) = found.filter(|_| parts.len() < limit) else {
            parts.push(rest);
            break;
        };
        let (left, right) = rest.split_at(at);
        let (word, others) = if from_right { (strip(right, None, true, false), left) } else { (left, right) };
        parts.push(word);
        rest = near(others);
    }
    if from_right {
        parts.reverse();
    }
    parts
}

/// Python's `splitlines`.
///
/// # Errors
/// If there is not enough fuel.
pub(super) fn lines(state: &State<'_, '_>, text: &str, keep: bool) -> Result<Value, Error> {
    let ends = |c: char| {
        matches!(
            c,
            '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}'
        )
    };
    pay_for_parts(state, text.matches(ends).count())?;
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(ends) {
        let end = &rest[at..];
        let width = if end.starts_with("\r\n") { 2 } else { end.chars().next().map_or(0, char::len_utf8) };
        found.push(&rest[..if keep { at + width } else { at }]);
        rest = &rest[at + width..];
    }
    found.extend(Some(rest).filter(|rest| !rest.is_empty()));
    Ok(found.into_iter().collect())
}

fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut within = false;
    for c in text.chars() {
        if within {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
        within = c.is_alphabetic();
    }
    out
}

/// Python's `repr` of a string.
pub(super) fn represent(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => *out += "\\\\",
            '\n' => *out += "\\n",
            '\r' => *out += "\\r",
            '\t' => *out += "\\t",
            c if c == quote => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            c if is_printable(c) => out.push(c),
            c => {
                let code = u32::from(c);
                *out += &match code {
                    0..0x100 => format!("\\x{code:02x}"),
                    0x100..0x10000 => format!("\\u{code:04x}"),
                    _ => format!("\\U{code:08x}"),
                };
            }
        }
    }
    out.push(quote);
}

/// Whether Python prints a character as it is. Rust's debug format escapes the same characters, except at the
/// start of a string.
fn is_printable(c: char) -> bool {
    !format!("{:?}", String::from_iter(['a', c])).contains('\\')
}
