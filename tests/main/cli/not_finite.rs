//! Numbers that are NaN or infinite, and losses that rise, are failures: one line says where, and status 1.

use std::fs;
use std::path::{Path, PathBuf};

use curmerge::base::Base;
use curmerge_formats::gguf::Gguf;

use super::folder;
use super::refused::assert_says;
use crate::support::adapter::{Recipe, constant};
use crate::support::fixture::demo;

/// The demo model with NaN as the fourth number of this F32 tensor.
fn with_nan(folder: &Path, tensor: &str) -> PathBuf {
    let mut bytes = fs::read(demo("model.gguf")).unwrap();
    let offset = {
        let gguf = Gguf::open(&demo("model.gguf")).unwrap();
        let tensor = gguf.tensors().iter().find(|info| info.name == tensor).unwrap();
        assert_eq!(tensor.dtype.name(), "F32");
        tensor.offset as usize
    };
    bytes[offset + 12..offset + 16].copy_from_slice(&f32::NAN.to_le_bytes());
    let path = folder.join("nan.gguf");
    fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn a_weight_that_is_not_a_number_is_named() {
    let folder = folder();
    let model = with_nan(folder.path(), "blk.1.ffn_norm.weight");
    let (text, data) = (demo("text.txt"), demo("test.jsonl"));
    let adapter = folder.path().join("adapter.st");
    for ran in [
        curmerge!("run", model, "-p", "A cat"),
        curmerge!("eval", model, "--perplexity", text, "--chunks", "1"),
        curmerge!("eval", model, "--data", data),
        curmerge!("eval", model, "--data", data, "--generate"),
        curmerge!("eval", demo("model.gguf"), "--perplexity", text, "--chunks", "1", "--against", model),
        curmerge!("build", model, "--data", data, "--anchor", "none", "--protect", "none", "-o", adapter),
    ] {
        let against = ran.words.contains("--against");
        let line = ran.refusal();
        match against {
            true => assert_says(&line, &["KL", "not a finite number"]),
            false => assert_says(&line, &["nan.gguf", "'blk.1.ffn_norm'", "row 0, column 3 is NaN"]),
        }
    }
    assert!(!adapter.exists());
}

#[test]
fn an_adapter_that_overflows_is_a_failure() {
    let folder = folder();
    let path = folder.path().join("adapter.st");
    let base = Base::open(demo("model.gguf")).unwrap();
    let adapter = Recipe { targets: "q", ..Default::default() }.adapter(&base, constant(1e30));
    adapter.write(&path, &[]).unwrap();
    let line = curmerge!("run", demo("model.gguf"), "--adapter", path, "--scale", "1e30", "-p", "A cat");
    assert_says(&line.refusal(), &["a logit", "not a finite number"]);
}

#[test]
fn a_loss_that_rises_leaves_the_best_matrices_and_status_1() {
    let folder = folder();
    let adapter = folder.path().join("adapter.st");
    let data = folder.path().join("data.txt");
    fs::write(&data, &fs::read(demo("text.txt")).unwrap()[..3000]).unwrap();
    let ran = curmerge!(
        "build",
        demo("model.gguf"),
        "--data",
        data,
        "--valid",
        data,
        "--max-seq-len",
        "64",
        "--anchor",
        "none",
        "--protect",
        "none",
        "--lr",
        "10",
        "--max-steps",
        "6",
        "--valid-every",
        "2",
        "-o",
        adapter
    );
    assert_eq!(ran.status, Some(1), "{}", ran.stderr);
    let line = ran.stderr.lines().last().unwrap();
    assert_says(line, &["error: ", "adapter.st", "before training", "at the end", "lower --lr"]);
    assert_eq!(curmerge!("verify", adapter).status, Some(0));
}
