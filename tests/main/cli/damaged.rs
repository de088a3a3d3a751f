//! Damage to an adapter or its base is found and named before anything is written.

use std::fs;
use std::path::Path;

use curmerge_formats::gguf::Gguf;
use curmerge_formats::safetensors::SafeTensors;

use super::{folder, small_adapter};
use crate::support::fixture::demo;

/// Copies a file and flips the lowest bit of the byte `at`.
fn flipped(file: &Path, at: usize, out: &Path) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 1;
    fs::write(out, bytes).unwrap();
}

#[test]
fn a_flipped_bit_in_the_adapter_is_named() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let (adapter, damaged, merged) = (path("adapter.st"), path("damaged"), path("merged.gguf"));
    small_adapter(&adapter);
    curmerge!("verify", adapter, "--base", demo("model.gguf")).done();
    let file = SafeTensors::open(&adapter).unwrap();
    for tensor in file.tensors() {
        for at in [tensor.offset, tensor.offset + tensor.bytes - 1] {
            flipped(&adapter, at as usize, &damaged);
            let line = curmerge!("verify", damaged).refusal();
            assert!(line.contains("damaged") && line.contains(&tensor.name), "{}: {line}", tensor.name);
        }
    }
    let header = file.tensors().iter().map(|t| t.offset).min().unwrap() as usize;
    for at in (0..header).step_by(header / 40) {
        flipped(&adapter, at, &damaged);
        let line = curmerge!("verify", damaged).refusal();
        assert!(line.contains("damaged: ") || line.contains(damaged.to_str().unwrap()), "byte {at}: {line}");
        let line = curmerge!("merge", demo("model.gguf"), damaged, "-o", merged).refusal();
        assert!(line.contains(damaged.to_str().unwrap()), "byte {at}: {line}");
        assert!(!merged.exists());
    }
}

#[test]
fn a_flipped_bit_in_the_base_is_named() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let (adapter, damaged, merged) = (path("adapter.st"), path("damaged.gguf"), path("merged.gguf"));
    small_adapter(&adapter);
    let base = Gguf::open(&demo("model.gguf")).unwrap();
    for name in ["blk.0.attn_q", "blk.0.ffn_down", "blk.1.ffn_up", "output_norm", "token_embd"] {
        let tensor = base.tensor(&format!("{name}.weight")).unwrap();
        // The low bit of the first quantized value, or of the lowest byte of the first F32.
        flipped(&demo("model.gguf"), tensor.offset as usize + 2, &damaged);
        let ran = curmerge!("verify", adapter, "--base", damaged, "--json");
        let found: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(found["differing"], serde_json::json!([name]));
        assert!(!found["sound"].as_bool().unwrap());
        let line = ran.refusal();
        assert!(line.contains(&format!("'{name}'")), "{line}");
        // A merge checks only the targets: their C and R must be those of training. Other tensors may differ.
        let merge = curmerge!("merge", damaged, adapter, "-o", merged);
        if name.ends_with("attn_q") || name.ends_with("ffn_down") {
            let line = merge.refusal();
            assert!(line.contains(&format!("'{name}'")), "{line}");
            assert!(!merged.exists());
            let line = curmerge!("run", damaged, "--adapter", adapter, "-p", "x").refusal();
            assert!(line.contains("--allow-other-base"), "{line}");
            let ran = curmerge!("merge", damaged, adapter, "-o", merged, "--allow-other-base").done();
            assert!(!ran.stderr.is_empty(), "no warning");
            fs::remove_file(&merged).unwrap();
        }
    }
}

#[test]
fn a_truncated_base_is_refused() {
    let folder = folder();
    let (whole, cut) = (fs::read(demo("model.gguf")).unwrap(), folder.path().join("cut.gguf"));
    let early = (0..64).chain((64..60_000).step_by(1499));
    let late = (60_000..whole.len()).step_by(whole.len() / 12).chain([whole.len() - 1]);
    for length in early.chain(late) {
        fs::write(&cut, &whole[..length]).unwrap();
        let line = curmerge!("inspect", cut, "--no-checksums").refusal();
        assert!(line.contains(cut.to_str().unwrap()), "{length}: {line}");
    }
}
