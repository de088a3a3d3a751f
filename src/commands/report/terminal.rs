//! Text and JSON on standard output, warnings on standard error.
//!
//! A reader that closes the pipe (`| head`) is no error: further output is dropped, and the command finishes
//! its files.

use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use curmerge_formats::mmap::mapped_unchanged;
use serde_json::Value;

use crate::{Error, Result};

/// Prints a text. Fails if a mapped file has changed, which it may come from, and if standard output cannot be written, but not if its reader has closed it.
pub fn print(text: &str) -> Result<()> {
    // No result of a model that another program has changed.
    mapped_unchanged()?;
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => {
            CLOSED.store(true, Ordering::Relaxed);
            Ok(())
        }
        Err(e) => Err(Error::io("standard output", "write", e)),
        Ok(()) => Ok(()),
    }
}

static CLOSED: AtomicBool = AtomicBool::new(false);

/// Whether the reader of standard output is known to have closed it.
pub fn is_closed() -> bool {
    CLOSED.load(Ordering::Relaxed)
}

/// Prints what a model wrote. On a terminal its control characters are escaped, except line breaks and tabs,
/// since a model can write whatever moves the cursor or sets the clipboard. A pipe gets the bytes.
pub fn print_written(text: &str) -> Result<()> {
    match std::io::stdout().is_terminal() {
        true => print(&written(text)),
        false => print(text),
    }
}

/// [`plain`], but with line breaks and tabs.
fn written(text: &str) -> String {
    let keep = |c| c == '\n' || c == '\t';
    text.split_inclusive(keep)
        .map(|part| match part.chars().last().filter(|&last| keep(last)) {
            Some(last) => plain(&part[..part.len() - 1]) + last.encode_utf8(&mut [0; 4]),
            None => plain(part),
        })
        .collect()
}

/// Prints indented JSON and a line break.
pub fn print_json(value: &Value) -> Result<()> {
    print(&format!("{value:#}\n"))
}

/// Prints one line to standard error, after `warning: `.
pub fn warn(text: &str) {
    // If standard error is closed, there is nowhere to report it.
    let _ = writeln!(std::io::stderr(), "warning: {}", plain(text));
}

/// A text out of a file, safe for a terminal: control characters, and those that change the writing
/// direction, are escaped. So a hostile name can neither move the cursor nor look like another.
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

/// At most `limit` characters of a text, as [`plain`] gives them, then `...` if it is longer.
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
        assert_eq!(written("a\tb\n\u{1b}]52;c\u{7}\n\r"), "a\tb\n\\u{1b}]52;c\\u{7}\n\\r");
        assert_eq!(shortened("模型模型", 2), "模型...");
        assert_eq!(shortened("\u{7}", 1), "\\u{7}");
    }
}
