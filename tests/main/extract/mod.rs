//! The difference of two models as a LoRA.

use std::fs;
use std::path::Path;

use curmerge::base::Base;
use curmerge::extract::{ExtractOptions, extract};
use curmerge_formats::gguf::Gguf;
use serde_json::Value;

use crate::support::adapter::{Recipe, random};
use crate::support::families::{CONTAINERS, Container, Family};
use crate::support::fixture;

/// An adapter of rank 4 and the model that it is merged into, in F32.
fn tuned(family: &Family, container: Container, out: &Path) {
    let model = family.path(container);
    let base = Base::open(&model).unwrap();
    let adapter = out.with_extension("adapter");
    Recipe { targets: "q,down", scale: 2.0, ..Recipe::default() }
        .adapter(&base, random(1.0, 4))
        .write(&adapter, &[])
        .unwrap();
    curmerge!("merge", model, adapter, "-o", out, "--type-adapted", "f32").done();
}

fn tensor(model: &Path, name: &str) -> Vec<f32> {
    Base::open(model).unwrap().weight(name).unwrap().vector()
}

/// |x - y| / |y|
fn off(x: &[f32], y: &[f32]) -> f64 {
    let sum = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
        x.iter().zip(y).map(|(&x, &y)| f(f64::from(x), f64::from(y))).sum()
    };
    (sum(&|x, y| (x - y) * (x - y)) / sum(&|_, y| y * y)).sqrt()
}

/// A merged adapter is found again, in every container of base and model, and merges to the same model.
#[test]
fn a_merged_adapter_is_found() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let family = Family::open("llama2");
    let [folder, gguf] = [path("tuned"), path("tuned.gguf")];
    tuned(&family, Container::Folder, &folder);
    tuned(&family, Container::Gguf, &gguf);
    for (number, container) in CONTAINERS.into_iter().enumerate() {
        let base = family.path(container);
        for (other, model) in [&folder, &gguf].into_iter().enumerate() {
            for ending in ["", ".gguf"] {
                let lora = path(&format!("lora-{number}-{other}{ending}"));
                let ran = curmerge!("extract", base, model, "-o", lora, "--rank", "4", "--json");
                assert!(ran.stderr.is_empty(), "{}", ran.stderr);
                let found = ran.json();
                let error = found["error"].as_f64().unwrap();
                assert!(error < 2e-6, "{container:?} {}: {error:e}", model.display());
                let matrices = found["matrices"].as_array().unwrap();
                assert!(matrices.iter().all(|m| m["rank"] == 4), "{found}");
                let layers = Base::open(&base).unwrap().config().layers;
                assert_eq!((matrices.len(), &found["rest"]), (2 * layers, &serde_json::json!([])));
                assert_eq!(found["equal"].as_u64().unwrap() as usize, 5 * layers);
                let merged = path(if container == Container::Gguf { "merged.gguf" } else { "merged" });
                curmerge!("merge", base, lora, "-o", merged, "--type-adapted", "f32", "--force").done();
                for name in ["blk.0.attn_q", "blk.1.ffn_down", "blk.0.attn_v"] {
                    let off = off(&tensor(&merged, name), &tensor(model, name));
                    assert!(off < 1e-6, "{name}: {off:e}");
                }
            }
        }
    }
}

/// Errors of truncated differences of full rank, as numpy has them: fixtures/extract/make.py.
#[test]
fn errors_are_those_of_exact_svds() {
    let goldens: Value =
        serde_json::from_slice(&fs::read(fixture::path("extract/goldens.json")).unwrap()).unwrap();
    let [base, tuned] = ["gemma3", "gemma3-linear"]
        .map(|name| Base::open(Family::open(name).path(Container::Folder)).unwrap());
    for rank in [1, 5, 12] {
        let options = ExtractOptions { rank, layers: Some(0..=1), ..ExtractOptions::default() };
        let found = extract(&base, &tuned, &options, |_, _| ()).unwrap();
        assert_eq!(found.matrices.len(), 14);
        for matrix in &found.matrices {
            let golden = &goldens[&matrix.name];
            let right = golden["errors"][rank - 1].as_f64().unwrap();
            assert!((matrix.error - right).abs() < 1e-6, "{} {rank}: {} {right}", matrix.name, matrix.error);
            assert!((matrix.change / golden["change"].as_f64().unwrap() - 1.0).abs() < 1e-6);
        }
    }
    // The smallest rank that leaves no more than the error.
    let options =
        ExtractOptions { rank: 64, max_error: Some(0.4), layers: Some(0..=1), ..Default::default() };
    let found = extract(&base, &tuned, &options, |_, _| ()).unwrap();
    for matrix in &found.matrices {
        let errors = goldens[&matrix.name]["errors"].as_array().unwrap();
        let rank = 1 + errors.iter().position(|error| error.as_f64().unwrap() <= 0.4).unwrap();
        assert_eq!(matrix.rank, rank, "{}", matrix.name);
        assert!(matrix.error <= 0.4);
    }
    // Norms and embeddings are no matrices of it.
    let names: Vec<&str> = found.rest.iter().map(|rest| rest.name()).collect();
    assert!(names.contains(&"token_embd") && names.contains(&"blk.0.attn_norm"), "{names:?}");
}

#[test]
fn what_a_lora_does_not_hold_is_named() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let base = Family::open("llama2").path(Container::Gguf);
    let (model, lora) = (path("tuned.gguf"), path("lora.gguf"));
    tuned(&Family::open("llama2"), Container::Gguf, &model);
    let mut bytes = fs::read(&model).unwrap();
    let gguf = Gguf::open(&model).unwrap();
    for name in ["token_embd.weight", "blk.1.attn_norm.weight", "output.weight"] {
        let place = gguf.tensors().iter().find(|tensor| tensor.name == name).unwrap().offset as usize;
        // The sign and high bits of the first number.
        bytes[place + 1] ^= 0x80;
        bytes[place + 3] ^= 0x80;
    }
    drop(gguf);
    fs::write(&model, bytes).unwrap();
    let ran = curmerge!("extract", base, model, "-o", lora, "--rank", "4").done();
    let warning = ran.stderr.lines().find(|line| line.contains("not in the LoRA")).unwrap().to_owned();
    for name in ["token_embd", "blk.1.attn_norm", "output"] {
        assert!(warning.contains(name), "{warning}");
    }
    let found =
        curmerge!("extract", base, model, "-o", lora, "--rank", "4", "--targets", "all,output", "--json");
    assert!(!found.stderr.contains("output ("), "{}", found.stderr);
    let found = found.json();
    assert!(found["matrices"].as_array().unwrap().iter().any(|m| m["name"] == "output"), "{found}");
    let merged = path("merged.gguf");
    curmerge!("merge", base, lora, "-o", merged, "--type-adapted", "f32").done();
    assert!(off(&tensor(&merged, "output"), &tensor(&model, "output")) < 1e-6);
}

#[test]
fn models_that_do_not_fit_are_refused_by_both_names() {
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().join("lora");
    let path = |name: &str| Family::open(name).path(Container::Folder);
    let line = curmerge!("extract", path("llama2"), path("qwen2"), "-o", out).refusal();
    assert!(line.contains("'qwen2', and") && line.contains("is 'llama'"), "{line}");
    let line = curmerge!("extract", path("llama2"), path("llama3"), "-o", out).refusal();
    assert!(
        line.contains("llama2/hf") && line.contains("llama3/hf") && line.contains("tensor 'blk.0."),
        "{line}"
    );
    let line = curmerge!("extract", path("llama2"), path("llama2"), "-o", out).refusal();
    assert!(line.contains("matrices differs"), "{line}");
    let line = curmerge!("extract", path("llama2"), path("llama2"), "-o", "x.safetensors").refusal();
    assert!(line.contains("holds a CURLoRA"), "{line}");
    assert!(!out.exists());
}
