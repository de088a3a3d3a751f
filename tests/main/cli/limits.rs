//! What the system or the command line limits: descriptors, the length of a file, threads, contexts, and what
//! may be replaced.

use std::ffi::OsStr;
use std::fs;
#[cfg(unix)]
use std::process::Command;

use super::folder;
#[cfg(unix)]
use super::small_adapter;
use crate::support::fixture::demo;
use crate::support::folder::names;
#[cfg(unix)]
use crate::support::program::Ran;
use crate::support::program::{finish, program};

/// Runs the program with a limit that `ulimit` sets.
#[cfg(unix)]
fn with_limit(limit: &str, words: &[&OsStr]) -> Ran {
    let mut command = Command::new("sh");
    let line = format!("ulimit {limit}; exec \"$0\" \"$@\"");
    command.args(["-c", &line, env!("CARGO_BIN_EXE_curmerge")]);
    finish(command, words)
}

#[cfg(unix)]
#[test]
fn a_model_of_more_shards_than_descriptors_is_read_and_written() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let (model, adapter) = (demo("model.gguf"), at("demo.st"));
    let (shards, merged) = (at("shards"), at("merged"));
    let words = ["convert".as_ref(), model.as_os_str(), shards.as_os_str()];
    let words: Vec<&OsStr> = words.into_iter().chain(["--max-shard-size", "1K"].map(OsStr::new)).collect();
    with_limit("-n 20", &words).done();
    assert!(names(&shards).len() > 24, "the test shows little");
    with_limit("-n 20", &["inspect".as_ref(), shards.as_os_str()]).done();
    small_adapter(&adapter);
    let words =
        ["merge".as_ref(), shards.as_os_str(), adapter.as_os_str(), "-o".as_ref(), merged.as_os_str()];
    let words: Vec<&OsStr> = words.into_iter().chain(["--allow-other-base"].map(OsStr::new)).collect();
    with_limit("-n 20", &words).done();
    let splits = at("splits");
    let words = ["merge".as_ref(), model.as_os_str(), adapter.as_os_str(), "-o".as_ref(), splits.as_os_str()];
    let words: Vec<&OsStr> = words.into_iter().chain(["--max-shard-size", "1K"].map(OsStr::new)).collect();
    with_limit("-n 20", &words).done();
    let first = splits.join(&names(&splits)[0]);
    assert!(names(&splits).len() > 24);
    with_limit("-n 20", &["inspect".as_ref(), first.as_os_str()]).done();
    // What is written can be merged once more.
    let again = at("again.gguf");
    let words = ["merge".as_ref(), first.as_os_str(), adapter.as_os_str(), "-o".as_ref(), again.as_os_str()];
    let words: Vec<&OsStr> = words.into_iter().chain(["--allow-other-base"].map(OsStr::new)).collect();
    with_limit("-n 20", &words).done();
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_beyond_its_limit_is_an_error_and_leaves_nothing() {
    let folder = folder();
    let out = folder.path().join("out.gguf");
    fs::write(&out, "old").unwrap();
    let model = demo("model.gguf");
    let words = ["convert".as_ref(), model.as_os_str(), out.as_os_str(), "--type".as_ref(), "f32".as_ref()];
    let line = with_limit("-f 100", &words).refusal();
    assert!(line.contains("out.gguf: cannot write: File too large"), "{line}");
    assert_eq!(names(folder.path()), ["out.gguf"]);
    assert_eq!(fs::read(&out).unwrap(), b"old");
}

#[test]
fn force_replaces_only_outputs() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let (model, thesis) = (demo("model.gguf"), at("thesis"));
    fs::create_dir(&thesis).unwrap();
    fs::write(thesis.join("thesis.tex"), "years").unwrap();
    let line = curmerge!("convert", model, thesis, "--force").refusal();
    assert!(line.contains("thesis: ") && line.contains("did not write"), "{line}");
    assert_eq!(names(&thesis), ["thesis.tex"]);
    for out in [".", "..", "../thesis"] {
        let mut here = program();
        here.current_dir(&thesis);
        let words = ["convert".as_ref(), model.as_os_str(), out.as_ref(), "--force".as_ref()];
        finish(here, &words).refusal();
        assert_eq!(names(&thesis), ["thesis.tex"], "{out}");
    }
    let mut at_home = program();
    fs::write(thesis.join("model.safetensors"), "").unwrap();
    at_home.env("HOME", &thesis);
    let words = ["convert".as_ref(), model.as_os_str(), thesis.as_os_str(), "--force".as_ref()];
    #[cfg(unix)]
    assert!(finish(at_home, &words).refusal().contains("home folder"));
    // An earlier output is replaced.
    curmerge!("convert", model, at("made")).done();
    curmerge!("convert", model, at("made")).refusal();
    curmerge!("convert", model, at("made"), "--force").done();
    // A file that is no log is not replaced by one.
    fs::write(at("notes"), "mine\n").unwrap();
    let (data, notes) = (demo("train.jsonl"), at("notes"));
    let line = curmerge!("build", model, "--data", data, "-o", at("a.st"), "--metrics", notes).refusal();
    assert!(line.contains("notes:1: "), "{line}");
    assert_eq!(fs::read(&notes).unwrap(), b"mine\n");
}

#[test]
fn a_new_run_beside_a_checkpoint_says_so() {
    let folder = folder();
    let adapter = folder.path().join("adapter.st");
    fs::write(folder.path().join("adapter.st.checkpoint"), "of an earlier run").unwrap();
    let (model, data) = (demo("model.gguf"), demo("train.jsonl"));
    let words = ["build".as_ref(), model.as_os_str(), "--data".as_ref(), data.as_os_str()];
    let quick =
        ["--protect", "none", "--anchor", "none", "--targets", "q", "--rank", "2", "--max-steps", "1"];
    let mut command = program();
    command.args(words).args(quick).arg("-o");
    let ran = finish(command, &[adapter.as_os_str()]).done();
    assert!(ran.stderr.contains("an unfinished run left this checkpoint"), "{}", ran.stderr);
}

#[test]
fn odd_numbers_of_threads_and_long_contexts_are_said() {
    let model = demo("model.gguf");
    let inspect = ["inspect".as_ref(), model.as_os_str()];
    for (number, works) in [("1000000", false), ("many", false), ("-1", false), ("2", true), ("0", true)] {
        let mut command = program();
        command.env("RAYON_NUM_THREADS", number);
        let ran = finish(command, &inspect);
        match works {
            true => drop(ran.done()),
            false => assert!(ran.refusal().contains("RAYON_NUM_THREADS"), "{number}"),
        }
    }
    let context = curmerge!("inspect", model, "--json").json();
    let text = demo("text.txt");
    let ran = curmerge!("eval", model, "--perplexity", text, "--ctx", "4096", "--chunks", "1");
    assert!(ran.stderr.contains("more than the model's context"), "{context}: {}", ran.stderr);
}
