//! A program that is killed or interrupted leaves whole files. tests/main/merge/kill.rs tests merges that
//! replace nothing.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use curmerge_formats::adapter::Adapter;

use super::{folder, small_adapter};
use crate::support::fixture::demo;
use crate::support::folder;
use crate::support::program::{interrupt, program};

/// The names in a folder, except those of temporary files.
fn names(folder: &Path) -> Vec<String> {
    let mut names = folder::names(folder);
    names.retain(|name| !name.starts_with(".curmerge-"));
    names
}

#[test]
fn a_killed_merge_leaves_the_old_file_or_the_new_one() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let (adapter, out) = (path("adapter.st"), path("out.gguf"));
    small_adapter(&adapter);
    let merge = || {
        let mut command = program();
        command.arg("merge").args([&demo("model.gguf"), &adapter]).arg("-o").arg(&out);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let start = Instant::now();
    assert!(merge().status().unwrap().success());
    let whole_time = start.elapsed();
    let new = fs::read(&out).unwrap();
    let old = b"the old file";
    let mut killed = 0;
    for step in 0..24 {
        fs::write(&out, old).unwrap();
        let mut child = merge().spawn().unwrap();
        std::thread::sleep(whole_time * step / 20);
        child.kill().unwrap();
        killed += u32::from(!child.wait().unwrap().success());
        let found = fs::read(&out).unwrap();
        assert!(found == old || found == new, "after {step}/20 of {whole_time:?}: {} bytes", found.len());
        assert_eq!(names(folder.path()), ["adapter.st", "out.gguf"]);
    }
    assert!(killed > 5, "only {killed} merges were killed before their end");
    // Temporary files of killed runs do not block the next run.
    assert!(merge().status().unwrap().success());
    assert!(fs::read(&out).unwrap() == new);
}

#[cfg(unix)]
#[test]
fn an_interrupted_build_writes_its_adapter() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let (adapter, merged, metrics) = (path("adapter.st"), path("merged.gguf"), path("metrics.jsonl"));
    let mut child = program()
        .arg("build")
        .arg(demo("model.gguf"))
        .arg("--data")
        .arg(demo("train.jsonl"))
        .arg("-o")
        .arg(&adapter)
        .args(["--epochs", "1000", "--batch-size", "2", "--metrics"])
        .arg(&metrics)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(child.stdout.take().unwrap()).lines();
    while fs::read(&metrics).is_ok_and(|log| log.is_empty()) || !metrics.exists() {
        assert!(child.try_wait().unwrap().is_none(), "the run ended");
        std::thread::sleep(Duration::from_millis(20));
    }
    interrupt(&child);
    let rest: Vec<String> = said.map(|line| line.unwrap()).collect();
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{errors}");
    assert!(errors.contains("stopping after this step") && !errors.contains("panicked"), "{errors}");
    assert!(rest.iter().any(|line| line.starts_with("stopped ")), "{rest:?}");
    assert!(rest.iter().any(|line| line.starts_with("go on ") && line.contains("--init")), "{rest:?}");

    let training = Adapter::read(&adapter).unwrap().training.unwrap();
    assert!(training.steps >= 1 && training.steps < training.planned_steps, "{training:?}");
    assert_eq!(names(folder.path()), ["adapter.st", "metrics.jsonl"]);
    curmerge!("verify", adapter, "--base", demo("model.gguf")).done();
    curmerge!("merge", demo("model.gguf"), adapter, "-o", merged).done();
}

#[cfg(unix)]
#[test]
fn a_closed_pipe_causes_no_panic() {
    for words in [vec!["inspect"], vec!["inspect", "--json"], vec!["inspect", "--full"]] {
        let mut child = program()
            .args(words)
            .arg(demo("model.gguf"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Reads one byte and closes the pipe, as `head -c 1` does.
        child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
        let mut errors = String::new();
        child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        child.wait().unwrap();
        assert!(errors.is_empty(), "{errors}");
    }
}
