//! safetensors files, valid and hostile.

use std::collections::BTreeMap;

use curmerge_formats::{DType, Error, NewSafeTensor, SafeTensors, SafeTensorsLayout, shard_index};
use tempfile::TempDir;

use crate::whole_file::{numbered, written};

fn metadata() -> BTreeMap<String, String> {
    BTreeMap::from([("format".into(), "pt".into()), ("a \"quoted\"\nkey".into(), "é\u{1}".into())])
}

fn tensors() -> Vec<NewSafeTensor> {
    let tensor =
        |name: &str, dtype, shape: &[u64]| NewSafeTensor { name: name.into(), dtype, shape: shape.into() };
    vec![
        tensor("z.weight", DType::BF16, &[3, 4]),
        tensor("a.weight", DType::F32, &[2]),
        tensor("empty", DType::I64, &[0, 7]),
        tensor("scalar", DType::U8, &[]),
        tensor("quoted \"name\"", DType::F8_E4M3, &[5]),
    ]
}

/// A small valid file; byte i of the data is i.
fn valid() -> Vec<u8> {
    let layout = SafeTensorsLayout::new(&metadata(), tensors()).unwrap();
    numbered(layout.header(), layout.file_bytes())
}

fn open(folder: &TempDir, bytes: &[u8]) -> Result<SafeTensors, Error> {
    SafeTensors::open(&written(folder, "model.safetensors", bytes))
}

#[test]
fn written_files_read_back() {
    let folder = TempDir::new().unwrap();
    let bytes = valid();
    let file = open(&folder, &bytes).unwrap();
    let layout = SafeTensorsLayout::new(&metadata(), tensors()).unwrap();
    assert_eq!(file.metadata(), &metadata());
    assert_eq!(layout.header().len() % 8, 0);
    // The order is that of the data. A tensor without bytes comes before the one at its offset.
    let names: Vec<_> = file.tensors().iter().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(names, ["z.weight", "a.weight", "empty", "scalar", "quoted \"name\""]);
    for tensor in layout.tensors() {
        assert_eq!(file.tensor(&tensor.name), Some(tensor));
    }
    let a = file.tensor("a.weight").unwrap();
    assert_eq!(file.data(a), [24, 25, 26, 27, 28, 29, 30, 31]);
    assert_eq!(file.tensor("missing"), None);
}

#[test]
fn names_are_sorted_in_the_header() {
    let bytes = valid();
    let text = String::from_utf8_lossy(&bytes);
    let at = |name: &str| text.find(name).unwrap();
    assert!(at("__metadata__") < at("\"a.weight\"") && at("\"a.weight\"") < at("\"z.weight\""));
}

#[test]
fn another_reader_sees_the_same() {
    let bytes = valid();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.len(), 5);
    let z = file.tensor("z.weight").unwrap();
    assert_eq!(
        (z.shape(), z.dtype(), z.data()),
        (&[3, 4][..], safetensors::Dtype::BF16, &bytes[bytes.len() - 38..][..24])
    );
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let found: BTreeMap<_, _> = header.metadata().clone().unwrap().into_iter().collect();
    assert_eq!(found, metadata());
}

#[test]
fn files_of_another_writer_are_read() {
    let data = [0u8; 48];
    let views: Vec<_> = [("b", vec![4, 3]), ("a", vec![12])]
        .into_iter()
        .map(|(name, shape)| {
            (name, safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, &data).unwrap())
        })
        .collect();
    let bytes = safetensors::serialize(views, None).unwrap();
    let folder = TempDir::new().unwrap();
    let file = open(&folder, &bytes).unwrap();
    assert_eq!(file.tensor("b").unwrap().shape, [4, 3]);
    assert!(file.metadata().is_empty());
}

#[test]
fn every_type_of_another_writer_is_read() {
    use safetensors::Dtype;
    let all = [
        Dtype::BOOL,
        Dtype::F4,
        Dtype::F6_E2M3,
        Dtype::F6_E3M2,
        Dtype::U8,
        Dtype::I8,
        Dtype::F8_E5M2,
        Dtype::F8_E4M3,
        Dtype::F8_E8M0,
        Dtype::F8_E4M3FNUZ,
        Dtype::F8_E5M2FNUZ,
        Dtype::I16,
        Dtype::U16,
        Dtype::F16,
        Dtype::BF16,
        Dtype::I32,
        Dtype::U32,
        Dtype::F32,
        Dtype::C64,
        Dtype::F64,
        Dtype::I64,
        Dtype::U64,
    ];
    let folder = TempDir::new().unwrap();
    for dtype in all {
        let data: Vec<u8> = (0..2 * dtype.bitsize() as u8).collect();
        let view = safetensors::tensor::TensorView::new(dtype, vec![4, 4], &data).unwrap();
        let bytes = safetensors::serialize([("t", view)], None).unwrap();
        let file = open(&folder, &bytes).unwrap();
        let t = file.tensor("t").unwrap();
        assert_eq!(
            (t.dtype.name(), &t.shape[..], file.data(t)),
            (&*dtype.to_string(), &[4, 4][..], &data[..])
        );
    }
    assert_eq!(DType::all().filter(|dtype| dtype.safetensors_name().is_some()).count(), all.len());
}

#[test]
fn every_prefix_is_refused_in_one_line() {
    let folder = TempDir::new().unwrap();
    let bytes = valid();
    for length in 0..bytes.len() {
        let error = open(&folder, &bytes[..length]).expect_err(&format!("{length} bytes")).to_string();
        assert!(!error.contains('\n') && error.contains("model.safetensors"), "{error}");
    }
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

/// A file with this header and `data` bytes of data.
fn raw(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

#[test]
fn attacks_are_refused_with_their_place() {
    let one = |entry: &str| format!(r#"{{"t":{entry}}}"#);
    let huge = u64::MAX;
    // Eight tensors that end at byte 2^64, counting the 8 bytes and the header before them.
    let wrap = {
        let eighth = 1u64 << 61;
        let header = |last: u64| {
            let entries: Vec<String> = (0..8)
                .map(|i| {
                    let (begin, end) = (i * (eighth - 1), if i == 7 { last } else { (i + 1) * (eighth - 1) });
                    format!(
                        r#""{i}":{{"dtype":"U8","shape":[{}],"data_offsets":[{begin},{end}]}}"#,
                        end - begin
                    )
                })
                .collect();
            format!("{{{}}}", entries.join(","))
        };
        let length = header(huge).len() as u64 + 8;
        header(0u64.wrapping_sub(length))
    };
    let attacks: Vec<(&str, Vec<u8>)> = vec![
        ("too few", vec![0; 7]),
        ("said to have 18446744073709551615 bytes", [&huge.to_le_bytes()[..], b"{}"].concat()),
        ("said to have 3 bytes", [&3u64.to_le_bytes()[..], b"{}"].concat()),
        ("header", raw("", 0)),
        ("header", raw("[]", 0)),
        ("header", raw("{} x", 0)),
        ("header", raw("\u{feff}{}", 0)),
        ("header", raw(&"[".repeat(100_000), 0)),
        ("header", raw(&one(&format!("{}{}", "{\"a\":".repeat(100_000), "}")), 0)),
        ("header", raw(&one("{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}"), 4)),
        ("header", raw(&one("{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,6]}"), 6)),
        ("header", raw(&one("{\"dtype\":\"F32\",\"shape\":[1e99],\"data_offsets\":[0,6]}"), 6)),
        ("header", raw(&one("{\"dtype\":\"F32\",\"data_offsets\":[0,4]}"), 4)),
        ("header", raw(&one("{\"dtype\":\"U8\",\"dtype\":\"I8\",\"shape\":[4],\"data_offsets\":[0,4]}"), 4)),
        ("header", raw(r#"{"__metadata__":{"a":1}}"#, 0)),
        ("\"a\" occurs twice", raw(r#"{"__metadata__":{"a":"1","a":"2"}}"#, 0)),
        ("\"__metadata__\" occurs twice", raw(r#"{"__metadata__":{},"__metadata__":{}}"#, 0)),
        (
            "\"t\" occurs twice",
            raw(
                r#"{"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#,
                1,
            ),
        ),
        (
            "\"t\" occurs twice",
            raw(
                r#"{"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"\u0074":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#,
                1,
            ),
        ),
        ("\"Q4_0\" is not known", raw(&one(r#"{"dtype":"Q4_0","shape":[32],"data_offsets":[0,18]}"#), 18)),
        ("are not a range", raw(&one(r#"{"dtype":"U8","shape":[1],"data_offsets":[4,0]}"#), 4)),
        (
            "are not a range",
            raw(&one(&format!(r#"{{"dtype":"U8","shape":[0],"data_offsets":[{huge},{huge}]}}"#)), 4),
        ),
        ("takes 8 bytes, but it has 4", raw(&one(r#"{"dtype":"F32","shape":[2],"data_offsets":[0,4]}"#), 4)),
        ("too large", raw(&one(&format!(r#"{{"dtype":"U8","shape":[{huge},2],"data_offsets":[0,4]}}"#)), 4)),
        ("too large", raw(&one(&format!(r#"{{"dtype":"F64","shape":[{huge}],"data_offsets":[0,4]}}"#)), 4)),
        (
            "its shape has 65 lengths",
            raw(&one(&format!(r#"{{"dtype":"U8","shape":{:?},"data_offsets":[0,1]}}"#, [1; 65])), 1),
        ),
        ("not a whole number of bytes", raw(&one(r#"{"dtype":"F4","shape":[3],"data_offsets":[0,1]}"#), 1)),
        ("past the end", raw(&one(r#"{"dtype":"U8","shape":[9],"data_offsets":[0,9]}"#), 4)),
        ("past the end", raw(&wrap, 0)),
        ("begin at byte", raw(&one(r#"{"dtype":"U8","shape":[3],"data_offsets":[1,4]}"#), 4)),
        (
            "begin at byte",
            raw(
                r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}"#,
                6,
            ),
        ),
        ("the tensors end at", raw(&one(r#"{"dtype":"U8","shape":[3],"data_offsets":[0,3]}"#), 4)),
    ];
    let folder = TempDir::new().unwrap();
    for (expected, bytes) in attacks {
        let error = open(&folder, &bytes).expect_err(expected).to_string();
        assert!(error.contains(expected), "expected {expected:?} in {error:?}");
        assert!(!error.contains('\n') && error.len() < 600, "{error}");
    }
}

#[test]
fn files_that_no_reader_accepts_are_not_written() {
    let tensor =
        |name: &str, dtype, shape: &[u64]| NewSafeTensor { name: name.into(), dtype, shape: shape.into() };
    let refused = |tensors| {
        assert!(matches!(SafeTensorsLayout::new(&BTreeMap::new(), tensors), Err(Error::Encode { .. })));
    };
    refused(vec![tensor("t", DType::Q4_0, &[32])]);
    refused(vec![tensor("__metadata__", DType::F32, &[1])]);
    refused(vec![tensor("t", DType::F32, &[1]), tensor("t", DType::F32, &[1])]);
    refused(vec![tensor("t", DType::F32, &[u64::MAX, 2])]);
    refused(vec![tensor("t", DType::F4, &[3])]);
    refused(vec![tensor("a", DType::U8, &[u64::MAX]), tensor("b", DType::U8, &[1])]);
}

#[test]
fn a_shard_index_names_files_of_its_folder_only() {
    let folder = TempDir::new().unwrap();
    assert_eq!(shard_index(folder.path()).unwrap(), None);
    let path = folder.path().join("model.safetensors.index.json");
    let index = |json: &str| {
        std::fs::write(&path, json).unwrap();
        shard_index(folder.path())
    };
    let valid = index(r#"{"metadata":{"total_size":1},"weight_map":{"a":"model-1.safetensors"}}"#).unwrap();
    assert_eq!(valid, Some(BTreeMap::from([("a".into(), "model-1.safetensors".into())])));
    for hostile in [
        "",
        "[]",
        "{}",
        r#"{"weight_map":{"a":1}}"#,
        r#"{"weight_map":{"a":"x","a":"y"}}"#,
        r#"{"weight_map":{"a":"../x"}}"#,
        r#"{"weight_map":{"a":"/etc/passwd"}}"#,
        r#"{"weight_map":{"a":".."}}"#,
    ] {
        let error = index(hostile).expect_err(hostile).to_string();
        assert!(!error.contains('\n'), "{error}");
    }
}
