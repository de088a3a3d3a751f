//! GGUF files, valid and hostile.

use std::path::{Path, PathBuf};

use curmerge_formats::{Array, DType, Error, Gguf, GgufLayout, NewTensor, Value};
use tempfile::TempDir;

use crate::whole_file::{numbered, written};

fn metadata() -> Vec<(String, Value)> {
    let text = |text: &str| text.to_owned();
    vec![
        (text("general.architecture"), Value::String(text("llama"))),
        (text("z.u8"), Value::U8(200)),
        (text("z.i8"), Value::I8(-3)),
        (text("z.u16"), Value::U16(60000)),
        (text("z.i16"), Value::I16(-30000)),
        (text("a.u32"), Value::U32(7)),
        (text("a.i32"), Value::I32(-7)),
        (text("a.f32"), Value::F32(1e-5)),
        (text("a.bool"), Value::Bool(true)),
        (text("a.u64"), Value::U64(u64::MAX)),
        (text("a.i64"), Value::I64(i64::MIN)),
        (text("a.f64"), Value::F64(0.1)),
        (text("tokens"), Value::Array(Array::String(vec![text("<s>"), text(""), text("Ġé\n")]))),
        (text("types"), Value::Array(Array::I32(vec![1, -2, 3]))),
        (text("scores"), Value::Array(Array::F32(vec![0.5, -0.25]))),
        (text("flags"), Value::Array(Array::Bool(vec![true, false]))),
        (text("empty"), Value::Array(Array::U16(vec![]))),
    ]
}

fn tensors() -> Vec<NewTensor> {
    let tensor = |name: &str, dtype, dims: &[u64]| NewTensor { name: name.into(), dtype, dims: dims.into() };
    vec![
        tensor("token_embd.weight", DType::Q8_0, &[64, 3]),
        tensor("blk.0.attn_q.weight", DType::F16, &[4, 5]),
        tensor("output_norm.weight", DType::F32, &[3]),
        tensor("scalar", DType::F32, &[]),
    ]
}

/// A small valid file; byte i of the data is i.
fn valid() -> Vec<u8> {
    let layout = GgufLayout::new(3, 32, &metadata(), tensors()).unwrap();
    numbered(layout.header(), layout.file_bytes())
}

fn open(folder: &TempDir, bytes: &[u8]) -> Result<Gguf, Error> {
    Gguf::open(&written(folder, "model.gguf", bytes))
}

#[test]
fn written_files_read_back_with_their_types_and_order() {
    let folder = TempDir::new().unwrap();
    let bytes = valid();
    let file = open(&folder, &bytes).unwrap();
    assert_eq!(file.version(), 3);
    assert_eq!(file.metadata(), metadata());
    assert_eq!(file.get("a.u32"), Some(&Value::U32(7)));
    assert_eq!(file.get("missing"), None);
    let layout = GgufLayout::new(3, 32, &metadata(), tensors()).unwrap();
    assert_eq!(file.tensors(), layout.tensors());
    assert_eq!(layout.header(), &bytes[..layout.header().len()]);
    let q = file.tensor("blk.0.attn_q.weight").unwrap();
    assert_eq!(q.shape(), [5, 4]);
    assert_eq!(file.data(q), &bytes[q.offset as usize..][..40]);
    assert!(file.tensors().iter().all(|tensor| tensor.offset % 32 == 0));
}

#[test]
fn another_reader_sees_the_same() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, valid()).unwrap();
    let mut container = gguf_rs::get_gguf_container(path.to_str().unwrap()).unwrap();
    let model = container.decode().unwrap();
    assert_eq!(model.metadata()["general.architecture"], "llama");
    assert_eq!(model.metadata()["a.u32"], 7);
    let found: Vec<_> = model.tensors().iter().map(|t| (t.name.clone(), t.kind, t.size)).collect();
    assert_eq!(found[0], ("token_embd.weight".to_owned(), 8, 204));
    assert_eq!(found[1], ("blk.0.attn_q.weight".to_owned(), 1, 40));
    assert_eq!(found[2], ("output_norm.weight".to_owned(), 0, 12));
}

#[test]
fn alignment_follows_its_key() {
    let folder = TempDir::new().unwrap();
    let keys = vec![("general.alignment".to_owned(), Value::U32(128))];
    let layout = GgufLayout::new(3, 128, &keys, tensors()).unwrap();
    let mut bytes = layout.header().to_vec();
    bytes.resize(layout.file_bytes() as usize, 0);
    let file = open(&folder, &bytes).unwrap();
    assert_eq!(file.alignment(), 128);
    assert_eq!(file.tensors(), layout.tensors());
    assert!(matches!(GgufLayout::new(3, 32, &keys, tensors()), Err(Error::Encode { .. })));
}

#[test]
fn version_2_is_read_like_version_3() {
    let folder = TempDir::new().unwrap();
    let mut bytes = valid();
    bytes[4] = 2;
    let (old, new) = (open(&folder, &bytes).unwrap(), open(&folder, &valid()).unwrap());
    assert_eq!((old.version(), new.version()), (2, 3));
    assert_eq!((old.metadata(), old.tensors()), (new.metadata(), new.tensors()));
    let layout = GgufLayout::new(2, 32, &metadata(), tensors()).unwrap();
    assert_eq!(layout.header(), &bytes[..layout.header().len()]);
}

#[test]
fn a_big_endian_file_is_refused_with_help() {
    let folder = TempDir::new().unwrap();
    // In version 3, the magic is unchanged and every number is big-endian.
    let bytes = [&b"GGUF\0\0\0\x03"[..], &0u64.to_be_bytes(), &0u64.to_be_bytes()].concat();
    let error = open(&folder, &bytes).unwrap_err().to_string();
    assert!(error.contains("model.gguf: version: the file is big-endian; convert it with"), "{error}");
}

#[test]
fn every_prefix_is_refused_in_one_line() {
    let folder = TempDir::new().unwrap();
    let bytes = valid();
    // The padding after the last tensor may be missing.
    let needed = open(&folder, &bytes).unwrap().tensors().iter().map(|t| t.offset + t.bytes).max().unwrap();
    for length in 0..needed as usize {
        let error = open(&folder, &bytes[..length]).expect_err(&format!("{length} bytes")).to_string();
        assert!(!error.contains('\n') && error.contains("model.gguf"), "{error}");
    }
    assert!(open(&folder, &bytes[..needed as usize]).is_ok());
}

#[test]
fn flipped_bytes_never_panic() {
    let folder = TempDir::new().unwrap();
    let bytes = valid();
    for at in 0..bytes.len() {
        for mask in [0x01, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= mask;
            if let Ok(file) = open(&folder, &damaged) {
                file.tensors()
                    .iter()
                    .for_each(|tensor| assert_eq!(file.data(tensor).len() as u64, tensor.bytes));
            }
        }
    }
}

/// A header of raw parts: counts, then the rest.
fn raw(tensor_count: u64, key_count: u64, rest: &[&[u8]]) -> Vec<u8> {
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend(tensor_count.to_le_bytes());
    bytes.extend(key_count.to_le_bytes());
    rest.iter().for_each(|part| bytes.extend(*part));
    bytes
}

fn string(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text].concat()
}

fn raw_tensor(name: &str, dims: &[u64], kind: u32, offset: u64) -> Vec<u8> {
    let mut bytes = string(name.as_bytes());
    bytes.extend((dims.len() as u32).to_le_bytes());
    dims.iter().for_each(|dim| bytes.extend(dim.to_le_bytes()));
    bytes.extend(kind.to_le_bytes());
    bytes.extend(offset.to_le_bytes());
    bytes
}

fn raw_key(key: &[u8], kind: u32, value: &[u8]) -> Vec<u8> {
    [&string(key)[..], &kind.to_le_bytes(), value].concat()
}

#[test]
fn attacks_are_refused_with_their_place() {
    let space = [0u8; 4096];
    let array = |kind: u32, count: u64| [&kind.to_le_bytes()[..], &count.to_le_bytes()].concat();
    let many = u64::MAX;
    let attacks: Vec<(&str, Vec<u8>)> = vec![
        ("begin with GGUF", b"GGML\x03\0\0\0".to_vec()),
        ("version 1", b"GGUF\x01\0\0\0".to_vec()),
        ("version 9", b"GGUF\x09\0\0\0".to_vec()),
        ("big-endian", b"GGUF\0\0\0\x03".to_vec()),
        ("tensor count", raw(many, 0, &[&space])),
        ("key count", raw(0, many, &[&space])),
        ("key number 0", raw(0, 1, &[&many.to_le_bytes(), &space])),
        ("not UTF-8", raw(0, 1, &[&raw_key(b"\xff", 4, &[0; 4]), &space])),
        ("key \"k\"", raw(0, 1, &[&raw_key(b"k", 8, &string(b"\xc3")), &space])),
        ("key is empty", raw(0, 1, &[&raw_key(b"", 4, &[0; 4]), &space])),
        ("value type 13", raw(0, 1, &[&raw_key(b"k", 13, &[0; 4]), &space])),
        ("truth value is 2", raw(0, 1, &[&raw_key(b"k", 7, &[2]), &space])),
        ("items are promised", raw(0, 1, &[&raw_key(b"k", 9, &array(12, many)), &space])),
        ("items are promised", raw(0, 1, &[&raw_key(b"k", 9, &array(8, 1 << 40)), &space])),
        ("items are promised", raw(0, 1, &[&raw_key(b"k", 9, &array(0, 1 << 62)), &space])),
        ("array of arrays", raw(0, 1, &[&raw_key(b"k", 9, &array(9, 1)), &space])),
        ("element type 77", raw(0, 1, &[&raw_key(b"k", 9, &array(77, 1)), &space])),
        ("key \"k\": occurs twice", raw(0, 2, &[&raw_key(b"k", 0, &[0]), &raw_key(b"k", 0, &[0]), &space])),
        ("alignment is 0", raw(0, 1, &[&raw_key(b"general.alignment", 4, &[0; 4]), &space])),
        ("alignment is 3", raw(0, 1, &[&raw_key(b"general.alignment", 4, &[3, 0, 0, 0]), &space])),
        (
            "alignment is 2147483648",
            raw(0, 1, &[&raw_key(b"general.alignment", 4, &[0, 0, 0, 0x80]), &space]),
        ),
        ("of type u64", raw(0, 1, &[&raw_key(b"general.alignment", 10, &[32, 0, 0, 0, 0, 0, 0, 0]), &space])),
        ("name is empty", raw(1, 0, &[&raw_tensor("", &[1], 0, 0), &space])),
        ("5 dimensions", raw(1, 0, &[&raw_tensor("t", &[1; 5], 0, 0), &space])),
        ("ggml type 4 ", raw(1, 0, &[&raw_tensor("t", &[32], 4, 0), &space])),
        ("ggml type 4294967295", raw(1, 0, &[&raw_tensor("t", &[32], u32::MAX, 0), &space])),
        ("dimension is zero", raw(1, 0, &[&raw_tensor("t", &[0, 4], 0, 0), &space])),
        ("too large", raw(1, 0, &[&raw_tensor("t", &[1 << 32, 1 << 32], 0, 0), &space])),
        ("too large", raw(1, 0, &[&raw_tensor("t", &[1 << 62], 0, 0), &space])),
        ("not a whole number of Q4_0 blocks", raw(1, 0, &[&raw_tensor("t", &[48, 2], 2, 0), &space])),
        ("offset 4", raw(1, 0, &[&raw_tensor("t", &[4], 0, 4), &space])),
        ("past the end", raw(1, 0, &[&raw_tensor("t", &[2000], 0, 0), &space])),
        ("past the end", raw(1, 0, &[&raw_tensor("t", &[1], 0, 1 << 20), &space])),
        ("past the end", raw(1, 0, &[&raw_tensor("t", &[1], 0, many - 31), &space])),
        ("occurs twice", raw(2, 0, &[&raw_tensor("t", &[8], 0, 0), &raw_tensor("t", &[8], 0, 32), &space])),
        ("overlap", raw(2, 0, &[&raw_tensor("t", &[9], 0, 0), &raw_tensor("s", &[8], 0, 32), &space])),
        ("overlap", raw(2, 0, &[&raw_tensor("t", &[8], 0, 0), &raw_tensor("s", &[8], 0, 0), &space])),
    ];
    let folder = TempDir::new().unwrap();
    for (expected, bytes) in attacks {
        let error = open(&folder, &bytes).expect_err(expected).to_string();
        assert!(error.contains(expected), "expected {expected:?} in {error:?}");
        assert!(!error.contains('\n') && error.len() < 500, "{error}");
    }
}

#[test]
fn files_that_no_reader_accepts_are_not_written() {
    let tensor = |name: &str, dtype, dims: &[u64]| NewTensor { name: name.into(), dtype, dims: dims.into() };
    let refused = |keys: &[(String, Value)], tensors: Vec<NewTensor>| {
        assert!(matches!(GgufLayout::new(3, 32, keys, tensors), Err(Error::Encode { .. })));
    };
    refused(&[], vec![tensor(&"n".repeat(64), DType::F32, &[1])]);
    refused(&[], vec![tensor("t", DType::U8, &[1])]);
    refused(&[], vec![tensor("t", DType::Q4_K, &[100])]);
    refused(&[], vec![tensor("t", DType::F32, &[1; 5])]);
    refused(&[], vec![tensor("t", DType::F32, &[u64::MAX, 2])]);
    refused(&[], vec![tensor("t", DType::F32, &[1]), tensor("t", DType::F32, &[1])]);
    refused(&[("k".into(), Value::U8(1)), ("k".into(), Value::U8(1))], vec![]);
    assert!(GgufLayout::new(1, 32, &[], vec![]).is_err());
}

#[test]
fn a_folder_or_missing_file_is_an_io_error() {
    for path in [Path::new("/"), &PathBuf::from("no/such/file.gguf")] {
        assert!(matches!(Gguf::open(path), Err(Error::Io { .. })));
    }
}
