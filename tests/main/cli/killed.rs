//! Every command that writes, in every form of output, killed and asked to end at many moments: what was there
//! before stays, or the whole new output is there. `CURMERGE_KILLS` sets the number of moments.
//! tests/main/merge/kill.rs has merges.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use super::{folder, small_adapter};
use crate::support::fixture::demo;
use crate::support::folder::names;
use crate::support::program::program;

/// The number of moments at which a command is ended, spread over the time that it takes.
fn moments() -> u32 {
    std::env::var("CURMERGE_KILLS").map_or(3, |number| number.parse().unwrap())
}

/// A command and what it writes.
struct Case {
    words: Vec<OsString>,
    /// Files and folders. The last is the one that was asked for.
    outputs: Vec<PathBuf>,
    is_folder: bool,
}

impl Case {
    fn command(&self) -> Command {
        let mut command = program();
        command.args(&self.words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Every file of the outputs with its bytes.
    fn snapshot(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        self.outputs.iter().for_each(|path| collect(path, &mut found));
        found
    }

    /// Removes the outputs. If `old`, others stand in their place.
    fn prepare(&self, old: bool) {
        for path in &self.outputs {
            if path.is_dir() {
                fs::remove_dir_all(path).unwrap();
            } else if path.exists() {
                fs::remove_file(path).unwrap();
            }
            match (old, self.is_folder) {
                (false, _) => {}
                (true, false) => fs::write(path, "old").unwrap(),
                (true, true) => {
                    fs::create_dir(path).unwrap();
                    fs::write(path.join("old.safetensors"), "old").unwrap();
                }
            }
        }
    }
}

fn collect(path: &Path, found: &mut Vec<(PathBuf, Vec<u8>)>) {
    if path.is_dir() {
        names(path).iter().for_each(|name| collect(&path.join(name), found));
    } else if let Ok(bytes) = fs::read(path) {
        found.push((path.into(), bytes));
    }
}

/// Every command that writes, in every form.
fn cases(folder: &Path) -> Vec<Case> {
    let at = |name: &str| folder.join(name);
    let (model, data) = (demo("model.gguf"), demo("train.jsonl"));
    let (adapter, hf) = (at("adapter.st"), at("hf"));
    small_adapter(&adapter);
    curmerge!("convert", model, hf).done();
    let case = |first: &[&OsStr], out: &str, more: &str| {
        let is_folder = !out.contains('.');
        let mut words: Vec<OsString> = first.iter().map(Into::into).collect();
        words.extend(more.split_whitespace().map(OsString::from));
        if is_folder {
            words.push("--force".into());
        }
        let beside = more.contains("--external-data").then(|| at(&format!("{out}_data")));
        Case { words, outputs: beside.into_iter().chain([at(out)]).collect(), is_folder }
    };
    let mut cases = Vec::new();
    let [model, data, adapter, hf] = [&model, &data, &adapter, &hf].map(|path| path.as_os_str());
    let word = OsStr::new;
    for (from, out, more) in [
        (model, "out.gguf", "--type q8_0"),
        (hf, "from-hf.gguf", "--type q4_k_m"),
        (model, "out-hf", "--max-shard-size 100K"),
        (model, "out.onnx", "--external-data"),
        (model, "out-onnx", "--format onnx --genai"),
    ] {
        cases.push(case(&[word("convert"), from, at(out).as_os_str()], out, more));
    }
    for (out, format) in [("lora.gguf", "gguf"), ("peft", "peft"), ("ollama", "ollama")] {
        let path = at(out);
        let words = [word("export"), adapter, word("--base"), model, word("-o"), path.as_os_str()];
        cases.push(case(&words, out, &format!("--format {format}")));
    }
    let path = at("selected.st");
    cases.push(case(&[word("select"), model, word("-o"), path.as_os_str()], "selected.st", "--rank 4"));
    for (out, method) in [("built.st", ""), ("built.gguf", "--method lora"), ("built", "--method lora")] {
        let path = at(out);
        let words = [word("build"), model, word("--data"), data, word("-o"), path.as_os_str()];
        let more = format!(
            "{method} --targets q --rank 2 --max-steps 3 --batch-size 2 --protect none --anchor none"
        );
        cases.push(case(&words, out, &more));
    }
    cases
}

#[cfg(unix)]
#[test]
fn every_command_that_writes_loses_nothing() {
    let folder = folder();
    let moments = moments();
    let hidden = || names(folder.path()).into_iter().filter(|name| name.starts_with('.')).count();
    for case in cases(folder.path()) {
        case.prepare(false);
        let start = Instant::now();
        assert!(case.command().status().unwrap().success(), "{:?}", case.words);
        let whole_run = start.elapsed();
        let complete = case.snapshot();
        assert!(!complete.is_empty(), "{:?}", case.words);
        let trains = case.words[0] == "build";
        for number in 0..4 * moments {
            let (moment, old, signal) =
                (number / 4, number % 2 == 1, ["KILL", "TERM"][number as usize / 2 % 2]);
            case.prepare(old);
            // A killed run before this one leaves some until the output is begun again.
            let (before, left_behind) = (case.snapshot(), hidden());
            let mut child = case.command().spawn().unwrap();
            std::thread::sleep(whole_run * moment / moments);
            let sent = Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status();
            assert!(sent.unwrap().success());
            let status = child.wait().unwrap();
            // The next command finishes what was begun.
            let looked = program().arg("inspect").args(case.outputs.last()).output().unwrap();
            let left = case.snapshot();
            // A training that is asked to end writes what it has learnt.
            let partly_trained =
                trains && signal == "TERM" && status.code() == Some(130) && looked.status.success();
            let place =
                format!("{:?} old {old}, {signal} at {moment}/{moments} of {whole_run:?}", case.words);
            assert!(left == before || left == complete || partly_trained, "{place}");
            assert!(signal == "KILL" || hidden() <= left_behind, "{place}: hidden files");
        }
        // What killed runs left does not stay.
        case.prepare(false);
        assert!(case.command().status().unwrap().success(), "{:?}", case.words);
        assert!(case.snapshot() == complete && hidden() == 0, "{:?}", case.words);
    }
}
