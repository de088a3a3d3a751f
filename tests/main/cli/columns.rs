//! Examples whose columns have names of their own.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::folder;
use crate::support::fixture::demo;
use crate::support::program::{Ran, run};

/// A table as classifiers have it, and the same examples under the usual names.
fn reviews() -> (String, String) {
    let (mut table, mut lines) = ("Sentence,label,id\n".to_owned(), String::new());
    for n in 0..12 {
        let (bird, label) = (["heron", "a \"\"quail\"\"", "owl"][n % 3], n % 2);
        table += &format!("\"{bird}, {n}\",{label},{n}\n");
        let prompt = format!("Review: {}, {n}\nLabel:", bird.replace("\"\"", "\""));
        let completion = [" negative", " positive"][label];
        let row =
            json!({ "prompt": prompt, "completion": completion, "choices": [" negative", " positive"] });
        lines += &format!("{row}\n");
    }
    (table, lines)
}

const CLASSIFIER: [&str; 6] = [
    "--prompt-template",
    r"Review: {sentence}\nLabel:",
    "--completion-template",
    " {label}",
    "--label-names",
    "0=negative,1=positive",
];

fn with(command: &str, data: &Path, more: &[&str]) -> Ran {
    let base = demo("model.gguf");
    let mut words = vec![OsStr::new(command), base.as_os_str(), OsStr::new("--data"), data.as_os_str()];
    words.extend(more.iter().map(OsStr::new));
    run(&words)
}

#[test]
fn a_table_of_sentences_and_labels_is_a_classifier() {
    let scratch = folder();
    let at = |name: &str| scratch.path().join(name);
    let (table, lines) = reviews();
    fs::write(at("reviews.csv"), &table).unwrap();
    // Without an ending, too: its first line has the chosen columns.
    fs::write(at("reviews"), &table).unwrap();
    fs::write(at("usual.jsonl"), lines).unwrap();
    let out = at("a.st");
    let trained = |data: &Path, more: &[&str]| -> Value {
        let mut words =
            vec!["--max-steps", "2", "--anchor", "none", "--targets", "q", "--rank", "4", "--json"];
        words.extend(["-o", out.to_str().unwrap()]);
        words.extend(more);
        with("build", data, &words).json()["losses"].take()
    };
    let right = trained(&at("usual.jsonl"), &[]);
    let scores = with("eval", &at("usual.jsonl"), &["--json"]).json();
    assert!(scores["accuracy"].is_number(), "{scores}");
    for name in ["reviews.csv", "reviews"] {
        assert_eq!(trained(&at(name), &CLASSIFIER), right, "{name}");
        let mut more = vec!["--json"];
        more.extend(CLASSIFIER);
        assert_eq!(with("eval", &at(name), &more).json(), scores, "{name}");
    }
    let mut words = vec!["--json", "--generate"];
    words.extend(CLASSIFIER);
    let answers = with("eval", &at("reviews.csv"), &words).json();
    assert_eq!(answers["answers"].as_array().unwrap().len(), 12);
    let shown = with("build", &at("reviews.csv"), &[&["--show-sample"], &CLASSIFIER[..]].concat()).done();
    assert!(shown.stdout.contains("Review: heron, 0\nLabel:« negative"), "{}", shown.stdout);
    let file = at("reviews.csv");
    let said = curmerge!("data", file, "--prompt-column", "SENTENCE", "--label-column", "label").done();
    assert!(
        said.stdout.contains("a table (CSV), columns SENTENCE, label as prompt, completion, 12 rows"),
        "{}",
        said.stdout
    );
}

#[test]
fn keys_of_json_are_chosen_like_columns() {
    let scratch = folder();
    let file = scratch.path().join("data.json");
    let rows = json!([
        { "body": "a long walk", "turns": [{ "from": "human", "value": "hi" }, { "from": "gpt", "value": "ho" }],
          "ask": "why?", "reply": "so", "prompt": "left alone", "completion": "too" },
    ]);
    fs::write(&file, rows.to_string()).unwrap();
    let sample = |more: &[&str]| {
        let mut words = vec![OsStr::new("data"), file.as_os_str(), OsStr::new("--json")];
        words.extend(more.iter().map(OsStr::new));
        run(&words).json()["samples"][0].take()
    };
    assert_eq!(sample(&[]), "left alonetoo");
    assert_eq!(sample(&["--text-column", "body"]), "a long walk");
    assert_eq!(sample(&["--messages-column", "turns"]), "user: hi\nassistant: ho");
    assert_eq!(sample(&["--prompt-column", "ask"]), "why?too");
    let asked = ["--question-column", "ask", "--answer-column", "reply"];
    assert_eq!(sample(&asked), "user: why?\nassistant: so");
}

#[test]
fn a_column_that_is_missing_is_named_with_those_there() {
    let scratch = folder();
    let at = |name: &str| scratch.path().join(name);
    let (table, _) = reviews();
    fs::write(at("d.csv"), &table).unwrap();
    fs::write(at("d.txt"), "A text.\n").unwrap();
    fs::write(at("empty.csv"), "sentence,label\na,0\nb,\n").unwrap();
    for (file, more, wanted) in [
        ("d.csv", &[][..], "names the columns sentence, label, id, and none that is trained"),
        ("d.csv", &[], "(--prompt-column, --completion-column,"),
        (
            "d.csv",
            &["--prompt-column", "sentence", "--completion-column", "lable"],
            "d.csv:2: has no column lable, only: id, label, sentence; did you mean label?",
        ),
        ("d.csv", &["--text-column", "zzz"], "only: id, label, sentence; name one of them"),
        (
            "d.csv",
            &["--prompt-column", "sentence", "--completion-column", "label", "--label-names", "0=no"],
            "d.csv:3: has the label 1 in column label, and words only for 0; give it a word",
        ),
        ("d.txt", &["--text-column", "body"], "is plain text, which has no columns"),
        (
            "empty.csv",
            &["--prompt-column", "sentence", "--completion-column", "label"],
            "empty.csv:3: has nothing in column label",
        ),
    ] {
        let file = at(file);
        let mut words = vec![OsStr::new("data"), file.as_os_str()];
        words.extend(more.iter().map(OsStr::new));
        let line = run(&words).refusal();
        assert!(line.contains(wanted), "{line}");
    }
    let d = at("d.csv");
    for wrong in [
        &["--text-column", "a", "--prompt-column", "b"][..],
        &["--prompt-template", "no column"],
        &["--label-names", "0=a,b"],
    ] {
        let mut words = vec![OsStr::new("data"), d.as_os_str()];
        words.extend(wrong.iter().map(OsStr::new));
        assert_eq!(run(&words).status, Some(2), "{wrong:?}");
    }
    let (base, text) = (demo("model.gguf"), at("d.txt"));
    let line = curmerge!("eval", base, "--perplexity", text, "--text-column", "a").refusal();
    assert!(line.contains("add --data"), "{line}");
}
