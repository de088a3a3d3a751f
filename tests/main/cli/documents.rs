//! Completions, manual pages, the version, and the progress of a run that nobody watches.

use std::fs;

use super::folder;
use crate::support::fixture::demo;
use crate::support::folder::names;
use crate::support::program::program;

#[test]
fn every_command_has_completions_and_a_page() {
    let help = curmerge!("--help").done().stdout;
    let commands: Vec<&str> = help
        .lines()
        .skip_while(|line| !line.starts_with("Commands"))
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|name| !name.is_empty() && *name != "help")
        .collect();
    assert!(commands.len() > 12, "{commands:?}");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let text = curmerge!("completions", shell).done().stdout;
        let missing: Vec<_> = commands.iter().filter(|name| !text.contains(**name)).collect();
        assert!(missing.is_empty() && text.contains("max-forgetting"), "{shell}: {missing:?}");
    }
    let scratch = folder();
    let pages = scratch.path().join("man");
    curmerge!("man", pages).done();
    let wanted: Vec<String> = commands.iter().map(|name| format!("curmerge-{name}.1")).collect();
    let mut found = names(&pages);
    found.retain(|name| name != "curmerge.1");
    let mut wanted_sorted = wanted.clone();
    wanted_sorted.sort();
    assert_eq!(found, wanted_sorted);
    let page = fs::read_to_string(pages.join("curmerge-build.1")).unwrap();
    assert!(page.contains(".TH") && page.contains("max\\-forgetting"), "{page}");
}

#[test]
fn the_version_says_what_the_program_computes_with() {
    for words in [["--version"], ["-V"]] {
        assert_eq!(curmerge!(words[0]).done().stdout, format!("curmerge {}\n", env!("CARGO_PKG_VERSION")));
    }
    let long = curmerge!("--version", "--verbose", "--cpu", "portable").done().stdout;
    assert!(
        long.contains("built for ") && long.contains("rustc 1.") && long.contains("instructions: portable"),
        "{long}"
    );
    let json = curmerge!("--version", "--json").json();
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
    assert!(!json["cpu"]["available"].as_array().unwrap().is_empty() && json["target"].is_string());
    for words in [&["--verbose"][..], &["--json"]] {
        let words: Vec<_> = words.iter().map(std::ffi::OsStr::new).collect();
        assert_eq!(crate::support::program::run(&words).status, Some(2), "{words:?}");
    }
}

#[test]
fn a_run_in_a_pipe_tells_how_far_it_is() {
    let scratch = folder();
    let mut command = program();
    command.arg("build").arg(demo("model.gguf")).arg("--data").arg(demo("train.jsonl"));
    command.args(["--max-steps", "700", "--anchor", "none", "--protect", "none", "--threads", "1", "-o"]);
    let out = command.arg(scratch.path().join("a.st")).env("CURMERGE_PROGRESS", "1").output().unwrap();
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(out.status.success(), "{said}");
    let line = said.lines().find(|line| line.starts_with("training: "));
    assert!(line.is_some_and(|line| line.contains(" loss ") && line.contains(" left")), "{said}");
    assert!(said.contains("validation loss") && !said.contains('\u{1b}'), "{said}");
}
