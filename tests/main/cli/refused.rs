//! Wrong arguments and wrong files give one line of error and an exit status, never a panic.

use std::fs;
use std::path::Path;

use curmerge_formats::gguf::{GgufLayout, Value as GgufValue};

use super::{folder, small_adapter};
use crate::support::fixture::demo;
use crate::support::program::run;

/// Runs `curmerge build BASE --data DATA -o OUT` with these further arguments. It must be refused and write
/// nothing.
#[track_caller]
fn build_refused(base: &Path, data: &Path, words: &[&str]) -> String {
    let folder = folder();
    let out = folder.path().join("adapter.st");
    let mut all: Vec<&std::ffi::OsStr> =
        vec!["build".as_ref(), base.as_os_str(), "--data".as_ref(), data.as_os_str()];
    all.extend(["-o".as_ref(), out.as_os_str()]);
    all.extend(words.iter().map(std::ffi::OsStr::new));
    let line = run(&all).refusal();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "something was written");
    line
}

/// Checks that a line contains all of these.
#[track_caller]
pub fn assert_says(line: &str, parts: &[&str]) {
    assert!(parts.iter().all(|part| line.contains(part)), "{line}");
}

#[test]
fn exit_statuses_are_0_1_and_2() {
    let model = demo("model.gguf");
    assert_eq!(curmerge!("--version").status, Some(0));
    assert_eq!(curmerge!("--help").status, Some(0));
    assert_eq!(curmerge!("build", "--help").status, Some(0));
    assert_eq!(curmerge!("inspect", model).status, Some(0));
    assert_eq!(curmerge!("inspect", "no-such-file").status, Some(1));
    let wrong: &[&[&str]] = &[
        &[""],
        &["bild"],
        &["build"],
        &["--frobnicate"],
        &["inspect", "x", "--threads", "0"],
        &["inspect", "x", "--threads", "65535"],
        &["inspect", "x", "--threads", "many"],
        &["merge", "base", "adapter"],
        &["merge", "base", "adapter", "-o", "out.gguf", "--type", "q9_9"],
        &["merge", "base", "adapter", "-o", "out.gguf", "--type-adapted", "q4_k_m"],
        &["merge", "base", "adapter", "-o", "out.gguf", "--imatrix", "file"],
        &["export", "adapter", "--base", "base", "--format", "pdf", "-o", "out"],
        &["build", "base", "--data", "data", "-o", "out", "--rank", "0"],
        &["build", "base", "--data", "data", "-o", "out", "--rank", "-1"],
        &["build", "base", "--data", "data", "-o", "out", "--lr", "fast"],
        &["build", "base", "--data", "data", "-o", "out", "--layers", "3-2"],
        &["build", "base", "--data", "data", "-o", "out", "--memory", "much"],
        &["build", "base", "--data", "data", "-o", "out", "--batch-size", "0"],
        &["build", "base", "--data", "data", "-o", "out", "--select", "magic"],
        &["build", "base", "--data", "data", "-o", "out", "--init", "adapter", "--rank", "4"],
        &["eval", "base"],
        &["run", "base", "--compare"],
        &["run", "base", "-n", "-2"],
        &["run", "base", "-p", "x", "--logprobs", "5"],
    ];
    for words in wrong {
        let ran = run(&words.iter().map(std::ffi::OsStr::new).collect::<Vec<_>>());
        assert_eq!(ran.status, Some(2), "{ran:?}");
        assert!(ran.stderr.starts_with("error: ") && ran.stdout.is_empty(), "{ran:?}");
    }
    // Without arguments the program prints its help and exits with 2.
    let ran = run(&[]);
    assert_eq!(ran.status, Some(2));
    assert!(ran.stderr.contains("merge"));
}

#[test]
fn unusable_numbers_are_refused() {
    let (base, data) = (demo("model.gguf"), demo("train.jsonl"));
    for number in ["nan", "inf", "-inf", "0", "-1"] {
        for option in ["--lr", "--clip"] {
            let line = build_refused(&base, &data, &[&format!("{option}={number}")]);
            assert_says(&line, &[option, "positive"]);
        }
    }
    for (option, number) in
        [("--scale", "nan"), ("--scale", "0"), ("--weight-decay", "inf"), ("--weight-decay", "-1")]
    {
        assert_says(&build_refused(&base, &data, &[&format!("{option}={number}")]), &[option]);
    }
    for (words, says) in [
        (["--temperature", "nan"], "--temp NaN"),
        (["--temp=-1", "--json"], "--temp -1"),
        (["--top-p", "0"], "--top-p 0"),
        (["--top-p", "nan"], "--top-p NaN"),
        (["--min-p", "2"], "--min-p 2"),
        (["--repeat-penalty", "0"], "--repeat-penalty 0"),
        (["--presence-penalty", "inf"], "--presence-penalty inf"),
    ] {
        assert_says(&curmerge!("run", base, "-p", "x", words[0], words[1]).refusal(), &[says]);
    }
}

#[test]
fn unknown_targets_and_too_large_ranks_are_refused() {
    let (base, data) = (demo("model.gguf"), demo("train.jsonl"));
    for targets in ["foo", "q,foo", "blk.99.attn_q", "token_embd", "blk.0.attn_norm", ""] {
        let line = build_refused(&base, &data, &["--targets", targets]);
        assert_says(&line, &["target", "q,"]);
    }
    let line = build_refused(&base, &data, &["--rank", "100000"]);
    assert_says(&line, &["blk.0.attn_k"]);
}

#[test]
fn files_that_are_no_models_are_refused() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("empty"), b"").unwrap();
    fs::write(path("magic"), b"GGUF").unwrap();
    fs::write(
        path("garbage"),
        (0..5000u32).flat_map(|i| i.wrapping_mul(2654435761).to_le_bytes()).collect::<Vec<_>>(),
    )
    .unwrap();
    fs::write(path("huge-header"), [u64::MAX.to_le_bytes().as_slice(), b"{}"].concat()).unwrap();
    fs::create_dir(path("folder")).unwrap();
    fs::create_dir(path("half")).unwrap();
    fs::write(path("half/config.json"), "{\"model_type\": \"llama\"}").unwrap();
    fs::create_dir(path("other")).unwrap();
    fs::write(path("other/config.json"), "{\"model_type\": \"mamba\"}").unwrap();
    fs::write(path("other/model.safetensors"), [2u64.to_le_bytes().as_slice(), b"{}"].concat()).unwrap();
    for name in ["missing", "empty", "magic", "garbage", "huge-header", "folder", "half", "other"] {
        let file = path(name);
        let text = file.to_str().unwrap();
        assert_says(&build_refused(&file, &demo("train.jsonl"), &[]), &[text]);
        assert_says(&curmerge!("run", file, "-p", "x").refusal(), &[text]);
        assert_says(&curmerge!("select", file, "-o", path("out")).refusal(), &[text]);
        assert_says(&curmerge!("merge", file, path("missing"), "-o", path("out.gguf")).refusal(), &[text]);
        assert_says(&curmerge!("merge", demo("model.gguf"), file, "-o", path("out.gguf")).refusal(), &[text]);
        assert_says(&curmerge!("verify", file).refusal(), &[text]);
        if name != "other" {
            assert_says(&curmerge!("inspect", file).refusal(), &[text]);
        }
    }
    // A model is not an adapter, and an adapter is not a model.
    let adapter = path("adapter.st");
    small_adapter(&adapter);
    curmerge!("verify", demo("model.gguf")).refusal();
    curmerge!("run", adapter, "-p", "x").refusal();
    assert!(!path("out").exists() && !path("out.gguf").exists());
}

#[test]
fn lines_that_are_no_examples_are_refused_by_number() {
    let folder = folder();
    let data = folder.path().join("data.jsonl");
    let good = "{\"text\": \"a small bird\"}\n";
    for bad in [
        "{\"text\": \"cut",
        "not JSON",
        "[]",
        "{}",
        "{\"text\": 3}",
        "{\"prompt\": \"a\"}",
        "{\"text\": \"a\", \"messages\": []}",
        "{\"messages\": []}",
        "{\"messages\": [{\"role\": \"user\"}]}",
        "{\"messages\": \"hello\"}",
        "\u{0}",
    ] {
        fs::write(&data, format!("{good}{good}{bad}\n{good}")).unwrap();
        let line = build_refused(&demo("model.gguf"), &data, &[]);
        assert_says(&line, &[&format!("{}:3: ", data.display())]);
    }
    fs::write(&data, [good.as_bytes(), b"{\"text\": \"\xff\"}\n"].concat()).unwrap();
    assert_says(&build_refused(&demo("model.gguf"), &data, &[]), &[":2: ", "UTF-8"]);
    // llama.cpp would read these bytes as U+FFFD or byte tokens. Latin-1 is a mistake that must not be
    // trained on.
    let plain = folder.path().join("latin1.txt");
    fs::write(&plain, b"caf\xc3\xa9\ncaf\xe9\n").unwrap();
    assert_says(&build_refused(&demo("model.gguf"), &plain, &[]), &["latin1.txt:2: ", "UTF-8"]);
    let line = curmerge!("eval", demo("model.gguf"), "--perplexity", plain).refusal();
    assert_says(&line, &["latin1.txt", "byte 9", "UTF-8"]);
    for nothing in ["", "\n\n", "{\"text\": \"\"}\n", "{\"prompt\": \"a\", \"completion\": \"\"}\n"] {
        fs::write(&data, nothing).unwrap();
        let line = build_refused(&demo("model.gguf"), &data, &["--no-append-eos"]);
        assert_says(&line, &[data.to_str().unwrap()]);
    }
    assert_says(&build_refused(&demo("model.gguf"), Path::new("no-such-data"), &[]), &["no-such-data"]);
    assert_says(&build_refused(&demo("model.gguf"), folder.path(), &[]), &[folder.path().to_str().unwrap()]);
    fs::write(&data, "{\"prompt\": \"a\", \"completion\": \" b\", \"choices\": [\" c\"]}\n").unwrap();
    assert_says(&curmerge!("eval", demo("model.gguf"), "--data", data).refusal(), &[":1: ", "choices"]);
}

#[test]
fn outputs_do_not_replace_inputs() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let (base, data, adapter) = (path("base.gguf"), path("data.jsonl"), path("adapter.st"));
    fs::copy(demo("model.gguf"), &base).unwrap();
    fs::copy(demo("train.jsonl"), &data).unwrap();
    small_adapter(&adapter);
    let read = || [&base, &data, &adapter].map(|path| fs::read(path).unwrap());
    let before = read();
    fs::hard_link(&base, path("link.gguf")).unwrap();
    for out in [
        &base,
        &adapter,
        &path("link.gguf"),
        &folder.path().join("../").join(folder.path()).join("base.gguf"),
    ] {
        assert_says(&curmerge!("merge", base, adapter, "-o", out).refusal(), &[out.to_str().unwrap()]);
    }
    for out in [&base, &data] {
        assert_says(&curmerge!("build", base, "--data", data, "-o", out).refusal(), &[out.to_str().unwrap()]);
    }
    for out in [&base, &adapter] {
        let ran = curmerge!("export", adapter, "--base", base, "--format", "gguf", "-o", out);
        assert_says(&ran.refusal(), &[out.to_str().unwrap()]);
    }
    curmerge!("select", base, "-o", base).refusal();
    curmerge!("select", base, "-o", folder.path()).refusal();
    curmerge!("select", base, "-o", path("no/such/folder")).refusal();
    assert!(read() == before, "an input changed");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4, "a refused command left a file");
}

/// Each file is whole: it is named for what it is, and nobody is told to download it again.
#[test]
fn other_files_in_place_of_an_adapter_are_named() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let model = demo("model.gguf");
    let (peft, out) = (path("peft"), path("out.gguf"));
    let adapter = path("a.safetensors");
    small_adapter(&adapter);
    curmerge!("export", adapter, "--base", model, "--format", "peft", "-o", peft).done();
    let control = path("control.gguf");
    let metadata = [("general.architecture".to_owned(), GgufValue::String("controlvector".into()))];
    let layout = GgufLayout::new(3, 32, &metadata, Vec::new()).unwrap();
    fs::write(&control, layout.header()).unwrap();
    for (name, start) in [("new.bin", &b"PK\x03\x04rest"[..]), ("old.bin", b"\x80\x02}q\x00")] {
        fs::write(path(name), start).unwrap();
    }
    fs::create_dir(path("empty")).unwrap();
    for (file, wanted) in [
        (model.clone(), "is a GGUF model, no adapter; name an adapter"),
        (control, "is a control vector, no adapter"),
        (path("new.bin"), "is a pickled file"),
        (path("old.bin"), "is a pickled file"),
        (path("empty"), "is a folder without an adapter"),
        (peft.join("adapter_model.safetensors"), "without its settings; name its folder"),
    ] {
        for line in [
            curmerge!("merge", model, file, "-o", out).refusal(),
            curmerge!("eval", model, "--adapter", file, "--data", demo("valid.jsonl")).refusal(),
            curmerge!("verify", file).refusal(),
        ] {
            assert!(line.contains(wanted) && !line.contains("download"), "{line}");
        }
    }
    let line = curmerge!("verify", peft).refusal();
    assert!(line.contains("is a LoRA of another program") && line.contains("use merge, run, eval"), "{line}");
}
