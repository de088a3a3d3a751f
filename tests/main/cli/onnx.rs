//! Damaged, incomplete and hostile ONNX models: the program refuses them in one line and writes nothing.

use std::fs;
use std::path::{Path, PathBuf};

use super::folder;
use crate::support::fixture;
use crate::support::folder::copy;
use crate::support::onnx_writer::{FLOAT, Graph};
use crate::support::program::Ran;

const OPTIMUM: &str = "optimum";
const GENAI: &str = "genai-fp32";
const DATA: &str = "model.onnx.data";

/// A copy of a small export.
fn export(name: &str, folder: &Path) -> PathBuf {
    let to = folder.join(name);
    copy(&fixture::path("onnx_models/tiny").join(name), &to);
    to
}

fn converted(model: &Path) -> Ran {
    curmerge!("convert", model, model.parent().unwrap().join("out"), "--type", "f32")
}

/// Converts a model, which must be refused. The line must name the model's folder, and nothing may be
/// written.
#[track_caller]
fn refusal(model: &Path) -> String {
    let line = converted(model).refusal();
    assert!(line.contains(model.to_str().unwrap()), "{line}");
    assert!(!model.parent().unwrap().join("out").exists());
    line
}

/// Replaces bytes that occur once in the file.
#[track_caller]
fn patch(file: &Path, from: &[u8], to: &[u8]) {
    let bytes = fs::read(file).unwrap();
    let places: Vec<usize> =
        (0..=bytes.len() - from.len()).filter(|&at| bytes[at..].starts_with(from)).collect();
    let [at] = places[..] else { panic!("{} places", places.len()) };
    let patched = [&bytes[..at], to, &bytes[at + from.len()..]].concat();
    fs::write(file, patched).unwrap();
}

#[test]
fn a_truncated_model_is_refused() {
    let folder = folder();
    let model = export(OPTIMUM, folder.path());
    let whole = fs::read(model.join("model.onnx")).unwrap();
    for part in 0..12 {
        let length = whole.len() * part / 12;
        fs::write(model.join("model.onnx"), &whole[..length]).unwrap();
        let line = refusal(&model);
        assert!(line.contains("model.onnx") || part == 0, "{line}");
    }
}

#[test]
fn models_with_flipped_bytes_are_refused_or_converted() {
    let folder = folder();
    for name in [OPTIMUM, GENAI, "genai-int4", "torch-dynamo"] {
        let model = export(name, folder.path());
        let file = model.join("model.onnx");
        let whole = fs::read(&file).unwrap();
        for at in (0..whole.len()).step_by(whole.len() / 24) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x41;
            fs::write(&file, bytes).unwrap();
            let ran = converted(&model);
            if ran.status == Some(0) {
                fs::remove_dir_all(folder.path().join("out")).unwrap();
            } else {
                ran.refusal();
            }
        }
    }
}

#[test]
fn missing_or_short_external_data_is_refused() {
    let folder = folder();
    let model = export(GENAI, folder.path());
    let whole = fs::read(model.join(DATA)).unwrap();
    fs::write(model.join(DATA), &whole[..whole.len() - 1]).unwrap();
    let line = refusal(&model);
    assert!(line.contains("model.onnx") && line.contains("past the end"), "{line}");
    fs::remove_file(model.join(DATA)).unwrap();
    let line = refusal(&model);
    assert!(line.contains(DATA), "{line}");
    fs::create_dir(model.join(DATA)).unwrap();
    assert!(refusal(&model).contains(DATA));
}

#[test]
#[cfg(unix)]
fn circular_links_and_links_out_of_the_folder_are_refused() {
    let folder = folder();
    let model = export(GENAI, folder.path());
    let data = model.join(DATA);
    fs::rename(&data, folder.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(DATA, &data).unwrap();
    assert!(refusal(&model).contains(DATA));
    fs::remove_file(&data).unwrap();
    std::os::unix::fs::symlink("../elsewhere", &data).unwrap();
    let line = refusal(&model);
    assert!(line.contains(DATA), "{line}");
}

#[test]
fn external_data_outside_the_folder_is_refused() {
    let folder = folder();
    let model = export(GENAI, folder.path());
    let file = model.join("model.onnx");
    let whole = fs::read(&file).unwrap();
    // Each name is as long as the right one, so the lengths of the messages stay valid.
    for name in ["../../../data/x", "/etc/passwd/xyz", "model.onnx/data"] {
        assert_eq!(name.len(), DATA.len());
        let mut bytes = whole.clone();
        let first = (0..bytes.len()).find(|&at| bytes[at..].starts_with(DATA.as_bytes())).unwrap();
        bytes[first..first + name.len()].copy_from_slice(name.as_bytes());
        fs::write(&file, bytes).unwrap();
        let line = refusal(&model);
        assert!(line.contains("model.onnx"), "{name}: {line}");
    }
}

/// The description of the matrix of o_proj as the builder stores it: two dimensions, the element type, the
/// name.
fn described(dims: [u8; 2], kind: u8) -> Vec<u8> {
    let name = b"model.layers.0.attn.o_proj.MatMul.weight";
    [&[0x08, dims[0], 0x08, dims[1], 0x10, kind, 0x42, name.len() as u8][..], name].concat()
}

#[test]
fn wrong_dimensions_and_types_are_refused() {
    let folder = folder();
    for (dims, kind) in
        [([32, 33], 1), ([0, 32], 1), ([64, 16], 1), ([32, 32], 7), ([32, 32], 10), ([32, 32], 99)]
    {
        let model = export(GENAI, folder.path());
        patch(&model.join("model.onnx"), &described([32, 32], 1), &described(dims, kind));
        let line = refusal(&model);
        assert!(line.contains("o_proj") || line.contains("attn_output"), "{dims:?} {kind}: {line}");
    }
}

/// A model with one initializer of these dimensions, and 16 bytes of data.
fn with_dims(dims: &[i64]) -> Vec<u8> {
    let dims: Vec<u64> = dims.iter().map(|&dim| dim as u64).collect();
    let mut graph = Graph::default();
    graph.tensor("model.embed_tokens.weight", FLOAT, &dims, &[0; 16]);
    graph.model()
}

#[test]
fn negative_and_huge_dimensions_are_refused() {
    let folder = folder();
    let model = export(OPTIMUM, folder.path());
    for dims in [&[-1, 4][..], &[-2, -2], &[i64::MIN, 1], &[i64::MAX, 4], &[1 << 32, 1 << 32, 4], &[2, 3]] {
        fs::write(model.join("model.onnx"), with_dims(dims)).unwrap();
        for line in [refusal(&model), curmerge!("inspect", model).refusal()] {
            assert!(line.contains("model.embed_tokens.weight"), "{dims:?}: {line}");
        }
    }
}

#[test]
fn missing_and_damaged_files_beside_a_model_are_refused() {
    let folder = folder();
    let model = export(OPTIMUM, folder.path());
    // A folder needs no tokenizer, but a GGUF file does.
    let line = curmerge!("convert", model, folder.path().join("out.gguf")).refusal();
    assert!(line.contains("tokenizer"), "{line}");
    fs::write(model.join("config.json"), "{").unwrap();
    assert!(refusal(&model).contains("config.json"));
    fs::remove_file(model.join("config.json")).unwrap();
    assert!(refusal(&model).contains("config.json"));
    fs::copy(model.join("model.onnx"), model.join("model_fp16.onnx")).unwrap();
    let line = refusal(&model);
    assert!(line.contains("2 ONNX files"), "{line}");
}

#[test]
fn a_configuration_of_another_model_is_refused() {
    let folder = folder();
    let model = export(OPTIMUM, folder.path());
    for (from, to) in [("\"vocab_size\": 40", "\"vocab_size\": 41"), ("\"head_dim\": 16", "\"head_dim\": 8")]
    {
        let model = export(OPTIMUM, folder.path());
        patch(&model.join("config.json"), from.as_bytes(), to.as_bytes());
        assert!(refusal(&model).contains("tensor"), "{to}");
    }
    patch(&model.join("config.json"), b"\"num_hidden_layers\": 1", b"\"num_hidden_layers\": 2");
    assert!(refusal(&model).contains("blk.1"));
}
