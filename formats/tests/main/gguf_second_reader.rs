//! The second reader of GGUF headers: it agrees on valid files, says what it does not know, and is safe on
//! hostile ones.

use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;

use curmerge_formats::gguf::{SecondOpinion, second_opinion};
use curmerge_formats::{Array, DType, Error, Gguf, GgufLayout, NewTensor, Value};
use tempfile::TempDir;

/// Every kind of value, with the extremes that JSON could lose.
fn metadata() -> Vec<(String, Value)> {
    let values = [
        Value::U8(255),
        Value::I8(-128),
        Value::U16(65535),
        Value::I16(-32768),
        Value::U32(u32::MAX),
        Value::I32(i32::MIN),
        Value::U64(u64::MAX),
        Value::I64(i64::MIN),
        Value::F32(0.1),
        Value::F32(f32::MIN_POSITIVE),
        Value::F32(f32::NAN),
        Value::F64(0.1),
        Value::F64(f64::MAX),
        Value::F64(f64::NEG_INFINITY),
        Value::Bool(true),
        Value::String("Ġé\n\0".into()),
        Value::Array(Array::F32(vec![1e-5, f32::INFINITY, -0.0])),
        Value::Array(Array::I64(vec![i64::MIN, 3])),
        Value::Array(Array::U8((0..=255).collect())),
        Value::Array(Array::Bool(vec![true, false])),
        Value::Array(Array::String(vec!["".into(), "b".into()])),
        Value::Array(Array::U16(vec![])),
    ];
    let long = Value::Array(Array::String((0..50).map(|i| i.to_string()).collect()));
    let keys = values.into_iter().enumerate().map(|(i, value)| (format!("key.{i}"), value));
    keys.chain([("tokenizer.ggml.tokens".into(), long)]).collect()
}

/// One tensor of each type that GGUF has.
fn tensors() -> Vec<NewTensor> {
    let types = DType::all().filter(|dtype| dtype.ggml_id().is_some());
    types
        .map(|dtype| NewTensor {
            name: format!("{dtype}.weight"),
            dtype,
            dims: vec![dtype.block_elements() as u64, 3],
        })
        .collect()
}

fn bytes(alignment: u64, metadata: &[(String, Value)], tensors: Vec<NewTensor>) -> Vec<u8> {
    let layout = GgufLayout::new(3, alignment, metadata, tensors).unwrap();
    let mut bytes = layout.header().to_vec();
    bytes.resize(layout.file_bytes() as usize, 7);
    bytes
}

fn written(folder: &TempDir, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join("model.gguf");
    fs::write(&path, bytes).unwrap();
    path
}

fn opinion(path: &std::path::Path) -> SecondOpinion {
    second_opinion(&Gguf::open(path).unwrap()).unwrap()
}

#[test]
fn it_agrees_on_every_kind_of_value_and_type() {
    let folder = TempDir::new().unwrap();
    let path = written(&folder, &bytes(32, &metadata(), tensors()));
    let found = opinion(&path);
    assert_eq!(found.disagreements, []);
    assert_eq!((found.tensors, found.keys), (tensors().len(), metadata().len()));
    let unknown = ["NVFP4", "Q1_0", "Q2_0"];
    let lines = unknown.map(|t| format!("tensor \"{t}.weight\": gguf-rs does not know type {t}"));
    assert_eq!(found.unknown, lines);
}

#[test]
fn it_says_which_alignment_it_does_not_know() {
    let folder = TempDir::new().unwrap();
    for (alignment, unknown) in [(4, 1), (8, 0), (256, 0)] {
        let keys = [("general.alignment".to_owned(), Value::U32(alignment))];
        let tensors = vec![NewTensor { name: "t".into(), dtype: DType::F32, dims: vec![3] }];
        let found = opinion(&written(&folder, &bytes(u64::from(alignment), &keys, tensors)));
        assert_eq!((found.disagreements.len(), found.unknown.len()), (0, unknown), "{found:?}");
    }
}

/// The bytes change between the two readings, as they would if one reader were wrong.
#[test]
fn a_disagreement_is_named() {
    let folder = TempDir::new().unwrap();
    let keys = [("general.name".to_owned(), Value::String("model".into()))];
    let tensors = vec![NewTensor { name: "blk.0.attn_q".into(), dtype: DType::F32, dims: vec![4, 2] }];
    let valid = bytes(32, &keys, tensors);
    let at = |word: &[u8]| valid.windows(word.len()).position(|w| w == word).unwrap() as u64;
    let entry = at(b"blk.0.attn_q");
    for (place, byte, expected) in [
        (at(b"general.name"), b'G', "key \"general.name\""),
        (at(b"model"), b'n', "key \"general.name\""),
        (entry, b'B', "tensor \"blk.0.attn_q\""),
        // After the name: the dimension count, the dimensions, the type, the offset.
        (entry + 12 + 4, 5, "tensor \"blk.0.attn_q\""),
        (entry + 12 + 20, 1, "tensor \"blk.0.attn_q\""),
        (entry + 12 + 24, 32, "tensor \"blk.0.attn_q\""),
        (entry + 12 + 20, 200, "whole file"),
    ] {
        let path = written(&folder, &valid);
        let file = Gguf::open(&path).unwrap();
        let mut changed = OpenOptions::new().write(true).open(&path).unwrap();
        changed.seek(SeekFrom::Start(place)).unwrap();
        changed.write_all(&[byte]).unwrap();
        let found = second_opinion(&file).unwrap();
        assert_eq!(found.disagreements[0].place, expected, "{found:?}");
    }
}

#[test]
fn hostile_files_that_our_reader_accepts_are_safe() {
    let folder = TempDir::new().unwrap();
    let keys = [&metadata()[..], &[("general.alignment".into(), Value::U32(8))]].concat();
    let valid = bytes(8, &keys, tensors());
    let header = valid.len().min(4000);
    let (mut accepted, mut disagreeing) = (0, 0);
    for at in 0..header {
        let mut damaged = valid.clone();
        damaged[at] ^= [0x01, 0x08, 0xff][at % 3];
        let path = written(&folder, &damaged);
        let Ok(file) = Gguf::open(&path) else { continue };
        let found = second_opinion(&file).unwrap();
        accepted += 1;
        disagreeing += usize::from(!found.disagreements.is_empty());
        let shown = found.disagreements.iter().flat_map(|d| [&d.place, &d.ours, &d.theirs]);
        shown.for_each(|text| assert!(text.len() < 1000 && !text.contains('\n') && !text.contains("panic")));
    }
    assert!(accepted > 300, "{accepted}");
    assert_eq!(disagreeing, 0, "of {accepted}");
}

#[test]
fn headers_that_would_take_gigabytes_are_refused() {
    let folder = TempDir::new().unwrap();
    let keys = [("key".to_owned(), Value::Array(Array::U8(vec![0; (1 << 22) + 1])))];
    let file = Gguf::open(&written(&folder, &bytes(32, &keys, vec![]))).unwrap();
    let error = second_opinion(&file).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    assert!(error.to_string().contains("model.gguf: header: "), "{error}");
}
