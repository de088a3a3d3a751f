//! Text and JSON on standard output, warnings on standard error.
//!
//! A reader that closes the pipe (`| head`) has seen enough: further output is dropped without an error, and
//! the command finishes its files.

use std::io::{ErrorKind, Write};

use serde_json::Value;

use crate::{Error, Result};

/// Print text as it is. Fails when standard output cannot be written, but not when its reader has gone.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Error::io("standard output", "write", e)),
        _ => Ok(()),
    }
}

/// Print indented JSON and a line's end.
pub fn print_json(value: &Value) -> Result<()> {
    print(&format!("{value:#}\n"))
}

/// Print one line to standard error after `warning: `.
pub fn warn(text: &str) {
    // A closed standard error leaves nowhere to say so.
    let _ = writeln!(std::io::stderr(), "warning: {}", plain(text));
}

/// Text out of a file as a terminal may show it: control characters and those that turn the writing direction
/// are escaped, so that a hostile name can neither move the cursor nor pose as another.
pub fn plain(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || turns || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// At most `limit` characters of [`plain`] text, with `...` where more was cut.
pub fn shortened(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        Some((cut, _)) => plain(&text[..cut]) + "...",
        None => plain(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_cannot_reach_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\r\n\u{202e}c\u{9b}"), "a\\u{1b}[2Jb\\r\\n\\u{202e}c\\u{9b}");
        assert_eq!(plain("größe 模型"), "größe 模型");
        assert_eq!(shortened("模型模型", 2), "模型...");
        assert_eq!(shortened("\u{7}", 1), "\\u{7}");
    }
}
