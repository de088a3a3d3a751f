//! `--combine` on the command line.

use std::fs;
use std::path::{Path, PathBuf};

use super::base;
use crate::support::adapter::{Recipe, random};
use crate::support::families::{Container, Family};
use crate::support::fixture;

fn lora(name: &str) -> PathBuf {
    fixture::path("combine").join(name)
}

fn weighted(path: &Path, factor: f32) -> String {
    format!("{}={factor}", path.display())
}

/// The combination is the same, merged at once, or as a file of each kind, and whatever the threads.
#[test]
fn a_merge_combines_as_an_export_does() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let model = Family::open("qwen2").path(Container::Gguf);
    let (first, second) = (weighted(&lora("first"), 0.7), weighted(&lora("second"), -0.5));
    let merged = path("merged.gguf");
    curmerge!(
        "merge",
        model,
        first,
        second,
        "--combine",
        "dare_ties",
        "--density",
        "0.6",
        "--seed",
        "3",
        "-o",
        merged,
        "--type-adapted",
        "f32"
    )
    .done();
    for (name, threads) in [("one.gguf", "1"), ("folder", "3")] {
        let one = path(name);
        curmerge!(
            "export",
            first,
            second,
            "--base",
            model,
            "--combine",
            "dare_ties",
            "--density",
            "0.6",
            "--seed",
            "3",
            "-o",
            one,
            "--threads",
            threads
        )
        .done();
        let again = path("again.gguf");
        curmerge!("merge", model, one, "-o", again, "--type-adapted", "f32").done();
        assert!(fs::read(&again).unwrap() == fs::read(&merged).unwrap(), "{name}");
    }
    let other = path("other.gguf");
    curmerge!(
        "merge",
        model,
        first,
        second,
        "--combine",
        "dare_ties",
        "--density",
        "0.6",
        "-o",
        other,
        "--type-adapted",
        "f32"
    )
    .done();
    assert!(fs::read(&other).unwrap() != fs::read(&merged).unwrap(), "the seed");
}

/// Without a way, the changes are added exactly, also into one file of curmerge's own.
#[test]
fn adapters_become_one_file() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let model = Family::open("qwen2").path(Container::Gguf);
    let base = base(Container::Gguf);
    let [a, b] = [(1, "q,v"), (5, "q,down")].map(|(seed, targets)| {
        let file = path(&format!("{seed}.safetensors"));
        Recipe { targets, seed, ..Recipe::default() }
            .adapter(&base, random(0.4, seed))
            .write(&file, &[])
            .unwrap();
        weighted(&file, 0.5)
    });
    let [both, one, again] = ["both.gguf", "one.safetensors", "again.gguf"].map(path);
    curmerge!("merge", model, a, b, "-o", both, "--type-adapted", "f32").done();
    curmerge!("export", a, b, "--base", model, "-o", one).done();
    curmerge!("verify", one, "--base", model).done();
    let ran = curmerge!("merge", model, one, "-o", again, "--type-adapted", "f32", "--json").json();
    assert_eq!(ran["tensors"].as_array().unwrap().len(), 6);
    let tensors = |file: &Path| {
        let base = curmerge::Base::open(file).unwrap();
        ["blk.0.attn_q", "blk.1.ffn_down"].map(|name| base.weight(name).unwrap().vector()).concat()
    };
    let (found, right) = (tensors(&again), tensors(&both));
    assert!(found.iter().zip(&right).all(|(x, y)| (x - y).abs() < 1e-6));

    let ollama = path("ollama");
    curmerge!("export", a, b, "--base", model, "--format", "ollama", "-o", ollama, "--type-adapted", "f32")
        .done();
    assert!(fs::read(ollama.join("model.gguf")).unwrap() == fs::read(&both).unwrap());
}

#[test]
fn what_is_asked_for_and_not_done_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let model = Family::open("qwen2").path(Container::Gguf);
    let out = path("out.gguf");
    let [first, second, third] = ["first", "second", "third"].map(lora);
    for (words, said, helps) in [
        (&["ties"][..], "ties keeps a share", "density"),
        (&["linear", "--density", "0.5"], "linear drops no numbers", "leave it out"),
        (&["ties", "--density", "1.5"], "a density of 1.5", "up to 1"),
        (&["cat", "--svd-rank", "3"], "cat takes no SVD", "svd"),
        (
            &["dare_linear", "--density", "0.5", "--majority-sign-method", "frequency"],
            "elects no signs",
            "leave",
        ),
        (&["ties", "--density", "0.5", "--seed", "3"], "ties draws nothing", "leave it out"),
    ] {
        let (way, rest) = words.split_first().unwrap();
        let mut all: Vec<std::ffi::OsString> = ["merge".into(), model.clone().into()].into();
        all.extend([first.clone().into(), second.clone().into(), "-o".into(), out.clone().into()]);
        all.extend(["--combine".into(), (*way).into()]);
        all.extend(rest.iter().map(Into::into));
        let all: Vec<_> = all.iter().map(|word| word.as_os_str()).collect();
        let line = crate::support::program::run(&all).refusal();
        assert!(line.contains(said) && line.contains(helps), "{line}");
    }
    let line = curmerge!("merge", model, first, third, "--combine", "linear", "-o", out).refusal();
    assert!(line.contains("the ranks 4 and 3 of 'blk.0.attn_q'") && line.contains("use cat"), "{line}");
    let line = curmerge!("merge", model, first, "--combine", "ties", "--density", "0.5", "-o", out).refusal();
    assert!(line.contains("there is one"), "{line}");
    let line = curmerge!("export", first, second, "--base", model, "-o", path("one.safetensors")).refusal();
    assert!(line.contains("holds a CURLoRA") && line.contains(".gguf"), "{line}");
    assert!(!out.exists());
}
