//! The built program, run as a user runs it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::UNIX_EPOCH;

use serde_json::Value;

/// The outcome of a run.
#[derive(Debug)]
pub struct Ran {
    /// The exit status; `None` if a signal ended the run.
    pub status: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// The arguments, for messages.
    pub words: String,
}

impl Ran {
    /// Checks that the run succeeded.
    #[track_caller]
    pub fn done(self) -> Self {
        assert_eq!(self.status, Some(0), "curmerge {}\n{}", self.words, self.stderr);
        self
    }

    /// Checks that the run succeeded. Returns the JSON that it printed.
    #[track_caller]
    pub fn json(self) -> Value {
        let ran = self.done();
        serde_json::from_str(&ran.stdout)
            .unwrap_or_else(|e| panic!("curmerge {}: {e}: {}", ran.words, ran.stdout))
    }
}

/// The program, without arguments. Its cache is not the user's; see [`cache`].
pub fn program() -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_curmerge"));
    program.env("CURMERGE_CACHE", cache());
    program
}

/// The cache that the tests share, since every build makes the same texts of the same small models. One
/// program's cache is not read by the next, which may write other texts.
fn cache() -> &'static Path {
    static CACHE: OnceLock<PathBuf> = OnceLock::new();
    CACHE.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let built = std::fs::metadata(env!("CARGO_BIN_EXE_curmerge")).unwrap().modified().unwrap();
        let name = format!("cache-{}", built.duration_since(UNIX_EPOCH).unwrap().as_nanos());
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let other = entry.file_name().into_string().unwrap_or_default();
            if other.starts_with("cache-") && other != name {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
        folder.join(name)
    })
}

/// Runs the program with these arguments until it ends.
pub fn run(words: &[&OsStr]) -> Ran {
    finish(program(), words)
}

/// [`run`], of a program that [`program`] made.
pub fn finish(mut program: Command, words: &[&OsStr]) -> Ran {
    let output = program.args(words).stdin(Stdio::null()).output().expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let words: Vec<_> = words.iter().map(|w| w.to_string_lossy()).collect();
    Ran {
        status: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
        words: words.join(" "),
    }
}

/// Sends SIGINT to a process, as Ctrl+C does.
#[cfg(unix)]
#[track_caller]
pub fn interrupt(child: &Child) {
    let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(status.unwrap().success(), "cannot interrupt the process");
}

/// Runs the program with these arguments until it ends: `curmerge!("eval", path, "--json")`.
macro_rules! curmerge {
    ($($word:expr),+ $(,)?) => {
        $crate::support::program::run(&[$(std::ffi::OsStr::new(&$word)),+])
    };
}
