//! Where examples come from, how many are used, and `data`, which shows what they are.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::process::Stdio;

use serde_json::Value;

use super::folder;
use crate::support::fixture::demo;
use crate::support::program::program;

/// `{"prompt", "completion"}` rows with these numbers.
fn rows(numbers: std::ops::Range<usize>) -> String {
    let row = |n: usize| format!("{{\"prompt\": \"bird {n} is\", \"completion\": \" number {n}\"}}\n");
    numbers.map(row).collect()
}

/// `data` with the demo's model.
fn of(words: &[&OsStr]) -> Value {
    let base = demo("model.gguf");
    let mut all = vec![OsStr::new("data"), OsStr::new("--json"), OsStr::new("--base"), base.as_os_str()];
    all.extend(words);
    crate::support::program::run(&all).json()
}

#[test]
fn files_folders_and_standard_input_are_one_data_set() {
    let scratch = folder();
    let at = |name: &str| scratch.path().join(name);
    fs::create_dir(at("all")).unwrap();
    fs::write(at("all/b.jsonl"), rows(5..9)).unwrap();
    fs::write(at("all/a.csv"), "prompt,completion\nbird 3 is, number 3\n").unwrap();
    for other in ["README.md", ".hidden.jsonl", "model.safetensors"] {
        fs::write(at("all").join(other), "no data").unwrap();
    }
    fs::write(at("whole.jsonl"), rows(3..4) + &rows(5..9)).unwrap();
    let (a, b) = (at("all/a.csv"), at("all/b.jsonl"));
    let apart = of(&[a.as_os_str(), b.as_os_str()]);
    let folder = of(&[at("all").as_os_str()]);
    let whole = of(&[at("whole.jsonl").as_os_str()]);
    assert_eq!(apart, folder);
    for key in ["examples", "tokens", "loss_tokens", "lengths", "samples"] {
        assert_eq!(apart[key], whole[key], "{key}");
    }
    assert_eq!((&apart["examples"], &apart["files"]), (&5.into(), &2.into()));
    let layout = apart["layouts"][0].as_str().unwrap();
    assert!(
        layout.starts_with("2 files: ") && layout.contains("CSV") && layout.contains("JSON lines"),
        "{layout}"
    );

    let mut command = program();
    command.args(["data", "-", "--json"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(&fs::read(at("whole.jsonl")).unwrap()).unwrap();
    let piped: Value = serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap();
    let mut read = curmerge!("data", at("whole.jsonl"), "--json").json();
    assert_eq!(piped, read);
    assert_eq!(read["rows"].take(), 5);

    // `eval` looks at its data twice.
    let base = demo("model.gguf");
    let mut command = program();
    command
        .arg("eval")
        .arg(&base)
        .args(["--data", "-", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(&fs::read(at("whole.jsonl")).unwrap()).unwrap();
    let piped: Value = serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(piped, curmerge!("eval", base, "--data", at("whole.jsonl"), "--json").json());

    fs::create_dir(at("none")).unwrap();
    fs::write(at("none/model.bin"), "").unwrap();
    let line = curmerge!("data", at("none")).refusal();
    assert!(line.contains("folder without data files"), "{line}");
}

#[test]
fn builds_train_on_several_files_and_hold_a_share_out() {
    let scratch = folder();
    let at = |name: &str| scratch.path().join(name);
    let (base, out) = (demo("model.gguf"), at("a.st"));
    fs::write(at("a.jsonl"), rows(0..30)).unwrap();
    fs::write(at("b.jsonl"), rows(30..40)).unwrap();
    let (a, b) = (at("a.jsonl"), at("b.jsonl"));
    let build = |more: &[&str]| {
        let mut words = vec![OsStr::new("build"), base.as_os_str(), OsStr::new("-o"), out.as_os_str()];
        words.extend(["--max-steps", "2", "--anchor", "none", "--protect", "none"].map(OsStr::new));
        words.extend([OsStr::new("--data"), a.as_os_str(), OsStr::new("--data"), b.as_os_str()]);
        words.extend(more.iter().map(OsStr::new));
        crate::support::program::run(&words)
    };
    let learned = |more: &[&str]| build(more).done().stdout;
    let text = learned(&["--valid-split", "0.25"]);
    assert!(text.contains("on 10 examples that were not trained"), "{text}");
    let text = learned(&["--valid-split", "0.25", "--max-examples", "20", "--valid-every", "1"]);
    assert!(text.contains("on 5 examples that were not trained"), "{text}");
    assert!(!learned(&[]).contains("not trained"), "forty examples are too few to hold any out unasked");
    // In a folder, the validation file is not trained on; named twice, it is, with a warning.
    let valid = b.to_str().unwrap();
    let said = build(&["--valid", valid]).done().stderr;
    assert!(said.contains("warning: ") && said.contains("is trained on, too"), "{said}");
    let json = curmerge!(
        "build",
        base,
        "-o",
        out,
        "--data",
        scratch.path(),
        "--valid",
        valid,
        "--max-steps",
        "2",
        "--anchor",
        "none",
        "--protect",
        "none",
        "--json"
    )
    .json();
    assert_eq!(json["examples"], 30, "{json}");
    let line = build(&["--valid-split", "0.99"]).refusal();
    assert!(line.contains("leaves none of 40 examples"), "{line}");
    for wrong in
        [&["--valid-split", "1"][..], &["--valid-split", "0.1", "--no-hold-out"], &["--max-examples", "0"]]
    {
        assert_eq!(build(wrong).status, Some(2), "{wrong:?}");
    }
    // An output is none of the data files, of a folder either.
    let folder = scratch.path();
    let words = [
        "build".as_ref(),
        base.as_os_str(),
        "--data".as_ref(),
        folder.as_os_str(),
        "-o".as_ref(),
        b.as_os_str(),
    ];
    let line = crate::support::program::run(&words).refusal();
    assert!(line.contains("b.jsonl"), "{line}");
    assert_eq!(fs::read_to_string(&b).unwrap(), rows(30..40));
}

#[test]
fn data_shows_rows_lengths_duplicates_and_samples() {
    let scratch = folder();
    let file = scratch.path().join("chat.jsonl");
    let row = |user: &str, answer: &str| {
        format!(
            "{{\"messages\": [{{\"role\": \"user\", \"content\": \"{user}\"}}, \
             {{\"role\": \"assistant\", \"content\": \"{answer}\"}}]}}\n"
        )
    };
    let text =
        row("a bird", "a duck\\u001b[2J") + &row("a fish", "a trout") + &row("a bird", "a duck\\u001b[2J");
    fs::write(&file, text).unwrap();
    let twice = curmerge!("data", file, file, "--json").json();
    assert_eq!((&twice["rows"], &twice["duplicates"]), (&6.into(), &4.into()));
    let line = curmerge!("data", "-", "-").refusal();
    assert!(line.contains("named twice"), "{line}");
    let shown = curmerge!("data", file).done().stdout;
    for part in [
        "JSON lines, columns messages, 3 rows",
        "1 rows have the text",
        "characters",
        "assistant: a trout",
        "--- sample 3",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(!shown.contains('\u{1b}'), "{shown}");
    let base = demo("model.gguf");
    let shown = curmerge!("data", file, "--base", base, "--max-seq-len", "12").done().stdout;
    for part in ["3 examples are longer than --max-seq-len 12", "1 examples have the tokens", "«", "loss on "]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let line = curmerge!("data", file, "--system", "x").refusal();
    assert!(line.contains("--base"), "{line}");
}
