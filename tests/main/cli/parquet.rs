//! Examples in Parquet files.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use super::folder;
use crate::support::fixture::{self, demo};
use crate::support::program::program;

/// A file of `fixtures/parquet/make.py`.
fn file(name: &str) -> PathBuf {
    fixture::path("parquet").join(name)
}

#[test]
fn a_parquet_file_trains_like_its_rows_as_json_lines() {
    let scratch = folder();
    let (base, out) = (demo("model.gguf"), scratch.path().join("a.st"));
    let losses = |name: &str| {
        let data = file(name);
        let ran = curmerge!(
            "build",
            base,
            "--data",
            data,
            "-o",
            out,
            "--anchor",
            "none",
            "--max-steps",
            "2",
            "--targets",
            "q",
            "--rank",
            "4",
            "--label-column",
            "label",
            "--label-names",
            "bad,good",
            "--json"
        );
        ran.json()["losses"].take()
    };
    let right = losses("rows.jsonl");
    for name in ["snappy.parquet", "zstd.parquet"] {
        assert_eq!(losses(name), right, "{name}");
    }
    // Content tells it, whatever its name.
    let renamed = scratch.path().join("data.jsonl");
    fs::copy(file("gzip.parquet"), &renamed).unwrap();
    let said = curmerge!("data", renamed).done().stdout;
    assert!(said.contains("Parquet, columns prompt, completion, 60 rows"), "{said}");
    let said = curmerge!("data", file("sharegpt.parquet")).done().stdout;
    assert!(said.contains("user: hi\nassistant: ho"), "{said}");
    let scores = curmerge!(
        "eval",
        base,
        "--data",
        renamed,
        "--label-column",
        "label",
        "--label-names",
        "bad,good",
        "--json"
    );
    assert_eq!(scores.json()["examples"], 60);
}

#[test]
fn what_is_wrong_with_a_parquet_file_names_its_row() {
    let data = file("zstd.parquet");
    let line = curmerge!("data", data, "--messages-column", "turns").refusal();
    assert!(line.contains("zstd.parquet:1: \"messages\" is empty"), "{line}");
    let line = curmerge!("data", data, "--text-column", "category").refusal();
    assert!(line.contains("zstd.parquet:3: has nothing in column category"), "{line}");
    let mut command = program();
    command.args(["data", "-"]).stdin(Stdio::from(fs::File::open(data).unwrap()));
    let ran = command.output().unwrap();
    let line = String::from_utf8(ran.stderr).unwrap();
    assert!(line.contains("standard input is a Parquet file; save it"), "{line}");
}
