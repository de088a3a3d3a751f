//! GGUF, safetensors, ONNX, adapters and importance matrices.

use std::fs;

use super::Corpus;
use super::damage::damaged;
use crate::cli::small_adapter;
use crate::support::fixture::{demo, family, path};

/// Damaged files of each kind.
const FILES: u64 = 20;

/// Writes the files.
pub fn write(corpus: &mut Corpus<'_>) {
    let base = demo("model.gguf");
    let base = base.to_str().unwrap();
    let adapter = corpus.root.join("adapter.st");
    small_adapter(&adapter);
    let kinds: [(&str, Vec<u8>, &[&str]); 4] = [
        ("gguf", fs::read(family("gpt2", "model.gguf")).unwrap(), &["inspect", "@"]),
        ("onnx", fs::read(path("onnx/kinds.onnx")).unwrap(), &["inspect", "@", "--no-checksums"]),
        ("adapter", fs::read(&adapter).unwrap(), &["verify", "@", "--base", base]),
        ("safetensors", fs::read(family("gpt2", "hf").join("model.safetensors")).unwrap(), &["inspect", "@"]),
    ];
    for (kind, sound, words) in &kinds {
        corpus.file(&format!("containers/sound.{kind}"), sound, words);
        for number in 0..FILES {
            corpus.file(&format!("containers/damaged-{number}.{kind}"), &damaged(sound, number), words);
        }
    }
    for (name, bytes) in hand_made() {
        corpus.file(&format!("containers/{name}"), &bytes, &["inspect", "@", "--no-checksums"]);
    }
}

fn hand_made() -> Vec<(&'static str, Vec<u8>)> {
    let gguf = |version: u32, tensors: u64, keys: u64, rest: &[u8]| {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(version.to_le_bytes());
        bytes.extend(tensors.to_le_bytes());
        bytes.extend(keys.to_le_bytes());
        bytes.extend(rest);
        bytes
    };
    let safetensors = |length: u64, header: &str| {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes
    };
    // A key `a` of an array in an array, and so on.
    let mut arrays = b"\x01\0\0\0\0\0\0\0a\x09\0\0\0".to_vec();
    arrays.extend(b"\x09\0\0\0\x01\0\0\0\0\0\0\0".repeat(10_000));
    let own = |header: &str| safetensors(header.len() as u64, header);
    vec![
        ("many-tensors.gguf", gguf(3, u64::MAX, 0, b"")),
        ("many-keys.gguf", gguf(3, 0, u64::MAX, b"")),
        ("version.gguf", gguf(0, 0, 0, b"")),
        ("version-greatest.gguf", gguf(u32::MAX, 0, 0, b"")),
        ("no-tensors.gguf", gguf(3, 0, 0, b"")),
        ("long-key.gguf", gguf(3, 0, 1, &u64::MAX.to_le_bytes())),
        ("arrays.gguf", gguf(3, 0, 1, &arrays)),
        ("long-header.safetensors", safetensors(u64::MAX, "{}")),
        ("short-header.safetensors", safetensors(1, "{}")),
        ("empty-header.safetensors", safetensors(0, "")),
        ("deep-header.safetensors", own(&"{\"a\":".repeat(100_000))),
        ("offsets.safetensors", own("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}")),
        (
            "shape.safetensors",
            own("{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}"),
        ),
        ("empty.onnx", Vec::new()),
        ("group.onnx", b"\x0b".repeat(100_000)),
        ("nested.onnx", b"\x3a\xff\xff\xff\xff\x0f".repeat(1000)),
    ]
}
