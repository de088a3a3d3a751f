//! `--select signal`, of `build` and `select`.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

use curmerge_formats::adapter::Adapter;

use super::folder;
use crate::support::fixture::demo;
use crate::support::program::{Ran, finish, program};

const FEW: [&str; 6] = ["--targets", "q,blk.1.ffn_down", "--rank", "5", "--anchor-texts", "8"];

fn command(program: Command, command: &str, out: &Path, words: &[&str]) -> Ran {
    let [base, data] = ["model.gguf", "train.jsonl"].map(|name| demo(name).to_str().unwrap().to_owned());
    let fixed = [command, &base, "--data", &data, "-o", out.to_str().unwrap(), "--select", "signal"];
    finish(program, &fixed.iter().chain(&FEW).chain(words).map(OsStr::new).collect::<Vec<_>>())
}

#[test]
fn a_selection_depends_on_neither_threads_nor_cache() {
    let folder = folder();
    let (out, cache) = (folder.path().join("adapter"), folder.path().join("cache"));
    let selected = |words: &[&str], cached: bool| {
        let mut program = program();
        if cached {
            program.env("CURMERGE_CACHE", &cache);
        }
        let ran = command(program, "select", &out, words).done();
        let others = ran.stderr.lines().filter(|line| !line.contains("was replaced")).count();
        assert_eq!(others, 0, "{}", ran.stderr);
        fs::read(&out).unwrap()
    };
    let one = selected(&["--threads", "1"], false);
    for threads in ["2", "4"] {
        assert!(one == selected(&["--threads", threads], false), "{threads} threads");
    }
    for _ in 0..2 {
        assert!(one == selected(&[], true), "with a cache");
    }
    let mut kinds: Vec<_> = fs::read_dir(&cache)
        .unwrap()
        .map(|file| file.unwrap().file_name().to_str().unwrap().split('-').next().unwrap().to_owned())
        .collect();
    kinds.sort();
    assert_eq!(kinds, ["anchor", "noise", "signal"]);
    assert_eq!(Adapter::read(&out).unwrap().selection, "signal");
    assert!(one != selected(&["--seed", "1"], false), "another seed writes other texts");
}

#[test]
fn a_run_selects_as_select_does() {
    let folder = folder();
    let out = |name: &str| folder.path().join(name);
    command(program(), "select", &out("selected.st"), &[]).done();
    let train = ["--protect", "fisher", "--max-steps", "4", "--lr", "0.01", "--no-hold-out"];
    command(program(), "build", &out("built.st"), &train).done();
    let [selected, built] = ["selected.st", "built.st"].map(|name| Adapter::read(out(name)).unwrap());
    for (a, b) in selected.targets.iter().zip(&built.targets) {
        assert!(a.cols == b.cols && a.rows == b.rows && b.u.iter().any(|&u| u != 0.0), "{}", a.name);
    }
    assert_eq!(built.selection, "signal");
}

#[test]
fn what_a_selection_lacks_is_named() {
    let folder = folder();
    let out = folder.path().join("adapter");
    let base = demo("model.gguf");
    let line = curmerge!("select", base, "-o", out, "--select", "signal").refusal();
    assert!(line.contains("--data"), "{line}");
    for words in [["--select", "uniform"], ["--anchor", "none"]] {
        let [option, value] = words;
        let line =
            curmerge!("select", base, "-o", out, "--data", demo("train.jsonl"), option, value).refusal();
        assert!(line.contains("--select signal"), "{line}");
    }
    let [base, data] = [base, demo("train.jsonl")];
    let line = curmerge!("select", base, "-o", out, "--data", data, "--select", "signal", "--rank", "5000")
        .refusal();
    assert!(line.contains("fewer than rank 5000") && line.contains("blk.0.attn_k"), "{line}");
    assert!(!out.exists());
}
