//! Transformers' `{% generation %}` blocks, in which a template marks the assistant's text.
//!
//! As in transformers, a block is a call with a body (`{% call %}`), so variables set within it are not
//! visible after it. On request, the call puts a mark before and after its body. The marks are noncharacters
//! of Unicode that the text does not contain, and are removed again.

use std::ops::Range;

use minijinja::value::{Kwargs, Value};
use minijinja::{Error, State};

/// The function that a block calls.
pub(super) const FUNCTION: &str = "_generation";
/// The variable that holds the marks; undefined if none are requested.
pub(super) const MARKS: &str = "_generation_marks";

/// The characters before and after a marked text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marks(char, char);

impl Marks {
    /// The value of the variable [`MARKS`].
    pub(super) fn value(self) -> Value {
        Value::from(String::from_iter([self.0, self.1]))
    }
}

/// The template with its generation blocks turned into calls, and whether it has any.
pub(super) fn as_calls(source: &str) -> (String, bool) {
    let mut out = String::with_capacity(source.len());
    let mut found = false;
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(end) = rest[start + 2..].find("%}").map(|end| start + 2 + end) else { break };
        let inside = &rest[start + 2..end];
        let word = inside.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        let instead = match word {
            "generation" => Some(format!("call {FUNCTION}()")),
            "endgeneration" => Some("endcall".into()),
            _ => None,
        };
        out.push_str(&rest[..start + 2]);
        match instead {
            Some(instead) => {
                found = true;
                out.push_str(&inside.replace(word, &instead));
            }
            None => out.push_str(inside),
        }
        out.push_str("%}");
        rest = &rest[end + 2..];
    }
    out.push_str(rest);
    (out, found)
}

/// The called function: returns its body, between the marks if there are any.
pub(super) fn mark(state: &mut State<'_, '_>, options: Kwargs) -> Result<Value, Error> {
    let caller: Value = options.get("caller")?;
    options.assert_all_used()?;
    let body = caller.call(state, &[])?;
    let marks = state.lookup(MARKS);
    let mut marks = marks.as_ref().and_then(Value::as_str).unwrap_or_default().chars();
    Ok(match (marks.next(), marks.next()) {
        (Some(begin), Some(end)) => Value::from(format!("{begin}{body}{end}")),
        _ => body,
    })
}

/// Marks that the text does not contain; `None` if it contains too many noncharacters.
pub(super) fn unused_marks(text: &str) -> Option<Marks> {
    let mut unused = ('\u{fdd0}'..='\u{fdef}').filter(|&c| !text.contains(c));
    Some(Marks(unused.next()?, unused.next()?))
}

/// The text without the marks, and the byte ranges that were between them; `None` if the marks are not in
/// pairs.
pub(super) fn remove_marks(text: &str, marks: Marks) -> Option<(String, Vec<Range<usize>>)> {
    let (mut plain, mut ranges, mut begun) = (String::with_capacity(text.len()), Vec::new(), None);
    for c in text.chars() {
        if c == marks.0 {
            if begun.replace(plain.len()).is_some() {
                return None;
            }
        } else if c == marks.1 {
            ranges.push(begun.take()?..plain.len());
        } else {
            plain.push(c);
        }
    }
    begun.is_none().then_some((plain, ranges))
}
