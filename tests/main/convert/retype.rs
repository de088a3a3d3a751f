//! Conversions against llama-quantize. `fixtures/convert/make.py` describes the models, and made goldens.json
//! of llama-quantize's outputs.

use std::fs;
use std::path::{Path, PathBuf};

use curmerge::commands::report::errors;
use curmerge::convert::{FileType, retype};
use curmerge_formats::digest::hex;
use curmerge_formats::dtype::DType;
use curmerge_formats::gguf::{Array, Gguf, GgufLayout, GgufModel, NewTensor, Value};
use curmerge_formats::imatrix::Imatrix;
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

/// The rows of every matrix.
const ROWS: u64 = 2;

/// One of make.py's models.
struct Shape {
    name: &'static str,
    architecture: &'static str,
    layers: u32,
    heads: u32,
    /// Heads of keys and values.
    shared: u32,
    experts: u32,
    columns: u64,
    /// Whether the model has an output matrix besides the embedding.
    output: bool,
}

const fn shape(
    name: &'static str,
    [layers, heads, shared, experts]: [u32; 4],
    columns: u64,
    output: bool,
) -> Shape {
    Shape { name, architecture: "llama", layers, heads, shared, experts, columns, output }
}

const MODELS: &[Shape] = &[
    shape("shared", [16, 8, 2, 0], 256, true),
    shape("tied", [17, 4, 4, 0], 256, false),
    shape("seventy", [80, 8, 1, 0], 256, true),
    shape("experts", [9, 8, 2, 8], 256, true),
    shape("few-experts", [9, 8, 8, 4], 256, true),
    shape("half-blocks", [4, 8, 2, 0], 96, false),
    shape("odd", [4, 8, 2, 0], 80, true),
    Shape { architecture: "falcon", ..shape("falcon", [33, 8, 2, 0], 256, true) },
];

/// make.py's `spread`: a number in [0, 2).
fn spread(position: u64) -> f32 {
    (position.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f32 / (1 << 23) as f32
}

/// The names and dimensions of the tensors, in the order of the file.
fn tensors(shape: &Shape, output: bool) -> Vec<(String, Vec<u64>)> {
    let mut tensors = vec![("token_embd.weight".to_string(), vec![shape.columns, ROWS])];
    for layer in 0..shape.layers {
        let mut put = |part: &str, dims: Vec<u64>| tensors.push((format!("blk.{layer}.{part}.weight"), dims));
        ["attn_norm", "ffn_norm"].into_iter().for_each(|part| put(part, vec![shape.columns]));
        for part in ["attn_q", "attn_k", "attn_v", "attn_output"] {
            put(part, vec![shape.columns, ROWS]);
        }
        for part in ["ffn_gate", "ffn_up", "ffn_down"] {
            match shape.experts {
                0 => put(part, vec![shape.columns, ROWS]),
                count => put(&format!("{part}_exps"), vec![shape.columns, ROWS, count.into()]),
            }
        }
        if shape.experts > 0 {
            put("ffn_gate_inp", vec![shape.columns, shape.experts.into()]);
        }
    }
    tensors.push(("output_norm.weight".into(), vec![shape.columns]));
    if output {
        tensors.push(("output.weight".into(), vec![shape.columns, ROWS]));
    }
    tensors
}

fn write(path: &Path, metadata: &[(String, Value)], tensors: Vec<(String, Vec<u64>, Vec<f32>)>) {
    let new = tensors.iter().map(|(name, dims, _)| NewTensor {
        name: name.clone(),
        dtype: DType::F32,
        dims: dims.clone(),
    });
    let layout = GgufLayout::new(3, 32, metadata, new.collect()).unwrap();
    let mut bytes = layout.header().to_vec();
    for ((_, _, values), place) in tensors.iter().zip(layout.tensors()) {
        bytes.resize(place.offset as usize, 0);
        bytes.extend(values.iter().flat_map(|x| x.to_le_bytes()));
    }
    bytes.resize(layout.file_bytes() as usize, 0);
    fs::write(path, bytes).unwrap();
}

fn write_model(path: &Path, shape: &Shape) {
    let architecture = shape.architecture;
    let mut metadata = vec![("general.architecture".to_string(), Value::String(architecture.into()))];
    let mut number = |key: &str, value| metadata.push((format!("{architecture}.{key}"), Value::U32(value)));
    number("block_count", shape.layers);
    number("attention.head_count", shape.heads);
    number("attention.head_count_kv", shape.shared);
    if shape.experts > 0 {
        number("expert_count", shape.experts);
    }
    let mut start = 0;
    let with_values = |(name, dims): (String, Vec<u64>)| {
        let count = dims.iter().product::<u64>();
        let values = (start..start + count).map(|i| spread(i) - 1.0).collect();
        start += count;
        (name, dims, values)
    };
    write(path, &metadata, tensors(shape, shape.output).into_iter().map(with_values).collect());
}

fn write_imatrix(path: &Path, shape: &Shape) {
    let metadata = [
        ("general.type".to_string(), Value::String("imatrix".into())),
        ("imatrix.datasets".to_string(), Value::Array(Array::String(vec!["none".into()]))),
        ("imatrix.chunk_count".to_string(), Value::U32(1)),
        ("imatrix.chunk_size".to_string(), Value::U32(512)),
    ];
    let columns: Vec<f32> = (0..shape.columns).map(|i| (spread(i) * 16.0).floor() / 8.0).collect();
    let mut sums = Vec::new();
    for (name, dims) in tensors(shape, false) {
        if dims.len() > 1 && name != "token_embd.weight" && !name.contains("gate_inp") {
            let groups = dims.get(2).copied().unwrap_or(1);
            let repeated = columns.repeat(groups as usize);
            sums.push((format!("{name}.in_sum2"), vec![shape.columns, groups], repeated));
            sums.push((format!("{name}.counts"), vec![1, groups], vec![1.0; groups as usize]));
        }
    }
    write(path, &metadata, sums);
}

fn goldens() -> Json {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/convert/goldens.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn file_type(name: &str) -> FileType {
    clap::ValueEnum::from_str(name, true).unwrap_or_else(|e| panic!("{name}: {e}"))
}

#[test]
fn every_tensor_equals_llama_quantizes() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (model, matrix, out) = (path("model.gguf"), path("imatrix.gguf"), path("out.gguf"));
    let goldens = goldens();
    let mut compared = 0;
    for shape in MODELS {
        write_model(&model, shape);
        write_imatrix(&matrix, shape);
        let (gguf, imatrix) = (GgufModel::open(&model).unwrap(), Imatrix::open(&matrix).unwrap());
        for (case, imatrix) in
            [(shape.name.to_string(), None), (format!("{}, imatrix", shape.name), Some(&imatrix))]
        {
            for (kind, golden) in goldens[&case].as_object().unwrap() {
                retype(&gguf, file_type(kind), imatrix, &out, &[&model], None, |_, _| ()).unwrap();
                let found = Gguf::open(&out).unwrap();
                let mut types = serde_json::Map::new();
                let mut digest = Sha256::new();
                for tensor in found.tensors() {
                    let count = types.entry(tensor.dtype.to_string()).or_insert(0.into());
                    *count = (count.as_u64().unwrap() + 1).into();
                    digest.update(found.data(tensor));
                }
                assert_eq!(Json::Object(types), golden["types"], "{case}, {kind}");
                assert_eq!(hex(&digest.finalize()), golden["sha256"], "{case}, {kind}");
                let keys: Vec<&str> = found.metadata().iter().map(|(key, _)| key.as_str()).collect();
                assert_eq!(keys[keys.len() - 2..], ["general.quantization_version", "general.file_type"]);
                compared += 1;
            }
        }
    }
    assert_eq!(compared, MODELS.len() * (19 + 20));
}

#[test]
fn impossible_conversions_fail_and_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (model, matrix, out) = (path("model.gguf"), path("imatrix.gguf"), path("out.gguf"));
    write_model(&model, &MODELS[0]);
    let gguf = GgufModel::open(&model).unwrap();
    let refused = |gguf: &GgufModel, kind: &str, imatrix: Option<&Imatrix>, out: &Path| {
        errors::line(&retype(gguf, file_type(kind), imatrix, out, &[&model], None, |_, _| ()).unwrap_err())
    };
    assert!(refused(&gguf, "Q2_K_S", None, &out).contains("--imatrix"));
    write_imatrix(&matrix, &MODELS[5]);
    let other = Imatrix::open(&matrix).unwrap();
    let error = refused(&gguf, "q4_k_m", Some(&other), &out);
    assert!(error.contains("96 weights") && error.contains("256") && error.contains("blk.0.attn"), "{error}");
    assert!(refused(&gguf, "q8_0", None, &model).contains("input"), "the input was replaced");
    assert!(!out.exists());

    // Absurd metadata causes neither a panic nor a huge allocation.
    let mut bytes = fs::read(&model).unwrap();
    let key = b"llama.block_count";
    let at = bytes.windows(key.len()).position(|window| window == key).unwrap() + key.len() + 4;
    bytes[at..at + 4].fill(0xff);
    fs::write(path("layers.gguf"), bytes).unwrap();
    let many = GgufModel::open(&path("layers.gguf")).unwrap();
    retype(&many, FileType::Q4_K_M, None, &out, &[], None, |_, _| ()).unwrap();
    fs::remove_file(&out).unwrap();

    // A NaN is found only while writing. No output is left.
    let mut bytes = fs::read(&model).unwrap();
    let start = gguf.first().tensor("blk.1.attn_k.weight").unwrap().offset as usize;
    bytes[start..start + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(path("nan.gguf"), bytes).unwrap();
    let damaged = GgufModel::open(&path("nan.gguf")).unwrap();
    let error = refused(&damaged, "q4_0", None, &out);
    assert!(error.contains("nan.gguf") && error.contains("blk.1.attn_k") && error.contains("NaN"), "{error}");
    assert!(!out.exists());
}
