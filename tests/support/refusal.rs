//! The message with which the program refuses.

use crate::support::program::Ran;

impl Ran {
    /// Checks that the run was refused: one line that starts with "error: ", and status 1. Returns the line.
    #[track_caller]
    pub fn refusal(self) -> String {
        let line = self.stderr.strip_suffix('\n').unwrap_or(&self.stderr);
        let one = line.starts_with("error: ") && !line.contains('\n');
        assert!(one && self.status == Some(1), "curmerge {}\n{:?}: {}", self.words, self.status, self.stderr);
        line.to_string()
    }
}
