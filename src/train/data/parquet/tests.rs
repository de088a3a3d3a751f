use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::super::rows::Content;
use super::*;

/// A file of `fixtures/parquet/make.py`.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/parquet").join(name)
}

fn read(path: &Path) -> Result<Vec<Value>, String> {
    let mut rows = Vec::new();
    let mut work = |part: Content<'_>| {
        let Content::Rows(part) = part else { panic!("rows") };
        for (line, row) in part {
            assert_eq!(line, rows.len() + 1);
            rows.push(serde_json::from_str(&row).unwrap());
        }
        Ok(ControlFlow::Continue(()))
    };
    parts(path, File::open(path).unwrap(), &mut work).map_err(|error| error.to_string())?;
    Ok(rows)
}

fn read_bytes(bytes: &[u8]) -> Result<Vec<Value>, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("d.parquet");
    fs::write(&path, bytes).unwrap();
    read(&path)
}

const FILES: [&str; 7] = ["plain", "snappy", "gzip", "zstd", "zstd_v2", "lz4", "delta"];

#[test]
fn every_codec_encoding_and_version_gives_the_rows_that_pyarrow_reads() {
    let text = fs::read_to_string(fixture("rows.jsonl")).unwrap();
    let right: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for name in FILES {
        let rows = read(&fixture(&format!("{name}.parquet"))).unwrap();
        assert_eq!(rows.len(), right.len(), "{name}");
        for (row, right) in rows.iter().zip(&right) {
            assert_eq!(row, right, "{name}");
        }
    }
}

#[test]
fn what_json_has_no_word_for_is_a_text_or_null() {
    let right = [
        json!({ "text": "a", "day": "2024-02-29", "nan": null, "raw": null }),
        json!({ "text": "b", "day": null, "nan": 1.5, "raw": "text" }),
    ];
    let mut rows = read(&fixture("others.parquet")).unwrap();
    // With or without the time of the day.
    let day = rows[0]["day"].as_str().unwrap().to_owned();
    assert!(day.starts_with("2024-02-29"), "{day}");
    rows[0]["day"] = "2024-02-29".into();
    assert_eq!(rows, right);
}

#[test]
fn what_is_not_read_is_refused_by_its_name() {
    let error = read(&fixture("brotli.parquet")).unwrap_err();
    assert!(
        error.contains("compressed by brotli, and only snappy, gzip, zstd and lz4_raw are read"),
        "{error}"
    );
    let error = read(&fixture("deep.parquet")).unwrap_err();
    assert!(error.contains("nested deeper"), "{error}");
    for (bytes, wanted) in [
        (&b"PAR1"[..], "cut short"),
        (b"PAR1....PAR1", "longer than the file"),
        (b"PAR1\0\0\0\0\0\0\0\0PARE", "encrypted"),
        (b"PAR1\xff\xff\xff\x7fPAR1", "longer than the file"),
        (b"PAR1\0\0\0\0PAR1", "end too early"),
    ] {
        let error = read_bytes(bytes).unwrap_err();
        assert!(error.contains(wanted), "{error}");
    }
}

#[test]
fn a_schema_of_any_depth_is_refused_before_it_is_walked() {
    // A list of elements, each with a name, a repetition and one child.
    let mut footer = vec![0x15, 2, 0x19, 0xfc];
    let mut count = 1_000_000u32;
    while count >= 0x80 {
        footer.push(count as u8 | 0x80);
        count >>= 7;
    }
    footer.push(count as u8);
    (0..1_000_000).for_each(|_| footer.extend([0x35, 0, 0x18, 1, b'a', 0x15, 2, 0]));
    footer.extend([0x16, 2, 0x19, 0x0c, 0]);
    let length = (footer.len() as u32).to_le_bytes();
    let error = read_bytes(&[b"PAR1", &footer[..], &length, b"PAR1"].concat()).unwrap_err();
    assert!(error.contains("nested deeper"), "{error}");
}

#[test]
fn damaged_files_never_panic() {
    for name in FILES {
        let bytes = fs::read(fixture(&format!("{name}.parquet"))).unwrap();
        for cut in (0..bytes.len()).step_by(97) {
            let error = read_bytes(&bytes[..cut]).unwrap_err();
            assert!(!error.contains('\n'), "{error}");
        }
        for at in (4..bytes.len()).step_by(37) {
            let mut damaged = bytes.clone();
            damaged[at] ^= [0xff, 0x80, 1][at % 3];
            if let Err(error) = read_bytes(&damaged) {
                assert!(!error.contains('\n') && error.len() < 600, "{error}");
            }
        }
    }
}
