//! Real exports of ONNX decoders, from the folder that CURMERGE_ONNX names, compared with onnxruntime.

use std::path::Path;

use curmerge::base::{Base, Files};
use curmerge::merge::{MergeOptions, Source, merge};
use curmerge::model::Transformer;
use serde_json::{Value, json};

use crate::support::adapter::{Recipe, random};
use crate::support::decoder::{logits, written};
use crate::support::environment;
use crate::support::goldens::{error, numbers};
use crate::support::real_exports::{bases, ran};

/// Arbitrary tokens of the model.
fn ids(base: &Base) -> Vec<u32> {
    (0..12).map(|i| (i * 37 + 5) % base.config().vocab as u32).collect()
}

/// The folder of the model's configuration.
fn base_folder(base: &Base) -> &Path {
    let Files::Onnx(model) = base.files() else { panic!("an ONNX model") };
    model.folder()
}

/// Runs a model in onnxruntime.
fn ask(job: &Value) -> Value {
    let answers =
        environment::answer("onnx_logits.py", &["OUT".as_ref()], json!([job]).to_string().as_bytes());
    answers[0].clone()
}

fn job(path: &Path, base: &Base, ids: &[u32], decode: usize) -> Value {
    json!({ "model": path, "ids": ids, "head": base.config().head_dim, "decode": decode })
}

/// The largest accepted error of logits. It depends on what the model itself rounds.
fn tolerance(name: &str) -> f64 {
    match name {
        // onnxruntime computes in half precision.
        _ if name.contains("fp16") || name.contains("q4f16") => 2e-2,
        // The builder rounds the factor of embeddings to two decimals. With the exact factor the error is
        // 1e-6.
        _ if name.starts_with("gemma") && name.contains("genai") => 2e-3,
        // transformers exports an attention without the soft cap.
        "gemma2-optimum" => 1.0,
        _ => 1e-3,
    }
}

#[test]
#[ignore = "needs CURMERGE_ONNX and CURMERGE_PYTHON with onnxruntime"]
fn logits_equal_those_of_onnxruntime() {
    let mut bad = Vec::new();
    for (name, base) in bases() {
        let ids = ids(&base);
        let answer = ask(&job(base.path(), &base, &ids, 0));
        if !ran(&name, &answer) {
            continue;
        }
        let (last, greatest) = logits(&Transformer::new(&base).unwrap(), &ids);
        let worst = error(last, &numbers(&answer["logits"])).max(error(greatest, &numbers(&answer["last"])));
        println!("{name}: relative error {worst:.1e}");
        if worst > tolerance(&name) {
            bad.push(name);
        }
    }
    assert!(bad.is_empty(), "{bad:?}");
}

#[test]
#[ignore = "needs CURMERGE_ONNX and CURMERGE_PYTHON with onnxruntime"]
fn merged_models_in_onnxruntime_continue_like_base_and_adapter() {
    const WRITTEN: usize = 8;
    let mut bad = Vec::new();
    for (name, base) in bases() {
        let adapter = Recipe::default().adapter(&base, random(0.5, 4));
        let scratch = tempfile::tempdir().unwrap();
        let out = scratch.path().join("merged.onnx");
        let options = MergeOptions::default();
        let report = merge(&base, &[(Source::Cur(&adapter), 1.0)], &options, &out, |_, _| {}).unwrap();
        let worst = report.worst_first()[0].clone();
        let ids = ids(&base);
        let answer = ask(&job(&out, &base, &ids, WRITTEN));
        if !ran(&name, &answer) {
            continue;
        }
        let mut model = Transformer::new(&base).unwrap();
        model.attach(&adapter.targets, adapter.scale).unwrap();
        let (beside, _) = logits(&model, &ids);
        let right = numbers(&answer["logits"]);
        // To read the merged model, curmerge needs the configuration of its base.
        for file in ["config.json", "genai_config.json"] {
            let beside = base_folder(&base).join(file);
            if beside.is_file() {
                std::fs::copy(beside, scratch.path().join(file)).unwrap();
            }
        }
        let merged = Base::open(&out).unwrap();
        let merged = Transformer::new(&merged).unwrap();
        let (again, _) = logits(&merged, &ids);
        let quantized = ["int4", "int8", "q4", "q8"].iter().any(|kind| name.contains(kind));
        // Merging into a quantized model rounds, so only the merged model can agree.
        let own = if quantized { &merged } else { &model };
        let theirs: Vec<u64> = serde_json::from_value(answer["written"].clone()).unwrap();
        let same = written(own, &ids, WRITTEN) == theirs;
        let (beside, again) = (error(beside, &right), error(again, &right));
        println!(
            "{name}: {beside:.1e} beside, {again:.1e} merged, written {}; survived {:.3}, noise {:.2} in {}",
            if same { "alike" } else { "otherwise" },
            worst.share,
            worst.noise,
            worst.name
        );
        let far = if quantized { again } else { beside };
        let exact = !name.contains("16") && name != "gemma2-optimum";
        if far > tolerance(&name) || exact && !same || (worst.share - 1.0).abs() > 0.1 {
            bad.push(name);
        }
    }
    assert!(bad.is_empty(), "{bad:?}");
}
