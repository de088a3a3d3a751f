//! Data files of other forms than JSON lines.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use serde_json::{Value, json};

use super::folder;
use crate::support::fixture::demo;

/// The losses of a short run on this file, and what it says of the data.
fn losses(data: &Path) -> (Value, String) {
    let folder = folder();
    let adapter = folder.path().join("a.safetensors");
    let usual = ["--anchor", "none", "--targets", "q", "--rank", "4", "--max-steps", "3", "--no-hold-out"];
    let [a, b, c, d, e, f, g, h, i] = usual;
    let answer = curmerge!(
        "build",
        demo("model.gguf"),
        "--data",
        data,
        "-o",
        adapter,
        a,
        b,
        c,
        d,
        e,
        f,
        g,
        h,
        i,
        "--json"
    )
    .json();
    let said =
        curmerge!("build", demo("model.gguf"), "--data", data, "-o", adapter, a, b, c, d, e, f, g, h, i)
            .done();
    let line = said.stdout.lines().find(|line| line.starts_with("data ")).unwrap().to_owned();
    (answer["losses"].clone(), line)
}

#[test]
fn the_same_examples_train_the_same_from_every_form() {
    let folder = folder();
    let lines = fs::read_to_string(demo("train.jsonl")).unwrap();
    let rows: Vec<Value> = lines.lines().take(40).map(|line| serde_json::from_str(line).unwrap()).collect();
    let rows: Vec<Value> = rows
        .into_iter()
        .map(|row| json!({ "prompt": row["prompt"], "completion": row["completion"] }))
        .collect();
    let quoted = |value: &Value| format!("\"{}\"", value.as_str().unwrap().replace('"', "\"\""));
    let table = |separator: char| {
        let mut table = format!("Prompt{separator}Completion{separator}note\n");
        for row in &rows {
            writeln!(table, "{}{separator}{}{separator}", quoted(&row["prompt"]), quoted(&row["completion"]))
                .unwrap();
        }
        table
    };
    let json_lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    let whole = json!({ "version": 2, "data": rows });
    let gzip = |text: &str| {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        writer.write_all(text.as_bytes()).unwrap();
        writer.finish().unwrap()
    };
    let zstandard = |text: &str| compress_to_vec(text.as_bytes(), CompressionLevel::Fastest);
    let archives = [
        ("a.jsonl.gz", gzip(&json_lines), "JSON lines"),
        ("a.csv.gz", gzip(&table(',')), "a table (CSV)"),
        ("b", zstandard(&json_lines), "JSON lines"),
    ];
    let forms = [
        ("a.jsonl", json_lines.clone(), "data     JSON lines, columns prompt, completion: 40 examples"),
        ("a.txt", json_lines, "JSON lines"),
        (
            "a.json",
            serde_json::to_string_pretty(&rows).unwrap(),
            "data     JSON, columns prompt, completion: 40",
        ),
        ("b.json", whole.to_string(), "JSON"),
        ("a.csv", table(','), "data     a table (CSV), columns prompt, completion: 40"),
        ("a.tsv", table('\t'), "a table (TSV)"),
        ("a.dat", table(';'), "a table (CSV)"),
    ];
    let forms = forms.map(|(name, text, wanted)| (name, text.into_bytes(), wanted));
    let found: Vec<_> = forms
        .into_iter()
        .chain(archives)
        .map(|(name, bytes, wanted)| {
            let data = folder.path().join(name);
            fs::write(&data, bytes).unwrap();
            let (losses, line) = losses(&data);
            assert!(line.contains(wanted), "{line}");
            losses
        })
        .collect();
    assert!(found.iter().all(|losses| *losses == found[0]), "{found:?}");
}
