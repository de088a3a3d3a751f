//! Runs the scripts of tests/scripts, which ask other people's programs.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// Runs a script of tests/scripts with the interpreter `python`, with `input` on standard input. Returns what
/// it prints.
#[track_caller]
pub fn run(python: &Path, script: &str, words: &[&OsStr], input: &[u8]) -> String {
    let path = scripts().join(script);
    let mut child = Command::new(python)
        .arg(path)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{} does not start: {e}", python.display()));
    // Ignored: a script that fails before it reads its input reports that on standard error.
    let _ = child.stdin.take().expect("a pipe").write_all(input);
    let output = child.wait_with_output().expect("the script ends");
    let text = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    };
    assert!(
        output.status.success(),
        "{script} failed: {}\n{}\n{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("the script prints UTF-8")
}

/// Runs a script like [`run`] that writes JSON to the file in place of the word "OUT". Returns the JSON.
#[track_caller]
pub fn answer(python: &Path, script: &str, words: &[&OsStr], input: &[u8]) -> Value {
    let out = tempfile::NamedTempFile::new().unwrap();
    let words: Vec<&OsStr> =
        words.iter().map(|word| if *word == "OUT" { out.path().as_os_str() } else { word }).collect();
    run(python, script, &words, input);
    serde_json::from_slice(&std::fs::read(out.path()).unwrap()).unwrap()
}

/// The folder of the scripts.
pub fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts")
}
