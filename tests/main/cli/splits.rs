//! Every command takes the splits of a model like the whole file.

use std::fs;

use super::{folder, small_adapter};
use crate::support::fixture::demo;

#[test]
fn commands_read_splits_as_one_model() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let (zero, base, data) = (path("zero"), demo("model.gguf"), path("data.jsonl"));
    curmerge!("select", base, "-o", zero, "--rank", "4").done();
    let merged = curmerge!("merge", base, zero, "-o", path("cut"), "--max-shard-size", "800K").done();
    let first = path("cut/cut-00001-of-00004.gguf");
    assert!(merged.stdout.ends_with(&format!("merged   {}\n", first.display())), "{}", merged.stdout);

    let (whole, cut) =
        (curmerge!("inspect", base, "--json").json(), curmerge!("inspect", first, "--json").json());
    assert_eq!(whole["tensors"], cut["tensors"]);
    let rows = fs::read_to_string(demo("test.jsonl")).unwrap();
    fs::write(&data, rows.lines().take(20).collect::<Vec<_>>().join("\n")).unwrap();
    let eval = |model| curmerge!("eval", model, "--data", data, "--json").json();
    assert_eq!(eval(&base)["accuracy"], eval(&first)["accuracy"]);

    let made = |model, name: &str| {
        let out = path(name);
        curmerge!("build", model, "--data", data, "-o", out, "--max-steps", "1", "--rank", "4").done();
        fs::read(out).unwrap()
    };
    assert!(
        made(&base, "of-whole.st") == made(&first, "of-splits.st"),
        "splits and the whole file give different adapters"
    );
    curmerge!("verify", path("of-splits.st"), "--base", base).done();
    curmerge!("verify", path("of-whole.st"), "--base", first).done();

    // An output never replaces a split.
    let second = path("cut/cut-00002-of-00004.gguf");
    let bytes = fs::read(&second).unwrap();
    for line in [
        curmerge!("select", first, "-o", second).refusal(),
        curmerge!("build", first, "--data", data, "-o", second).refusal(),
        curmerge!("merge", first, zero, "-o", second).refusal(),
        curmerge!("export", zero, "--base", first, "--format", "gguf", "-o", second).refusal(),
    ] {
        assert!(line.contains("name another output"), "{line}");
    }
    assert!(fs::read(&second).unwrap() == bytes);
    let line = curmerge!("eval", second, "--data", data).refusal();
    assert!(
        line.contains("split 2 of 4; name the first") && line.contains("cut-00001-of-00004.gguf"),
        "{line}"
    );
    fs::remove_file(&second).unwrap();
    for line in [curmerge!("inspect", first).refusal(), curmerge!("verify", zero, "--base", first).refusal()]
    {
        assert!(line.contains("cut-00002-of-00004.gguf: split 2 of 4: missing; download"), "{line}");
    }
}

#[test]
fn splits_are_written_only_into_a_folder() {
    let folder = folder();
    let (adapter, file) = (folder.path().join("adapter.st"), folder.path().join("out.gguf"));
    small_adapter(&adapter);
    let line =
        curmerge!("merge", demo("model.gguf"), adapter, "-o", file, "--max-shard-size", "1M").refusal();
    assert!(line.contains("name a folder") && !file.exists(), "{line}");
    for size in ["0", "1.5G", "many"] {
        let ran = curmerge!("merge", demo("model.gguf"), adapter, "-o", "out", "--max-shard-size", size);
        assert_eq!(ran.status, Some(2), "{}", ran.stderr);
    }
}
