//! Writes one small valid file of each kind to `corpus/`, from which the fuzzer starts.

use std::collections::BTreeMap;

use curmerge_formats::*;

fn main() -> std::io::Result<()> {
    let bytes = |header: &[u8], length: u64| {
        let mut bytes = header.to_vec();
        bytes.resize(length as usize, 7);
        bytes
    };
    let keys = [
        ("general.architecture".to_owned(), Value::String("llama".to_owned())),
        ("general.alignment".to_owned(), Value::U32(8)),
        ("tokens".to_owned(), Value::Array(Array::String(vec!["a".to_owned(), "b".to_owned()]))),
        ("scores".to_owned(), Value::Array(Array::F32(vec![0.5]))),
        ("flag".to_owned(), Value::Bool(true)),
    ];
    let tensors = DType::all().filter(|dtype| dtype.ggml_id().is_some());
    let tensors = tensors
        .map(|dtype| NewTensor {
            name: dtype.name().to_owned(),
            dtype,
            dims: vec![dtype.block_elements() as u64, 2],
        })
        .collect();
    let gguf = GgufLayout::new(3, 8, &keys, tensors).expect("a valid layout");
    write("gguf", &bytes(gguf.header(), gguf.file_bytes()))?;

    let onnx = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/onnx/kinds.onnx");
    write("onnx", &std::fs::read(onnx)?)?;

    // One entry, `a`, with one value.
    write("imatrix", b"\x01\0\0\0\x01\0\0\0a\x02\0\0\0\x01\0\0\0\0\0\x80\x3f")?;

    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    let tensors = [(DType::BF16, vec![2, 2]), (DType::F4, vec![2]), (DType::I64, vec![0])];
    let tensors = tensors
        .into_iter()
        .map(|(dtype, shape)| NewSafeTensor { name: dtype.name().to_owned(), dtype, shape })
        .collect();
    let safe = SafeTensorsLayout::new(&metadata, tensors).expect("a valid layout");
    write("safetensors", &bytes(safe.header(), safe.file_bytes()))?;

    let adapter = Adapter {
        base: BaseInfo {
            name: "m".to_owned(),
            architecture: "llama".to_owned(),
            container: "gguf".to_owned(),
            other_tensors: BTreeMap::from([("n".to_owned(), sha256_hex(b""))]),
        },
        rank: 2,
        scale: 1.0,
        selection: "inverse".to_owned(),
        seed: 0,
        training: None,
        targets: vec![AdapterTarget {
            name: "q".to_owned(),
            cols: vec![0, 2],
            rows: vec![1],
            u: vec![0.5, -1.0],
            shape: [2, 3],
            stored_dtype: "F16".to_owned(),
            stored_sha256: sha256_hex(b"s"),
            values_sha256: sha256_hex(b"v"),
            sketch: Some(vec![0.25]),
            fisher: vec![],
        }],
    };
    write("adapter", &adapter.to_bytes().expect("a valid adapter"))
}

fn write(target: &str, bytes: &[u8]) -> std::io::Result<()> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("sound"), bytes)
}
