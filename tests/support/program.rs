//! The built program, run as a user runs it.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

use serde_json::Value;

/// What a run left behind.
#[derive(Debug)]
pub struct Ran {
    /// The exit status; `None` when a signal ended it.
    pub status: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// The words it was called with, for messages.
    pub words: String,
}

impl Ran {
    /// A run that must have succeeded.
    #[track_caller]
    pub fn done(self) -> Self {
        assert_eq!(self.status, Some(0), "curmerge {}\n{}", self.words, self.stderr);
        self
    }

    /// The JSON that a run must have printed.
    #[track_caller]
    pub fn json(self) -> Value {
        let ran = self.done();
        serde_json::from_str(&ran.stdout)
            .unwrap_or_else(|e| panic!("curmerge {}: {e}: {}", ran.words, ran.stdout))
    }
}

/// The program, to be given its words.
pub fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_curmerge"))
}

/// Run the program to its end.
pub fn run(words: &[&OsStr]) -> Ran {
    let output = program().args(words).stdin(Stdio::null()).output().expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let words: Vec<_> = words.iter().map(|w| w.to_string_lossy()).collect();
    Ran {
        status: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
        words: words.join(" "),
    }
}

/// `curmerge!("eval", path, "--json")`: run the program with these words to its end.
macro_rules! curmerge {
    ($($word:expr),+ $(,)?) => {
        $crate::support::program::run(&[$(std::ffi::OsStr::new(&$word)),+])
    };
}
