//! Several tasks after one another: `--keep-fisher` and `--init`.

use std::fs;
use std::path::Path;

use curmerge_formats::adapter::Adapter;
use serde_json::Value;

use super::folder;
use crate::support::fixture::demo;
use crate::support::program::{Ran, run};

/// Trains on these examples with these words.
fn build(data: &Path, out: &Path, words: &[&str]) -> Ran {
    let base = demo("model.gguf");
    let [base, data, out] = [&base, data, out].map(|path| path.to_str().unwrap().to_owned());
    let fixed = ["build", &base, "--data", &data, "-o", &out, "--anchor-texts", "32"];
    let few = ["--no-append-eos", "--no-hold-out"];
    run(&fixed.iter().chain(&few).chain(words).map(std::ffi::OsStr::new).collect::<Vec<_>>())
}

/// The loss on these examples.
fn loss(adapter: &Path, data: &Path) -> f64 {
    let base = demo("model.gguf");
    let answer =
        curmerge!("eval", base, "--adapter", adapter, "--data", data, "--no-append-eos", "--json").json();
    answer["loss"].as_f64().unwrap_or_else(|| panic!("no loss in {answer}"))
}

/// The demo's prompts with another answer, always the same.
fn other_task(path: &Path) {
    let text = fs::read_to_string(demo("train.jsonl")).unwrap();
    let lines = text.lines().map(|line| {
        let mut example: Value = serde_json::from_str(line).unwrap();
        let prompt = example["prompt"].as_str().unwrap().replace("Kind:", "Size:");
        example["prompt"] = prompt.into();
        example["completion"] = " small".into();
        format!("{example}\n")
    });
    fs::write(path, lines.collect::<String>()).unwrap();
}

#[test]
fn a_kept_task_is_not_forgotten_when_another_is_learnt() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let (first, second) = (demo("train.jsonl"), path("second.jsonl"));
    other_task(&second);
    let (kept, dropped) = (path("kept.st"), path("dropped.st"));
    build(&first, &kept, &["--keep-fisher", "--max-steps", "60", "--rank", "8"]).done();
    let mut adapter = Adapter::read(&kept).unwrap();
    assert!(adapter.targets.iter().all(|target| target.fisher.len() == 1));
    adapter.targets.iter_mut().for_each(|target| target.fisher.clear());
    adapter.write(&dropped, &[]).unwrap();

    let [a, b] = [&kept, &dropped].map(|start| {
        let out = start.with_extension("both.st");
        let said =
            build(&second, &out, &["--init", start.to_str().unwrap(), "--max-steps", "120"]).done().stdout;
        assert_eq!(said.contains("what --keep-fisher kept of 1 earlier task"), start == &kept, "{said}");
        let learnt = loss(&out, &second) / loss(start, &second);
        assert!(learnt < 0.5, "the second task's loss fell to {learnt} of what it was");
        loss(&out, &first) - loss(start, &first)
    });
    assert!(b > 0.2, "without what is kept, the first task's loss rises by {b}");
    assert!(a < 0.3 * b, "the first task's loss rises by {a}, without what is kept by {b}");
    // What is kept goes on to the next adapter, with that of the new task.
    let both = path("both.st");
    build(&second, &both, &["--init", kept.to_str().unwrap(), "--keep-fisher", "--max-steps", "1"]).done();
    assert!(Adapter::read(&both).unwrap().targets.iter().all(|target| target.fisher.len() == 2));
}

#[test]
fn what_cannot_keep_a_task_is_refused_and_what_does_not_use_it_warns() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let data = demo("train.jsonl");
    for (out, words) in [
        ("lora.gguf", &["--keep-fisher"][..]),
        ("lora", &["--keep-fisher"]),
        ("lora", &["--keep-fisher", "--method", "lora"]),
    ] {
        let line = build(&data, &path(out), words).refusal();
        assert!(line.contains("--keep-fisher is for"), "{line}");
    }
    let kept = path("kept.st");
    build(&data, &kept, &["--keep-fisher", "--max-steps", "1", "--rank", "8"]).done();
    let words = ["--init", kept.to_str().unwrap(), "--protect", "scale", "--max-steps", "1"];
    let ran = build(&data, &path("scaled.st"), &words);
    assert!(ran.stderr.contains("--protect fisher uses it"), "{ran:?}");
}
