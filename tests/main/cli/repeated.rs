//! The same arguments give the same bytes.

use std::fs;

use super::{folder, small_adapter};
use crate::support::fixture::demo;

#[test]
fn builds_do_not_depend_on_the_number_of_threads() {
    let folder = folder();
    let build = |name: &str, threads: &str, seed: &str| {
        let out = folder.path().join(format!("{name}.st"));
        let (base, data, valid) = (demo("model.gguf"), demo("train.jsonl"), demo("valid.jsonl"));
        curmerge!(
            "build",
            base,
            "--data",
            data,
            "--valid",
            valid,
            "-o",
            out,
            "--targets",
            "all",
            "--rank",
            "4",
            "--max-steps",
            "3",
            "--batch-size",
            "8",
            "--seed",
            seed,
            "--threads",
            threads
        )
        .done();
        fs::read(out).unwrap()
    };
    let one = build("one", "1", "5");
    assert!(one == build("another-name", "1", "5"), "two equal runs give different bytes");
    assert!(one == build("two", "2", "5"), "two threads give different bytes from one");
    assert!(one == build("three", "3", "5"), "three threads give different bytes from one");
    assert!(one != build("seed", "1", "6"), "another seed gives the same bytes");
}

#[test]
fn selections_depend_on_the_seed_and_not_on_other_targets() {
    let folder = folder();
    let select = |name: &str, seed: &str, targets: &str, threads: &str| {
        let out = folder.path().join(name);
        let base = demo("model.gguf");
        let answer = curmerge!(
            "select",
            base,
            "-o",
            out,
            "--seed",
            seed,
            "--targets",
            targets,
            "--threads",
            threads,
            "--json"
        );
        answer.json()["targets"].as_array().unwrap().clone()
    };
    let all = select("a", "1", "all", "2");
    let few = select("b", "1", "q,v", "1");
    assert!(few.iter().all(|target| all.contains(target)), "other targets change the selection");
    assert!(few.len() < all.len() && !few.is_empty());
    assert!(
        select("c", "2", "q,v", "1").iter().all(|target| !all.contains(target)),
        "another seed selects the same"
    );
}

#[test]
fn merges_and_exports_do_not_depend_on_the_number_of_threads() {
    let folder = folder();
    let (base, adapter) = (demo("model.gguf"), folder.path().join("adapter.st"));
    small_adapter(&adapter);
    let outputs = ["1", "2"].map(|threads| {
        let (merged, lora) = (folder.path().join(format!("{threads}.gguf")), folder.path().join("lora.gguf"));
        curmerge!("merge", base, adapter, "-o", merged, "--threads", threads).done();
        curmerge!("export", adapter, "--base", base, "--format", "gguf", "-o", lora, "--threads", threads)
            .done();
        (fs::read(merged).unwrap(), fs::read(lora).unwrap())
    });
    assert!(outputs[0] == outputs[1], "two threads give different bytes from one");
    assert!(outputs[0].0 != fs::read(base).unwrap(), "the merge changed nothing");
}

#[test]
fn an_adapter_without_training_merges_into_the_base_itself() {
    let folder = folder();
    let (base, adapter) = (demo("model.gguf"), folder.path().join("adapter.st"));
    let merged = folder.path().join("merged.gguf");
    curmerge!("select", base, "-o", adapter, "--targets", "all").done();
    curmerge!("merge", base, adapter, "-o", merged).done();
    assert!(fs::read(merged).unwrap() == fs::read(base).unwrap(), "U = 0 changed a byte");
}
