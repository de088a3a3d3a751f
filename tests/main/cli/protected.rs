//! Runs that keep what the model knew: `--protect`, `--anchor`, and `eval --against`.

use std::path::Path;

use curmerge_formats::adapter::Adapter;
use serde_json::Value;

use super::folder;
use crate::support::fixture::demo;
use crate::support::program::{Ran, run};

/// Trains on the demo's examples with these words.
fn build(out: &Path, words: &[&str]) -> Ran {
    let [base, data] = ["model.gguf", "train.jsonl"].map(|name| demo(name).to_str().unwrap().to_owned());
    let fixed = ["build", &base, "--data", &data, "-o", out.to_str().unwrap(), "--json"];
    // Without EOS: teaching it changes this model more than the task does.
    let few = ["--targets", "all", "--rank", "4", "--max-steps", "40", "--lr", "0.01", "--no-append-eos"];
    run(&fixed.iter().chain(&few).chain(words).map(std::ffi::OsStr::new).collect::<Vec<_>>())
}

/// KL(base || adapted) on the demo's text, and the loss on its validation examples.
fn measured(adapter: &Path) -> (f64, f64) {
    let [base, text, valid] = ["model.gguf", "text.txt", "valid.jsonl"].map(demo);
    let answer = curmerge!(
        "eval",
        base,
        "--adapter",
        adapter,
        "--perplexity",
        text,
        "--against",
        base,
        "--ctx",
        "64",
        "--chunks",
        "40",
        "--data",
        valid,
        "--json"
    )
    .json();
    let number = |key: &str| answer[key].as_f64().unwrap_or_else(|| panic!("no {key} in {answer}"));
    assert!(number("same_top") > 0.0 && number("against_perplexity") > 1.0, "{answer}");
    assert_eq!(answer["chunks"], 40, "{answer}");
    (number("kl"), number("loss"))
}

#[test]
fn a_penalty_keeps_more_of_the_base_and_learns_too() {
    let folder = folder();
    let out = |name: &str| folder.path().join(format!("{name}.st"));
    let untrained = out("untrained");
    curmerge!("select", demo("model.gguf"), "-o", untrained, "--targets", "all", "--rank", "4").done();
    let (kl, before) = measured(&untrained);
    assert!(kl.abs() < 1e-6, "U = 0 changes nothing: {kl}");

    build(&out("none"), &["--protect", "none"]).done();
    let (unprotected, learnt) = measured(&out("none"));
    let few = ["--anchor-texts", "64"];
    let text = demo("text.txt");
    let text = ["--anchor", text.to_str().unwrap()];
    for (name, words) in [
        ("fisher", &["--protect", "fisher"][..]),
        ("replay", &["--protect", "replay"]),
        ("fisher on a text", &[&["--protect", "fisher"][..], &text].concat()),
    ] {
        build(&out(name), &[words, &few].concat()).done();
        let (kl, loss) = measured(&out(name));
        assert!(kl < 0.5 * unprotected, "{name}: KL {kl}, unprotected {unprotected}");
        let record = Adapter::read(out(name)).unwrap().training.unwrap().protection.unwrap();
        assert!(record.contains(words[1]) && record.contains("--anchor-texts 64"), "{record}");
        let share = (before - loss) / (before - learnt);
        assert!(share > 0.5, "{name}: loss {loss}, unprotected {learnt}, before {before}");
    }
}

#[test]
fn a_stronger_penalty_keeps_more() {
    let folder = folder();
    let kl = |lambda: &str| {
        let out = folder.path().join(lambda);
        build(&out, &["--protect", "fisher", "--anchor-texts", "32", "--lambda", lambda]).done();
        measured(&out).0
    };
    let [weak, strong] = ["3", "300"].map(kl);
    assert!(strong < 0.3 * weak, "KL {weak} at 3, {strong} at 300");
}

#[test]
fn an_anchor_that_cannot_be_used_is_refused() {
    let folder = folder();
    let short = folder.path().join("short.txt");
    std::fs::write(&short, "a few words").unwrap();
    let out = folder.path().join("adapter.st");
    for (path, part) in [(short, "give a longer text"), (folder.path().join("missing.txt"), "missing.txt")] {
        let line = build(&out, &["--protect", "fisher", "--anchor", path.to_str().unwrap()]).refusal();
        assert!(line.contains(part) && line.contains(path.to_str().unwrap()), "{line}");
    }
    for lambda in ["-1", "nan", "inf"] {
        let line = build(&out, &["--protect", "fisher", &format!("--lambda={lambda}")]).refusal();
        assert!(line.contains("--lambda"), "{line}");
    }
    assert!(!out.exists());
    let text = folder.path().join("anchor.txt");
    std::fs::copy(demo("text.txt"), &text).unwrap();
    build(&text, &["--protect", "fisher", "--anchor", text.to_str().unwrap()]).refusal();
    let kept = [text, demo("text.txt")].map(|path| std::fs::read(path).unwrap());
    assert!(kept[0] == kept[1], "the adapter replaced the anchor");
    for (words, option) in [
        (["--protect", "fisher"], "--protect fisher"),
        (["--protect", "replay"], "replay"),
        (["--select", "signal"], "--select signal"),
        (["--max-forgetting", "0.01"], "--max-forgetting"),
    ] {
        let line = build(&out, &[&words[..], &["--anchor", "none"]].concat()).refusal();
        assert!(line.contains(option) && line.contains("--anchor none"), "{line}");
    }
}

#[test]
fn a_model_with_few_positions_writes_short_texts() {
    let folder = folder();
    let [base, data, out] = [
        crate::support::fixture::family("gpt2", "model.gguf"),
        folder.path().join("data.jsonl"),
        folder.path().join("adapter.st"),
    ];
    std::fs::write(&data, "{\"text\": \"the cat sat on the mat\"}\n").unwrap();
    for protect in ["fisher", "replay"] {
        let words = [
            "--targets",
            "all",
            "--rank",
            "2",
            "--max-steps",
            "1",
            "--anchor-texts",
            "4",
            "--protect",
            protect,
        ];
        let files = ["build".as_ref(), base.as_os_str(), "--data".as_ref(), data.as_os_str(), "-o".as_ref()];
        let words = words.iter().map(std::ffi::OsStr::new);
        run(&files.into_iter().chain([out.as_os_str()]).chain(words).collect::<Vec<_>>()).done();
    }
}

#[test]
fn models_of_other_vocabularies_do_not_compare() {
    let other = crate::support::fixture::family("llama3", "model.gguf");
    let line = curmerge!(
        "eval",
        demo("model.gguf"),
        "--perplexity",
        demo("text.txt"),
        "--against",
        other,
        "--ctx",
        "32"
    )
    .refusal();
    assert!(line.contains("tokens") && line.contains("compare"), "{line}");
}

#[test]
fn a_model_is_no_distance_from_itself() {
    let base = demo("model.gguf");
    let answer: Value =
        curmerge!("eval", base, "--perplexity", demo("text.txt"), "--against", base, "--ctx", "64", "--json")
            .json();
    assert_eq!(answer["same_top"], 1.0);
    assert_eq!(answer["perplexity"], answer["against_perplexity"]);
    assert!(answer["kl"].as_f64().unwrap().abs() < 1e-9, "{answer}");
}
