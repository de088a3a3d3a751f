//! `--targets auto`, `--rank auto` and `--lr auto`.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::folder;
use crate::support::fixture::demo;
use crate::support::program::{Ran, run};

fn build(data: &Path, out: &Path, words: &[&str]) -> Ran {
    let base = demo("model.gguf");
    let fixed = ["build".as_ref(), base.as_os_str(), "--data".as_ref(), data.as_os_str(), "-o".as_ref()];
    let more =
        ["--max-steps", "60", "--no-append-eos", "--protect", "fisher", "--anchor-texts", "64", "--json"];
    let words = more.iter().chain(words).map(OsStr::new);
    run(&fixed.into_iter().chain([out.as_os_str()]).chain(words).collect::<Vec<_>>())
}

/// The option, the chosen value, and each trial's value and score.
fn choice(entry: &Value) -> (String, String, Vec<(String, f64)>) {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let trials = entry["trials"].as_array().unwrap().iter();
    let trials = trials.map(|trial| (text(&trial["value"]), trial["score"].as_f64().unwrap()));
    (format!("--{}", text(&entry["option"])), text(&entry["value"]), trials.collect())
}

#[test]
fn a_run_that_chooses_gives_the_adapter_of_its_choices() {
    let folder = folder();
    let out = |name: &str| folder.path().join(format!("{name}.st"));
    let (chosen, given) = (out("chosen"), out("given"));
    let data = demo("train.jsonl");
    let answer = build(&data, &chosen, &["--targets", "auto", "--rank", "auto", "--lr", "auto"]).json();
    let choices: Vec<_> = answer["automatic"].as_array().unwrap().iter().map(choice).collect();
    let options: Vec<&str> = choices.iter().map(|(option, ..)| option.as_str()).collect();
    assert_eq!(options, ["--targets", "--rank", "--lr"]);
    for (option, value, trials) in &choices {
        let score = |wanted: &str| trials.iter().find(|(value, _)| value == wanted).unwrap().1;
        assert!(
            trials.len() > 1 && trials.iter().all(|(_, score)| score.is_finite()),
            "{option}: {trials:?}"
        );
        let best = trials.iter().map(|trial| trial.1).fold(f64::INFINITY, f64::min);
        assert!(score(value) <= best * 1.02, "{option} {value}: {trials:?}");
    }
    let words: Vec<&str> = choices.iter().flat_map(|(option, value, _)| [option.as_str(), value]).collect();
    let explicit = build(&data, &given, &words).json();
    assert_eq!(explicit["automatic"], serde_json::json!([]));
    assert_eq!(fs::read(chosen).unwrap(), fs::read(given).unwrap(), "{choices:?}");
}

#[test]
fn too_few_examples_choose_nothing() {
    let folder = folder();
    let (data, out) = (folder.path().join("few.jsonl"), folder.path().join("a.st"));
    let lines = fs::read_to_string(demo("train.jsonl")).unwrap();
    fs::write(&data, lines.lines().take(9).collect::<Vec<_>>().join("\n")).unwrap();
    let error = build(&data, &out, &["--lr", "auto"]).refusal();
    assert!(error.contains("9 examples are too few") && error.contains("--lr"), "{error}");
    assert!(!out.exists());
    let error = curmerge!("select", demo("model.gguf"), "-o", out, "--rank", "auto").refusal();
    assert!(error.contains("auto is for build") && !out.exists(), "{error}");
    for (option, word) in
        [("--rank", "0"), ("--rank", "many"), ("--lr", "fast"), ("--lr", "0"), ("--lr", "nan")]
    {
        let ran = build(&data, &out, &[option, word]);
        assert!(ran.status > Some(0) && ran.stderr.contains(option), "{ran:?}");
    }
}
