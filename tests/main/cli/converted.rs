//! Models converted to other types and containers, and merges in one step.

use std::fs;

use curmerge_formats::gguf::Gguf;
use serde_json::Value;

use super::{folder, small_adapter};
use crate::support::fixture::demo;
use crate::support::folder::names;

#[test]
fn a_converted_model_runs_and_its_type_is_reported() {
    let folder = folder();
    let (wide, small) = (folder.path().join("f32.gguf"), folder.path().join("small.gguf"));
    curmerge!("convert", demo("model.gguf"), wide, "--type", "f32").done();
    let ran = curmerge!("convert", wide, small, "--type", "Q4_K_M", "--json").done();
    assert_eq!(ran.stderr, "");
    let answer: Value = ran.json();
    assert_eq!(answer["type"], "Q4_K_M");
    let bytes = fs::metadata(&small).unwrap().len();
    assert!(
        answer["bytes_after"].as_u64().unwrap() < bytes && bytes < fs::metadata(&wide).unwrap().len() / 5
    );
    let accuracy =
        |model| curmerge!("eval", model, "--data", demo("test.jsonl"), "--json").json()["accuracy"].as_f64();
    let (before, after) = (accuracy(demo("model.gguf")).unwrap(), accuracy(small.clone()).unwrap());
    assert!((before - after).abs() < 0.05, "{before} {after}");

    // Converted back to the type of the original, the values are the same.
    let back = folder.path().join("back.gguf");
    curmerge!("convert", wide, back, "--type", "q8_0").done();
    let (original, back) = (Gguf::open(&demo("model.gguf")).unwrap(), Gguf::open(&back).unwrap());
    for tensor in original.tensors() {
        let same = back.data(back.tensor(&tensor.name).unwrap()) == original.data(tensor);
        assert!(same, "{}", tensor.name);
    }
    let again = curmerge!("convert", small, wide, "--type", "q5_0").done();
    assert!(
        again.stderr.starts_with("warning: ") && again.stderr.contains("quantized already"),
        "{}",
        again.stderr
    );
}

#[test]
fn impossible_conversions_are_refused() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let (model, out) = (demo("model.gguf"), path("out.gguf"));
    let line = curmerge!("convert", model, path("out.bin"), "--type", "q8_0").refusal();
    assert!(line.contains("out.bin") && line.contains(".gguf"), "{line}");
    let line = curmerge!("convert", demo("train.jsonl"), out, "--type", "q8_0").refusal();
    assert!(line.contains("train.jsonl") && line.contains("GGUF"), "{line}");
    let line = curmerge!("convert", model, model, "--type", "q4_0").refusal();
    assert!(line.contains("model.gguf"), "{line}");
    let line = curmerge!("convert", model, out, "--type", "q4_0", "--imatrix", demo("train.jsonl")).refusal();
    assert!(line.contains("train.jsonl"), "{line}");
    assert_eq!(curmerge!("convert", model, out, "--type", "q9_k").status, Some(2));
    assert!(!out.exists());
}

#[test]
fn a_merge_stores_the_whole_file_as_convert_does() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let (wide, none, adapter) = (path("f32.gguf"), path("none"), path("adapter.st"));
    curmerge!("convert", demo("model.gguf"), wide, "--type", "f32").done();
    small_adapter(&adapter);
    curmerge!("select", wide, "-o", none).done();
    for kind in ["q4_k_m", "Q8_0"] {
        let (converted, merged) = (path("converted.gguf"), path("merged.gguf"));
        curmerge!("convert", wide, converted, "--type", kind).done();
        curmerge!("merge", wide, none, "-o", merged, "--type", kind).done();
        assert!(fs::read(&merged).unwrap() == fs::read(&converted).unwrap(), "{kind}");

        let base = curmerge!("merge", wide, adapter, "-o", merged, "--type", kind, "--json").done().json();
        let adapted: Vec<&str> =
            base["tensors"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
        let (merged, converted) = (Gguf::open(&merged).unwrap(), Gguf::open(&converted).unwrap());
        assert!(merged.metadata() == converted.metadata());
        for tensor in converted.tensors() {
            let other = merged.tensor(&tensor.name).unwrap();
            assert_eq!((tensor.dtype, &tensor.dims), (other.dtype, &other.dims), "{}", tensor.name);
            let changed = adapted.contains(&tensor.name.strip_suffix(".weight").unwrap_or_default());
            assert_eq!(merged.data(other) != converted.data(tensor), changed, "{}", tensor.name);
        }
    }
    let out = path("out.gguf");
    let mixed =
        curmerge!("merge", wide, adapter, "-o", out, "--type", "q4_0", "--type-adapted", "q8_0").done();
    assert!(mixed.stdout.contains("Q8_0"), "{}", mixed.stdout);
    let types = |name: &str| Gguf::open(&out).unwrap().tensor(name).unwrap().dtype.to_string();
    assert_eq!(types("blk.0.attn_q.weight"), "Q8_0");
    assert_eq!(types("blk.0.ffn_up.weight"), "Q4_0");
    let line =
        curmerge!("merge", wide, adapter, "-o", out, "--type", "auto", "--type-adapted", "q8_0").refusal();
    assert!(line.contains("leave one of them out"), "{line}");
}

#[test]
fn a_gguf_file_becomes_a_folder_that_gives_the_same_answers() {
    let folder = folder();
    let (model, out, gguf) = (demo("model.gguf"), folder.path().join("v1.5"), folder.path().join("m.gguf"));
    let ran = curmerge!("convert", model, out, "--json").done();
    // A quantized model becomes F16, with a note that this rounds.
    assert!(
        ran.stderr.contains("rounded to F16") && ran.stderr.contains("type f32 is exact"),
        "{}",
        ran.stderr
    );
    assert_eq!(ran.json()["type"], "F16");
    let line = curmerge!("convert", model, out, "--type", "f32").refusal();
    assert!(line.contains("v1.5") && line.contains("--force"), "{line}");
    let ran = curmerge!("convert", model, out, "--type", "F32", "--force", "--max-shard-size", "3M").done();
    assert_eq!(ran.stderr, "");
    assert!(ran.stdout.starts_with("tensors   38 F32\n"), "{}", ran.stdout);
    assert!(out.join("model.safetensors.index.json").exists() && !out.join("model.safetensors").exists());
    let next = |model: &std::path::Path| {
        let prompt = "Definition: a large wild cat with a striped coat\nKind:";
        curmerge!("run", model, "-p", prompt, "-n", "8", "--logprobs", "1", "--json").json()
    };
    let (a, b) = (next(&model), next(&out));
    assert_eq!((&a["prompt_tokens"], &a["tokens"]), (&b["prompt_tokens"], &b["tokens"]));
    let probability = |answer: &Value| answer["logprobs"][0][0][1].as_f64().unwrap();
    assert!((probability(&a) - probability(&b)).abs() < 1e-6);
    // An adapter of one model fits the other.
    let adapter = folder.path().join("adapter.st");
    small_adapter(&adapter);
    curmerge!("verify", adapter, "--base", out).done();

    let line = curmerge!("convert", model, out, "--type", "q4_k_m", "--force").refusal();
    assert!(line.contains("Q4_K_M") && line.contains(".gguf"), "{line}");
    let line = curmerge!("convert", model, folder.path().join("m.safetensors")).refusal();
    assert!(line.contains("m.safetensors") && line.contains("folder"), "{line}");
    let line = curmerge!("convert", model, folder.path()).refusal();
    assert!(line.contains("--force"), "{line}");
    let line = curmerge!("convert", model, folder.path().join("x"), "--imatrix", model).refusal();
    assert!(line.contains("--imatrix"), "{line}");
    let line = curmerge!("convert", model, gguf).refusal();
    assert!(line.contains("m.gguf") && line.contains("--type"), "{line}");
    let line = curmerge!("convert", model, gguf, "--type", "q8_0", "--force").refusal();
    assert!(line.contains("--force"), "{line}");
    // The output does not replace a folder that holds the input.
    let held = folder.path().join("held");
    fs::create_dir(&held).unwrap();
    fs::copy(&model, held.join("in.gguf")).unwrap();
    let line = curmerge!("convert", held.join("in.gguf"), held, "--force").refusal();
    assert!(line.contains("held"), "{line}");
    assert!(held.join("in.gguf").exists());
}

#[test]
fn a_folder_is_merged_into_a_gguf_file_in_one_step() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let (base, adapter) = (path("base"), path("adapter.st"));
    curmerge!("convert", demo("model.gguf"), base, "--type", "bf16").done();
    curmerge!("select", base, "-o", adapter).done();
    curmerge!("build", base, "--data", demo("train.jsonl"), "--max-steps", "2", "-o", adapter).done();
    curmerge!("convert", base, path("base.gguf"), "--type", "bf16").done();
    for kind in ["bf16", "q4_0"] {
        let (whole, steps) = (path("whole.gguf"), path("steps.gguf"));
        curmerge!("merge", base, adapter, "-o", whole, "--type", kind).done();
        curmerge!("merge", path("base.gguf"), adapter, "-o", steps, "--type", kind).done();
        assert!(fs::read(whole).unwrap() == fs::read(steps).unwrap(), "{kind}");
    }
    curmerge!("export", adapter, "--base", base, "--format", "ollama", "-o", path("ollama")).done();
    let exported = Gguf::open(&path("ollama").join("model.gguf")).unwrap();
    assert_eq!(exported.tensors().len(), Gguf::open(&path("base.gguf")).unwrap().tensors().len());
    let line = curmerge!("merge", base, adapter, "-o", base.join("tokenizer.json"), "--force").refusal();
    assert!(line.contains("tokenizer.json"), "{line}");
    // No intermediate file is left.
    assert_eq!(
        names(folder.path()),
        ["adapter.st", "base", "base.gguf", "ollama", "steps.gguf", "whole.gguf"]
    );
}

#[test]
fn exported_adapters_merge_like_the_adapter() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let (model, adapter) = (demo("model.gguf"), path("adapter.st"));
    small_adapter(&adapter);
    curmerge!("export", adapter, "--base", model, "--format", "gguf", "-o", path("lora.gguf")).done();
    curmerge!("export", adapter, "--base", model, "--format", "peft", "-o", path("peft")).done();
    let merged = |adapters: &[&str]| {
        let out = path("merged.gguf");
        let mut words: Vec<std::ffi::OsString> = vec!["merge".into(), model.clone().into()];
        words.extend(adapters.iter().map(|name| path(name).into()));
        words.extend(["-o".into(), out.clone().into(), "--type-adapted".into(), "f32".into()]);
        crate::support::program::run(&words.iter().map(|w| w.as_os_str()).collect::<Vec<_>>()).done();
        fs::read(out).unwrap()
    };
    let right = merged(&["adapter.st"]);
    assert!(merged(&["lora.gguf"]) == right);
    assert!(merged(&["peft"]) == right);
    assert!(merged(&["adapter.st=0.25", "peft=0.75"]) != merged(&["adapter.st=0.25"]));
    let line = curmerge!("merge", model, path("peft"), "-o", path("m.gguf"), "--scale", "inf").refusal();
    assert!(line.contains("inf"), "{line}");
    // An existing folder is not replaced unless asked.
    let line =
        curmerge!("export", adapter, "--base", model, "--format", "peft", "-o", path("peft")).refusal();
    assert!(line.contains("--force"), "{line}");
    let line = curmerge!("merge", model, path("no=such"), "-o", path("m.gguf")).refusal();
    assert!(line.contains("no=such"), "{line}");
}
