//! A virtual environment in the target folder with the packages of tests/scripts/requirements.txt.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::python;

/// The interpreter of the environment. The first call installs the packages from PyPI.
///
/// The folder's name holds a digest of the requirements, so changed requirements give a new environment. It
/// is made under another name and renamed, so concurrent and interrupted test runs leave none that is
/// incomplete.
pub fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let requirements = python::scripts().join("requirements.txt");
        let wanted = std::fs::read(&requirements).expect("requirements.txt");
        let stamp: String =
            Sha256::digest(&wanted).iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target folder");
        let folder = target.join(format!("clients-venv-{stamp}"));
        if !folder.exists() {
            let unfinished = target.join(format!("clients-venv-{stamp}.{}", std::process::id()));
            make(&unfinished, &requirements);
            if std::fs::rename(&unfinished, &folder).is_err() {
                assert!(folder.exists(), "cannot rename {} to {}", unfinished.display(), folder.display());
                // A concurrent run made it first.
                let _ = std::fs::remove_dir_all(&unfinished);
            }
        }
        interpreter(&folder)
    })
}

/// Runs a script of tests/scripts in the environment.
#[track_caller]
pub fn ask(script: &str, words: &[&OsStr], input: &[u8]) {
    python::run(python(), script, words, input);
}

/// Runs a script like [`ask`] that writes JSON to the file in place of the word "OUT". Returns the JSON.
#[track_caller]
pub fn answer(script: &str, words: &[&OsStr], input: &[u8]) -> Value {
    python::answer(python(), script, words, input)
}

fn interpreter(folder: &Path) -> PathBuf {
    folder.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" })
}

fn make(folder: &Path, requirements: &Path) {
    let python = if cfg!(windows) { "python" } else { "python3" };
    let _ = std::fs::remove_dir_all(folder);
    step(Command::new(python).args(["-m", "venv"]).arg(folder));
    let pip =
        ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:", "-r"];
    step(Command::new(interpreter(folder)).args(pip).arg(requirements));
}

fn step(command: &mut Command) {
    let need = "these tests run llama.cpp, gguf and onnxruntime from PyPI: they need Python 3.10 or newer as \
                python3, its venv module (Debian: apt install python3-venv), and a network for the first run; \
                without them, run `cargo test --release --workspace --lib --test main`";
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}\n{need}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}\n{need}", output.status);
}
