//! Panics of libraries that read what comes from the internet, caught and turned into errors.
//!
//! What is known to make them panic is refused before they see it. This is for the rest.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    /// Whether this thread runs work whose panics are caught.
    static CATCHES: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` of the library with this name. A panic is not printed, but returned as an error of one line.
///
/// The process's panic hook is wrapped once, so that panics elsewhere print as before.
pub(crate) fn caught<T>(library: &str, work: impl FnOnce() -> T) -> Result<T, String> {
    static WRAPPED: Once = Once::new();
    WRAPPED.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !CATCHES.get() {
                before(info);
            }
        }));
    });
    let outer = CATCHES.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    CATCHES.set(outer);
    result.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
        format!("the {library} library fails on it ({})", crate::error::shortened(text, 120))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_of_one_line() {
        assert_eq!(caught("test", || 3), Ok(3));
        let error = caught("test", || panic!("two\nlines {}", 2)).unwrap_err();
        assert!(error.contains("two\\nlines 2") && !error.contains('\n'), "{error}");
        assert!(!CATCHES.get());
    }
}
