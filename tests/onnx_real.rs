//! Real exports of ONNX decoders, in a folder of model folders, against onnxruntime. Not run by default:
//!
//! `CURMERGE_ONNX=DIR CURMERGE_PYTHON=python cargo test --release --test onnx_real -- --ignored --nocapture`
//!
//! The interpreter has onnxruntime.

use std::path::{Path, PathBuf};

use curmerge::base::Base;
use curmerge::model::{Batch, Transformer};
use serde_json::{Value, json};

#[path = "support/python.rs"]
mod python;

fn named(variable: &str) -> PathBuf {
    std::env::var_os(variable)
        .unwrap_or_else(|| panic!("set {variable}; tests/onnx_real.rs says to what"))
        .into()
}

/// The folders with a model, by name, that CURMERGE_ONLY is part of.
fn folders() -> Vec<PathBuf> {
    let only = std::env::var("CURMERGE_ONLY").unwrap_or_default();
    let entries = std::fs::read_dir(named("CURMERGE_ONNX")).unwrap();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.join("model.onnx").is_file() && path.to_string_lossy().contains(&only));
    found.sort();
    found
}

/// Tokens of no meaning that the model has.
fn ids(base: &Base) -> Vec<u32> {
    (0..12).map(|i| (i * 37 + 5) % base.config().vocab as u32).collect()
}

/// The logits behind the last token, and the greatest behind each.
fn logits(base: &Base, ids: &[u32]) -> (Vec<f64>, Vec<f64>) {
    let model = Transformer::<f32>::new(base).unwrap();
    let mut batch = Batch::default();
    let first = batch.push_sequence(ids);
    (0..ids.len()).for_each(|i| batch.predict(first + i, 0));
    let logits = model.logits(&batch);
    let greatest = |row: ndarray::ArrayView1<f32>| row.fold(f32::NEG_INFINITY, |a, &b| a.max(b)).into();
    let last = logits.row(ids.len() - 1).iter().map(|&x| x.into()).collect();
    (last, logits.rows().into_iter().map(greatest).collect())
}

/// The largest difference, relative to the largest number of `right`.
fn error(found: &[f64], right: &[f64]) -> f64 {
    assert_eq!(found.len(), right.len());
    let largest = |numbers: &mut dyn Iterator<Item = f64>| {
        numbers.map(|x| if x.is_nan() { f64::INFINITY } else { x.abs() }).fold(0.0, f64::max)
    };
    largest(&mut found.iter().zip(right).map(|(a, b)| a - b)) / largest(&mut right.iter().copied())
}

fn numbers(value: &Value) -> Vec<f64> {
    serde_json::from_value(value.clone()).unwrap()
}

/// What onnxruntime says of some models.
fn ask(jobs: &[Value]) -> Vec<Value> {
    let out = tempfile::NamedTempFile::new().unwrap();
    let input = serde_json::to_vec(jobs).unwrap();
    python::run(&named("CURMERGE_PYTHON"), "onnx_logits.py", &[out.path().as_os_str()], &input);
    serde_json::from_slice(&std::fs::read(out.path()).unwrap()).unwrap()
}

fn job(path: &Path, base: &Base, ids: &[u32], decode: usize) -> Value {
    json!({ "model": path.join("model.onnx"), "ids": ids, "head": base.config().head_dim, "decode": decode })
}

/// How far logits may be off: what the model itself rounds.
fn tolerance(name: &str) -> f64 {
    match name {
        // onnxruntime computes in half precision.
        _ if name.contains("fp16") || name.contains("q4f16") => 2e-2,
        // transformers exports it by an attention that has no soft cap.
        "gemma2-optimum" => 1.0,
        _ => 1e-3,
    }
}

#[test]
#[ignore = "needs CURMERGE_ONNX and CURMERGE_PYTHON with onnxruntime"]
fn logits_equal_those_of_onnxruntime() {
    let (mut bad, mut refused) = (Vec::new(), Vec::new());
    for folder in folders() {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let base = match Base::open(&folder) {
            Ok(base) => base,
            Err(error) => {
                println!("{name}: {error}");
                refused.push(name);
                continue;
            }
        };
        let ids = ids(&base);
        let answer = ask(&[job(&folder, &base, &ids, 0)]).remove(0);
        if let Some(error) = answer["error"].as_str() {
            println!("{name}: onnxruntime: {error}");
            continue;
        }
        let (last, greatest) = logits(&base, &ids);
        let worst =
            error(&last, &numbers(&answer["logits"])).max(error(&greatest, &numbers(&answer["last"])));
        println!("{name}: relative error {worst:.1e}");
        if worst > tolerance(&name) {
            bad.push(name);
        }
    }
    assert!(bad.is_empty(), "{bad:?}");
}
