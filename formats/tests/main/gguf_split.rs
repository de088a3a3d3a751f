//! Models split into several GGUF files, valid and hostile.

use std::path::{Path, PathBuf};

use curmerge_formats::gguf::{GgufModel, split_metadata, split_name};
use curmerge_formats::{DType, Error, Gguf, GgufLayout, NewTensor, Value};
use tempfile::TempDir;

type Keys = Vec<(String, Value)>;

fn metadata() -> Keys {
    vec![
        ("general.architecture".into(), Value::String("llama".into())),
        ("general.alignment".into(), Value::U32(64)),
        ("z.last".into(), Value::F32(0.5)),
    ]
}

/// Writes a file of F32 vectors with these names, each filled with its length.
fn write(path: &Path, keys: &Keys, names: &[&str]) {
    let tensor = |name: &&str| NewTensor { name: name.to_string(), dtype: DType::F32, dims: vec![5] };
    let layout = GgufLayout::new(3, 64, keys, names.iter().map(tensor).collect()).unwrap();
    let mut bytes = layout.header().to_vec();
    bytes.resize(layout.file_bytes() as usize, 7);
    std::fs::write(path, bytes).unwrap();
}

const NAMES: [&[&str]; 3] = [&["a", "b"], &["c"], &["d", "e"]];

fn name(index: u64) -> String {
    split_name("model", index, 3)
}

/// Three valid splits.
fn valid() -> TempDir {
    let folder = TempDir::new().unwrap();
    for (index, names) in NAMES.iter().enumerate() {
        let keys = split_metadata(&metadata(), index, 3, 5).unwrap();
        write(&folder.path().join(name(index as u64)), &keys, names);
    }
    folder
}

fn first(folder: &TempDir) -> PathBuf {
    folder.path().join(name(0))
}

/// Writes split `index` again with another value of one key, or without the key.
fn change(folder: &TempDir, index: usize, key: &str, value: Option<Value>, names: &[&str]) {
    let mut keys = split_metadata(&metadata(), index, 3, 5).unwrap();
    keys.retain(|(own, _)| own != key);
    keys.extend(value.map(|value| (key.to_owned(), value)));
    write(&folder.path().join(name(index as u64)), &keys, names);
}

#[track_caller]
fn refusal(path: &Path, expected: &[&str]) {
    let error = GgufModel::open(path).expect_err("a refusal").to_string();
    for text in expected {
        assert!(error.contains(text), "expected {text:?} in {error:?}");
    }
    assert!(!error.contains('\n'), "{error}");
}

#[test]
fn the_first_split_opens_all() {
    let folder = valid();
    assert_eq!(name(0), "model-00001-of-00003.gguf");
    let model = GgufModel::open(&first(&folder)).unwrap();
    assert_eq!(model.files().len(), 3);
    assert_eq!(model.whole_metadata(), metadata());
    let found: Vec<_> = model.tensors().map(|(file, tensor)| (file, tensor.name.as_str())).collect();
    assert_eq!(found, [(0, "a"), (0, "b"), (1, "c"), (2, "d"), (2, "e")]);
    assert_eq!(model.tensor("d").unwrap().dims, [5]);
    assert!(model.tensor("f").is_none());
    // Each split is a GGUF file with the alignment of the model.
    let last = Gguf::open(&folder.path().join(name(2))).unwrap();
    assert_eq!((last.alignment(), last.metadata().len()), (64, 4));
    assert_eq!(last.get("split.no"), Some(&Value::U16(2)));
    assert_eq!(last.get("split.count"), Some(&Value::U16(3)));
    assert_eq!(last.get("split.tensors.count"), Some(&Value::I32(5)));
}

#[test]
fn a_whole_file_is_a_model_of_one() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("model.gguf");
    write(&path, &metadata(), NAMES[0]);
    let model = GgufModel::open(&path).unwrap();
    assert_eq!((model.files().len(), model.tensors().count()), (1, 2));
    // As `gguf-split --merge` leaves it, and as it writes a model that fits one split.
    for count in [0, 1] {
        let mut keys = metadata();
        keys.push(("split.count".into(), Value::U16(count)));
        write(&path, &keys, NAMES[0]);
        assert_eq!(GgufModel::open(&path).unwrap().whole_metadata(), metadata());
    }
}

#[test]
fn the_first_split_may_have_no_tensors() {
    // As `gguf-split --no-tensor-first-split` writes it.
    let folder = valid();
    change(&folder, 0, "", None, &[]);
    change(&folder, 1, "", None, &["a", "b", "c"]);
    let model = GgufModel::open(&first(&folder)).unwrap();
    assert_eq!((model.first().tensors().len(), model.tensors().count()), (0, 5));
}

#[test]
fn another_split_leads_to_the_first() {
    let folder = valid();
    let (second, first) = (folder.path().join(name(1)), first(&folder));
    refusal(&second, &[&name(1), "split 2 of 3", "name the first", first.to_str().unwrap()]);
    let renamed = folder.path().join("renamed.gguf");
    std::fs::rename(&second, &renamed).unwrap();
    refusal(&renamed, &["renamed.gguf", "split 2 of 3", "-00001-of-00003.gguf"]);
}

#[test]
fn a_missing_or_renamed_split_is_named() {
    let folder = valid();
    std::fs::remove_file(folder.path().join(name(2))).unwrap();
    refusal(&first(&folder), &[&name(2), "split 3 of 3: missing", "download", &name(0)]);
    let renamed = folder.path().join("renamed.gguf");
    std::fs::rename(first(&folder), &renamed).unwrap();
    refusal(&renamed, &["renamed.gguf", "rename it to end in -00001-of-00003.gguf"]);
}

#[test]
fn splits_that_do_not_belong_together_are_refused() {
    let folder = valid();
    let at = first(&folder);
    change(&folder, 1, "split.count", Some(Value::U16(4)), NAMES[1]);
    refusal(&at, &[&name(1), "\"split.count\": 4", "must be 3", "download"]);
    change(&folder, 1, "split.count", None, NAMES[1]);
    refusal(&at, &[&name(1), "\"split.count\": missing"]);
    change(&folder, 1, "split.no", Some(Value::U16(2)), NAMES[1]);
    refusal(&at, &[&name(1), "\"split.no\": 2", "must be 1"]);
    change(&folder, 1, "split.no", Some(Value::F32(1.0)), NAMES[1]);
    refusal(&at, &[&name(1), "\"split.no\": a f32 that is not a count"]);
    change(&folder, 1, "", None, &["b"]);
    refusal(&at, &[&name(1), "tensor \"b\": also in", &name(0)]);
    change(&folder, 1, "", None, &["c", "x"]);
    refusal(&at, &[&name(0), "\"split.tensors.count\": 5", "hold 6 tensors"]);
    std::fs::write(folder.path().join(name(1)), b"GGUF").unwrap();
    refusal(&at, &[&name(1), "version"]);
}

#[test]
fn hostile_counts_are_refused() {
    for (key, value, expected) in [
        ("split.count", Value::U64(u64::MAX), "-of-18446744073709551615.gguf"),
        ("split.count", Value::I32(-1), "a i32 that is not a count"),
        ("split.count", Value::U16(65535), "-00001-of-65535.gguf"),
        ("split.no", Value::U64(u64::MAX), "there are 3 splits"),
        ("split.no", Value::String("0".into()), "a string that is not a count"),
        ("split.tensors.count", Value::I32(-5), "a i32 that is not a count"),
        ("split.tensors.count", Value::I64(i64::MAX), "hold 5 tensors"),
    ] {
        let folder = valid();
        change(&folder, 0, key, Some(value), NAMES[0]);
        refusal(&first(&folder), &[expected, &name(0)]);
    }
    let folder = valid();
    change(&folder, 0, "split.tensors.count", None, NAMES[0]);
    refusal(&first(&folder), &["\"split.tensors.count\": missing"]);
    for (count, tensors) in [(1 << 16, 5), (3, 1 << 31)] {
        assert!(matches!(split_metadata(&[], 0, count, tensors), Err(Error::Encode { .. })));
    }
}
