//! What the program says when it refuses.

use crate::support::program::Ran;

impl Ran {
    /// The one line of a refusal with status 1.
    #[track_caller]
    pub fn refusal(self) -> String {
        let line = self.stderr.strip_suffix('\n').unwrap_or(&self.stderr);
        let one = line.starts_with("error: ") && !line.contains('\n');
        assert!(one && self.status == Some(1), "curmerge {}\n{:?}: {}", self.words, self.status, self.stderr);
        line.to_string()
    }
}
