//! The message with which the program refuses.

use crate::support::program::Ran;

impl Ran {
    /// Checks that the run was refused: one line that starts with "error: ", perhaps after warnings, and
    /// status 1. Returns the line.
    #[track_caller]
    pub fn refusal(self) -> String {
        let lines: Vec<&str> = self.stderr.lines().collect();
        let (line, before) = lines.split_last().map_or(("", &[][..]), |(line, before)| (*line, before));
        let one = line.starts_with("error: ") && before.iter().all(|line| line.starts_with("warning: "));
        assert!(one && self.status == Some(1), "curmerge {}\n{:?}: {}", self.words, self.status, self.stderr);
        line.to_string()
    }
}
