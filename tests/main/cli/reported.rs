//! `build --report` and `plot`: a run on a page, and runs as curves.

use std::fs;
use std::path::Path;

use regex::Regex;

use super::folder;
use crate::support::fixture::demo;
use crate::support::program::{program, run};

/// What a page is made of.
const TAGS: [&str; 28] = [
    "html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "h3", "p", "div", "table", "tr",
    "th", "td", "code", "pre", "figure", "svg", "text", "line", "polyline", "circle", "rect", "details",
    "summary", "strong",
];
const HOSTILE: &str = "</pre></title><script>alert(1)</script><img src=https://evil.example/x onerror='x'>";

/// Checks that every tag of a page ends where it should, that none but ours is there, and that nothing is fetched.
#[track_caller]
fn check_page(page: &str) {
    let style = Regex::new("(?s)<style>.*?</style>").unwrap();
    let tag = Regex::new("<(/?)([a-z0-9]+)((?: [a-zA-Z0-9-]+=\"[^\"<>]*\")*)(/?)>").unwrap();
    let body = page.strip_prefix("<!doctype html>").expect("a document");
    let body = style.replace_all(body, "<style></style>");
    let mut open: Vec<String> = Vec::new();
    for found in tag.captures_iter(&body) {
        let (ends, name, empty) = (&found[1] == "/", &found[2], &found[4] == "/");
        assert!(TAGS.contains(&name), "{name}");
        if ends {
            assert_eq!(open.pop().as_deref(), Some(name), "{open:?}");
        } else if !empty && name != "meta" {
            open.push(name.to_owned());
        }
    }
    assert!(open.is_empty(), "{open:?}");
    let text = tag.replace_all(&body, "");
    assert!(!text.contains(['<', '>']), "{text}");
    for attribute in ["src=", "href=", "onerror=", "url(", "@import", "xmlns"] {
        let tags: String = tag.find_iter(&body).map(|found| found.as_str()).collect();
        assert!(!tags.contains(attribute) && !page[..page.find("</style>").unwrap()].contains(attribute));
    }
    assert!(page.contains("name=\"viewport\"") && page.contains("prefers-color-scheme: dark"));
    assert!(!Regex::new(r"\b(NaN|inf)\b").unwrap().is_match(page), "a number that is none");
    assert_eq!(page.matches("<svg").count(), page.matches("role=\"img\"").count());
}

/// Trains on examples of which one is hostile; returns the page.
fn page(folder: &Path, words: &[&str]) -> String {
    let data = folder.join("data.jsonl");
    let lines = fs::read_to_string(demo("train.jsonl")).unwrap();
    let hostile =
        serde_json::json!({ "prompt": HOSTILE, "completion": format!(" {HOSTILE}") }).to_string() + "\n";
    // Some of both kinds are held out.
    let lines: String = lines.lines().take(8).map(|line| format!("{line}\n")).collect();
    fs::write(&data, hostile.repeat(4) + &lines).unwrap();
    let (base, out, page) = (demo("model.gguf"), folder.join("a.safetensors"), folder.join("page.html"));
    let first = [
        "build".as_ref(),
        base.as_os_str(),
        "--data".as_ref(),
        data.as_os_str(),
        "-o".as_ref(),
        out.as_os_str(),
    ];
    let mut all: Vec<&std::ffi::OsStr> = first.to_vec();
    all.extend(["--report".as_ref(), page.as_os_str()]);
    all.extend(words.iter().map(std::ffi::OsStr::new));
    run(&all).done();
    fs::read_to_string(page).unwrap()
}

#[test]
fn a_page_shows_the_run_and_asks_for_nothing() {
    let (one, two) = (folder(), folder());
    let words = [
        "--valid-split",
        "0.4",
        "--targets",
        "q,gate",
        "--rank",
        "4",
        "--max-steps",
        "12",
        "--anchor-texts",
        "4",
    ];
    let shown = page(one.path(), &[&words[..], &["--threads", "1"]].concat());
    check_page(&shown);
    assert!(shown.contains("&lt;script&gt;alert(1)") && !shown.contains("<script"), "{shown}");
    for part in [
        "examples that were not trained",
        "Rounding a model",
        "<h2>Loss</h2>",
        "attn_q",
        "lr = ",
        "adapter, SHA-256",
        "Before",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let digest = curmerge_formats::sha256_hex(&fs::read(one.path().join("a.safetensors")).unwrap());
    assert!(shown.contains(&digest) && !shown.contains(one.path().to_str().unwrap()));
    let changed =
        curmerge_formats::adapter::Adapter::read(one.path().join("a.safetensors")).unwrap().targets.len();
    assert_eq!(shown.matches(" %</td></tr>").count(), changed + 2, "the shares, and two of what was learnt");
    assert_eq!(page(two.path(), &[&words[..], &["--threads", "2"]].concat()), shown);
}

#[test]
fn a_page_says_what_was_not_measured() {
    let scratch = folder();
    let words = ["--anchor", "none", "--max-steps", "1", "--targets", "q", "--rank", "2", "--no-hold-out"];
    let shown = page(scratch.path(), &words);
    check_page(&shown);
    assert!(
        shown.contains("what was learnt was not measured")
            && shown.contains("what was forgotten was not measured")
    );
}

#[test]
fn a_page_replaces_no_other_output() {
    let scratch = folder();
    let (base, data, out) = (demo("model.gguf"), demo("train.jsonl"), scratch.path().join("a.safetensors"));
    for page in [&out, &data] {
        let line = curmerge!("build", base, "--data", data, "-o", out, "--report", page).refusal();
        assert!(line.contains("output"), "{line}");
    }
    let line =
        curmerge!("build", base, "--data", data, "-o", out, "--report", "no/such/folder.html").refusal();
    assert!(line.contains("no/such"), "{line}");
    assert!(!out.exists());
}

#[test]
fn logs_are_drawn() {
    let scratch = folder();
    let (base, data) = (demo("model.gguf"), demo("train.jsonl"));
    let log = |lr: &str| {
        let (out, log) = (scratch.path().join("a.st"), scratch.path().join(format!("lr-{lr}.jsonl")));
        curmerge!(
            "build",
            base,
            "--data",
            data,
            "-o",
            out,
            "--metrics",
            log,
            "--max-steps",
            "20",
            "--lr",
            lr,
            "--anchor",
            "none",
            "--targets",
            "q"
        )
        .done();
        log
    };
    let (slow, fast) = (log("1e-3"), log("1e-2"));
    let drawn = |words: &[&std::ffi::OsStr], columns: &str| {
        let out = program().arg("plot").args(words).env("COLUMNS", columns).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    let one = drawn(&[slow.as_os_str()], "60");
    assert!(one.lines().all(|line| line.chars().count() <= 110) && !one.contains('\u{1b}'), "{one}");
    assert!(one.contains("lr-1e-3.jsonl, validation") && one.contains("20 steps, loss "), "{one}");
    let both =
        drawn(&[slow.as_os_str(), fast.as_os_str(), "--metric".as_ref(), "learning-rate".as_ref()], "80");
    assert!(both.contains("a lr-1e-3.jsonl") && both.contains("b lr-1e-2.jsonl"), "{both}");
    let svg = scratch.path().join("runs.svg");
    curmerge!("plot", slow, fast, "-o", svg).done();
    let text = fs::read_to_string(&svg).unwrap();
    assert!(text.starts_with("<svg xmlns=") && text.ends_with("</svg>\n"), "{text}");
    assert_eq!(text.matches("<polyline").count(), 4, "two runs, each with its validation");
    assert!(curmerge!("plot", slow, "-o", svg).done().stderr.contains("replaced"));
    let figures = curmerge!("plot", slow, fast, "--json").json();
    assert_eq!(figures["runs"][1]["steps"], 20, "{figures}");
    // A log that is being written, one that is none, and an output that is an input.
    let whole = fs::read_to_string(&slow).unwrap();
    fs::write(&slow, &whole[..whole.len() - 5]).unwrap();
    curmerge!("plot", slow).done();
    let line = curmerge!("plot", data).refusal();
    assert!(line.contains("train.jsonl:1: is not a line of metrics"), "{line}");
    assert!(curmerge!("plot", fast, "-o", fast).refusal().contains("input"));
    fs::write(&slow, "").unwrap();
    assert!(curmerge!("plot", slow).refusal().contains("has no measurement"));
}
