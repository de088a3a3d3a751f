//! JSON as Python's `json.dumps` writes it.

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

use super::fuel::MAX_DEPTH;

/// The filter `tojson` of transformers: `json.dumps(value, ensure_ascii=False)`, with Python's parameters.
pub(super) fn tojson(state: &State<'_, '_>, value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<Value> = options.get("indent")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    let mut writer = Writer {
        state,
        indent: match indent {
            Some(indent) if indent.is_none() => None,
            Some(indent) => Some(match indent.as_str() {
                Some(text) => text.chars().take(16).collect(),
                None => " ".repeat(usize::try_from(indent)?.min(16)),
            }),
            None => None,
        },
        ensure_ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        sort_keys: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        separators: (String::new(), String::new()),
        out: String::new(),
        paid: 0,
    };
    options.assert_all_used()?;
    let comma = if writer.indent.is_some() { "," } else { ", " };
    writer.separators = match separators.as_deref() {
        None => (comma.into(), ": ".into()),
        Some([comma, colon]) => (comma.clone(), colon.clone()),
        Some(_) => return Err(Error::new(ErrorKind::InvalidOperation, "tojson takes two separators")),
    };
    writer.write(value, 0)?;
    Ok(Value::from(writer.out))
}

struct Writer<'a> {
    state: &'a State<'a, 'a>,
    indent: Option<String>,
    ensure_ascii: bool,
    sort_keys: bool,
    /// After an item, and after a key.
    separators: (String, String),
    out: String,
    /// How many bytes of `out` are paid for with fuel.
    paid: usize,
}

impl Writer<'_> {
    fn write(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        let failed = |problem: String| Err(Error::new(ErrorKind::BadSerialization, problem));
        // A short list may contain the same list many times over.
        let unpaid = (self.out.len() - self.paid) as u64;
        self.paid = self.out.len();
        self.state.consume_fuel(1 + unpaid / 64)?;
        if depth > MAX_DEPTH {
            return failed("the value to write as JSON is nested too deeply".into());
        }
        match value.kind() {
            ValueKind::None => self.out += "null",
            ValueKind::Bool => self.out += if value.is_true() { "true" } else { "false" },
            ValueKind::Number => self.out += &number(value),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.sequence(['[', ']'], depth, &items, |writer, item| writer.write(item, depth + 1))?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort_keys {
                    keys.sort();
                }
                self.sequence(['{', '}'], depth, &keys, |writer, key| {
                    match key.kind() {
                        ValueKind::String => writer.string(key.as_str().unwrap_or_default()),
                        ValueKind::None => writer.out += "\"null\"",
                        ValueKind::Bool => writer.out += if key.is_true() { "\"true\"" } else { "\"false\"" },
                        ValueKind::Number => writer.out += &format!("\"{}\"", number(key)),
                        other => {
                            return Err(Error::new(ErrorKind::BadSerialization, format!("a key is {other}")));
                        }
                    }
                    writer.out += &writer.separators.1;
                    writer.write(&value.get_item(key)?, depth + 1)
                })?;
            }
            other => return failed(format!("{other} cannot be written as JSON")),
        }
        Ok(())
    }

    fn sequence(
        &mut self,
        [begin, end]: [char; 2],
        depth: usize,
        items: &[Value],
        mut write: impl FnMut(&mut Self, &Value) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.out.push(begin);
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                self.out += &self.separators.0;
            }
            self.line(depth + 1);
            write(self, item)?;
        }
        if !items.is_empty() {
            self.line(depth);
        }
        self.out.push(end);
        Ok(())
    }

    fn line(&mut self, depth: usize) {
        if let Some(indent) = &self.indent {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(indent.as_str(), depth));
        }
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out += "\\\"",
                '\\' => self.out += "\\\\",
                '\n' => self.out += "\\n",
                '\r' => self.out += "\\r",
                '\t' => self.out += "\\t",
                '\u{8}' => self.out += "\\b",
                '\u{c}' => self.out += "\\f",
                c if c < ' ' || self.ensure_ascii && !c.is_ascii() => {
                    let mut units = [0; 2];
                    self.out.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }
}

/// A number as Python writes it.
pub(super) fn number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    match f64::try_from(value.clone()) {
        Ok(x) if x.is_nan() => "NaN".into(),
        Ok(x) if x.is_infinite() => if x > 0.0 { "Infinity" } else { "-Infinity" }.into(),
        Ok(x) => float(x),
        Err(_) => value.to_string(),
    }
}

/// The shortest digits that parse to the same number, with an exponent where Python writes one.
fn float(x: f64) -> String {
    let scientific = format!("{x:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>() {
        Ok(exponent) if !(-4..16).contains(&exponent) => {
            format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
        }
        _ => format!("{x:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::float;

    #[test]
    fn floats_are_written_as_in_python() {
        for (x, written) in [
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (0.1, "0.1"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-2.5e-7, "-2.5e-07"),
        ] {
            assert_eq!(float(x), written);
        }
    }
}
