//! ONNX models, valid and hostile. fixtures/onnx/goldens.json has what the onnx package reads in the valid
//! ones.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use curmerge_formats::onnx::{AttributeValue, Dimension, ElementType, Onnx, Storage, ValueType};
use curmerge_formats::{Container, Error, detect, sha256_hex};
use serde_json::Value;
use tempfile::TempDir;

use crate::whole_file::written;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/onnx").join(name)
}

fn open(folder: &TempDir, bytes: &[u8]) -> Result<Onnx, Error> {
    Onnx::open(&written(folder, "model.onnx", bytes))
}

#[test]
fn tensors_are_those_that_the_onnx_package_reads() {
    let goldens = fs::read(fixture("goldens.json")).unwrap();
    let goldens: BTreeMap<String, Vec<Value>> = serde_json::from_slice(&goldens).unwrap();
    for (file, expected) in goldens {
        let path = fixture(&file);
        assert_eq!(detect(&path).unwrap(), Container::Onnx);
        let model = Onnx::open(&path).unwrap();
        let mut tensors = model.tensors();
        for golden in &expected {
            let position = tensors.iter().position(|t| golden["name"] == t.name).unwrap();
            let tensor = tensors.remove(position);
            let place = format!("{file} {}", tensor.name);
            assert_eq!(golden["type"], tensor.element.name(), "{place}");
            assert_eq!(golden["dims"], serde_json::json!(tensor.dims), "{place}");
            let Some(raw) = golden["raw"].as_str() else {
                assert!(model.data(tensor).is_err());
                continue;
            };
            let data = model.data(tensor).unwrap();
            assert_eq!((raw, tensor.bytes), (sha256_hex(&data).as_str(), data.len() as u64), "{place}");
            match model.position(tensor).unwrap() {
                Some((file, offset)) => {
                    let file = file.map_or(model.bytes(), |file| model.external_files()[file].file.bytes());
                    assert_eq!(file[offset as usize..][..data.len()], *data, "{place}");
                }
                None => assert!(matches!(data, Cow::Owned(_)), "{place}"),
            }
            let decoded = model.decode(tensor).map(|values| {
                sha256_hex(&values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>())
            });
            assert_eq!(golden["f32"].as_str(), decoded.ok().as_deref(), "{place}");
        }
        assert!(tensors.is_empty(), "{tensors:?}");
    }
}

#[test]
fn the_graph_is_read() {
    let model = Onnx::open(&fixture("kinds.onnx")).unwrap();
    assert_eq!((model.ir_version(), model.producer()), (10, ("fixture", "1.0")));
    assert_eq!(
        (model.opset(""), model.opset("ai.onnx"), model.opset("com.microsoft")),
        (Some(21), Some(21), Some(1))
    );
    assert_eq!(model.metadata(), [("author".into(), "curmerge".into()), ("note".into(), "é".into())]);
    let inputs = &model.graph().inputs;
    assert_eq!(inputs[0].name, "x");
    let shape = Some(vec![Dimension::Named("batch".into()), Dimension::Fixed(4)]);
    assert_eq!(inputs[0].value_type, Some(ValueType::Tensor { element: ElementType::FLOAT, shape }));
    let names = |name: &str| model.users_of(name).map(|node| node.op_type.clone()).collect::<Vec<_>>();
    assert_eq!(names("w.raw"), ["MatMul"]);
    // Its nested graphs use the value.
    assert_eq!(names("b.typed"), ["If"]);
    assert_eq!(names("half"), ["Mul"]);
    assert_eq!(model.producer_of("xw").unwrap().name, "/layer/MatMul");
    assert_eq!(model.decode(model.constant("half").unwrap()).unwrap(), [0.5]);
    assert!(model.constant("bias").is_none());
    let bias = model.producer_of("bias").unwrap().attribute("value_floats");
    assert_eq!(bias, Some(&AttributeValue::Floats(vec![0.5, -0.5, 1.0])));

    let model = Onnx::open(&fixture("external.onnx")).unwrap();
    let files: Vec<_> = model.external_files().iter().map(|file| file.location.as_str()).collect();
    assert_eq!(files, ["weights.data", "part/bias.data"]);
    let gemm = model.users_of("down.weight").next().unwrap();
    assert_eq!((gemm.op_type.as_str(), gemm.int("transB")), ("Gemm", Some(1)));
    let place = &model.initializer("down.weight").unwrap().storage;
    assert_eq!(place, &Storage::External { file: 0, offset: 128 });
}

/// Opens a file and reads everything in it. An error must be one line that names the file.
fn read_all(folder: &TempDir, bytes: &[u8]) -> Result<(), String> {
    let check = |error: Error| {
        let error = error.to_string();
        assert!(!error.contains('\n') && error.contains("model.onnx") && error.len() < 700, "{error}");
        error
    };
    let model = open(folder, bytes).map_err(check)?;
    for tensor in model.tensors() {
        let _ = model.data(tensor).map_err(check);
        let _ = model.decode(tensor).map_err(check);
    }
    Ok(())
}

#[test]
fn every_prefix_is_refused_in_one_line() {
    let folder = TempDir::new().unwrap();
    let bytes = fs::read(fixture("kinds.onnx")).unwrap();
    let end = bytes.len();
    // Only whole fields follow the graph. A file cut between them is still a valid model.
    let whole: Vec<usize> = (0..end).filter(|&length| read_all(&folder, &bytes[..length]).is_ok()).collect();
    assert!(whole.len() <= 4 && whole.iter().all(|&length| length + 60 > end), "{whole:?} of {end}");
}

#[test]
fn flipped_bytes_never_panic() {
    let folder = TempDir::new().unwrap();
    for name in ["kinds.onnx", "unpacked.onnx"] {
        let bytes = fs::read(fixture(name)).unwrap();
        for at in 0..bytes.len() {
            for mask in [0x01, 0x08, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] ^= mask;
                let _ = read_all(&folder, &damaged);
            }
        }
    }
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn int(number: u64, value: i64) -> Vec<u8> {
    [varint(number << 3), varint(value as u64)].concat()
}

fn bytes(number: u64, payload: &[u8]) -> Vec<u8> {
    [varint(number << 3 | 2), varint(payload.len() as u64), payload.to_vec()].concat()
}

/// A model with one initializer of these fields.
fn with_tensor(fields: &[Vec<u8>]) -> Vec<u8> {
    let tensor = [fields.concat(), bytes(8, b"t")].concat();
    [int(1, 10), bytes(7, &bytes(5, &tensor))].concat()
}

/// A model with one tensor of two floats in an external file.
fn with_external(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut fields = vec![int(1, 2), int(2, 1), int(14, 1)];
    fields.extend(
        entries
            .iter()
            .map(|(key, value)| bytes(13, &[bytes(1, key.as_bytes()), bytes(2, value.as_bytes())].concat())),
    );
    with_tensor(&fields)
}

#[test]
fn attacks_are_refused_with_their_place() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("w.data"), [0; 64]).unwrap();
    let deep = (0..200).fold(Vec::new(), |graph: Vec<u8>, _| {
        let attribute = [bytes(1, b"g"), int(20, 5), bytes(6, &graph)].concat();
        bytes(1, &[bytes(4, b"If"), bytes(5, &attribute)].concat())
    });
    let two = |name: &[u8]| bytes(5, &[int(1, 0), int(2, 1), bytes(8, name)].concat());
    let at = |location: &str| with_external(&[("location", location)]);
    let attacks: Vec<(&str, Vec<u8>)> = vec![
        ("no graph", int(1, 10)),
        ("no ir_version", bytes(7, b"")),
        ("occurs twice", [int(1, 10), int(1, 10)].concat()),
        ("wire type 3", vec![0x0b]),
        ("not a field number", vec![0, 0]),
        ("said to have 5 bytes", vec![0x3a, 5, 0]),
        ("goes past the end", [vec![0x08], vec![0xff; 10]].concat()),
        ("must be a varint", bytes(1, b"x")),
        ("not UTF-8", bytes(2, b"\xff")),
        ("more than 32 deep", [int(1, 10), bytes(7, &deep)].concat()),
        ("a dimension is -1", with_tensor(&[int(1, -1), int(2, 1), bytes(9, &[0; 4])])),
        ("too large", with_tensor(&[int(1, 1 << 40), int(1, 1 << 40), int(2, 1), bytes(9, &[0; 4])])),
        ("too large", with_tensor(&[int(1, i64::MAX), int(1, 2), int(2, 3)])),
        ("takes 8 bytes, but it has 4", with_tensor(&[int(1, 2), int(2, 1), bytes(9, &[0; 4])])),
        ("takes 2 entries", with_tensor(&[int(1, 2), int(2, 1), bytes(4, &[0; 4])])),
        ("not a list of its numbers", with_tensor(&[int(1, 1), int(2, 1), bytes(4, &[0; 3])])),
        ("has no place there", with_tensor(&[int(1, 1), int(2, 1), bytes(5, &[0])])),
        ("raw_data and in float_data", with_tensor(&[int(2, 1), bytes(9, &[0; 4]), bytes(4, &[0; 4])])),
        ("no values", with_tensor(&[int(1, 1), int(2, 1)])),
        ("no data_type", with_tensor(&[int(1, 0)])),
        ("data_type 99", with_tensor(&[int(1, 0), int(2, 99)])),
        ("one segment", with_tensor(&[bytes(3, b"")])),
        ("texts cannot be raw", with_tensor(&[int(1, 1), int(2, 8), bytes(9, b"x")])),
        ("two initializers", [int(1, 10), bytes(7, &[two(b"a"), two(b"a")].concat())].concat()),
        ("has no name", [int(1, 10), bytes(7, &two(b""))].concat()),
        ("no op_type", [int(1, 10), bytes(7, &bytes(1, b""))].concat()),
        ("no location", with_external(&[("offset", "0")])),
        ("leads out of it", at("../w.data")),
        ("leads out of it", at("a/../../w.data")),
        ("leads out of it", at("/etc/passwd")),
        ("not a portable path", at("..\\w.data")),
        ("not a portable path", at("C:w.data")),
        ("not the name of a file", at("")),
        ("not the name of a file", at("./")),
        ("not a path", at("a\0b")),
        ("cannot be opened", at("missing.data")),
        ("the model itself", at("model.onnx")),
        ("past the end", with_external(&[("location", "w.data"), ("offset", "60")])),
        ("past the end", with_external(&[("location", "w.data"), ("offset", "18446744073709551615")])),
        ("its offset is \"-4\"", with_external(&[("location", "w.data"), ("offset", "-4")])),
        ("external data have 4", with_external(&[("location", "w.data"), ("length", "4")])),
        ("location twice", with_external(&[("location", "w.data"), ("location", "w.data")])),
    ];
    for (expected, attack) in attacks {
        let error = read_all(&folder, &attack).expect_err(expected);
        assert!(error.contains(expected), "expected {expected:?} in {error:?}");
    }
    read_all(&folder, &with_external(&[("location", "./w.data"), ("offset", "56"), ("length", "8")]))
        .unwrap();
}

#[cfg(unix)]
#[test]
fn links_do_not_lead_out_of_the_folder() {
    use std::os::unix::fs::symlink;
    let (folder, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let secret = other.path().join("secret");
    fs::write(&secret, [0; 8]).unwrap();
    symlink(&secret, folder.path().join("w.data")).unwrap();
    symlink("loop.data", folder.path().join("loop.data")).unwrap();
    let at = |location| with_external(&[("location", location)]);
    assert!(read_all(&folder, &at("w.data")).unwrap_err().contains("leads out of the model's folder"));
    assert!(read_all(&folder, &at("loop.data")).unwrap_err().contains("cannot be opened"));
    // Hugging Face's cache has links to the model and its data, whose real files are in one folder.
    fs::write(other.path().join("blob"), at("w.data")).unwrap();
    let model = folder.path().join("linked.onnx");
    symlink(other.path().join("blob"), &model).unwrap();
    Onnx::open(&model).unwrap();
}
