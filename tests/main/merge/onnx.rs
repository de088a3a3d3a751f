//! Merges into ONNX models: what they change, the files beside the model, and what is refused.

use std::fs;
use std::path::Path;

use curmerge::base::Base;
use curmerge::commands::report::errors;
use curmerge::export::{Format, export};
use curmerge::lora::Lora;
use curmerge::merge::{MergeOptions, Source, Storage, merge};
use curmerge_formats::adapter::Adapter;
use curmerge_formats::dtype::DType;

use crate::support::adapter::{Recipe, constant};
use crate::support::families::{CONVERTIBLE, Container, Family};
use crate::support::fixture;
use crate::support::folder::names;
use crate::support::onnx_llama::{CONFIG, D, FF, llama, llama_without, values, write};
use crate::support::onnx_writer::Graph;

fn adapter(base: &Base, targets: &str) -> Adapter {
    let recipe = Recipe { targets, rank: 2, scale: 1.0, seed: 0, ..Default::default() };
    recipe.adapter(base, constant(0.25))
}

fn merged(base: &Base, targets: &str, options: &MergeOptions<'_>, out: &Path) -> Result<(), String> {
    let adapter = adapter(base, targets);
    let report = merge(base, &[(Source::Cur(&adapter), 1.0)], options, out, |_, _| {});
    report.map(drop).map_err(|error| errors::line(&error))
}

#[test]
fn matrices_of_unknown_models_are_merged_by_name() {
    let mut graph = Graph::default();
    for (name, node, dims) in [
        ("encoder.dense.weight", "MatMul_1", [D, FF]),
        ("onnx::MatMul_5", "/encoder/out/MatMul", [FF, D]),
        // The name that its path gives is taken, so it keeps its own.
        ("onnx::MatMul_6", "/encoder/out/MatMul_1", [D, D]),
        // Its own name is taken too.
        ("encoder.dense", "MatMul_2", [D, D]),
    ] {
        graph.floats(name, &dims);
        graph.node("MatMul", node, &["x", name], &[]);
    }
    let (folder, path) = write(&graph, None);
    let base = Base::open_any(&path).unwrap();
    let names: Vec<&str> = base.tensors().keys().map(String::as_str).collect();
    assert_eq!(names, ["encoder.dense", "encoder.dense_", "encoder.out", "onnx::MatMul_6"]);
    let out = folder.path().join("merged.onnx");
    merged(&base, "encoder.dense,encoder.out", &MergeOptions::default(), &out).unwrap();
    let after = Base::open_any(&out).unwrap();
    assert_eq!(values(&base, "onnx::MatMul_6"), values(&after, "onnx::MatMul_6"));
    for (name, target) in adapter(&base, "encoder.dense,encoder.out").targets.iter().map(|t| (&t.name, t)) {
        let (before, after) = (values(&base, name), values(&after, name));
        let weight = base.weight(name).unwrap();
        let (c, r) = (weight.gather_columns(&target.cols), weight.gather_rows(&target.rows));
        for (i, (before, after)) in before.iter().zip(&after).enumerate() {
            let (row, col) = (i / weight.cols(), i % weight.cols());
            let change: f32 = (0..2)
                .flat_map(|k| (0..2).map(move |l| (k, l)))
                .map(|(k, l)| c[row * 2 + k] * 0.25 * r[l * weight.cols() + col])
                .sum();
            assert!((before + change - after).abs() < 1e-5, "{name} {i}");
        }
    }
}

#[test]
fn every_family_is_merged_into_as_its_folder_is() {
    for name in CONVERTIBLE {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        let folder = Family::open(name).path(Container::Folder);
        curmerge!("convert", folder, at("onnx"), "--format", "onnx").done();
        let pairs = [(folder.clone(), at("of_folder")), (at("onnx"), at("of_onnx"))];
        let [of_folder, of_onnx] = pairs.map(|(base, out)| {
            let base = Base::open(&base).unwrap_or_else(|error| panic!("{name}: {error}"));
            let options = MergeOptions { storage: Storage::Only(DType::F32), ..Default::default() };
            merged(&base, "all", &options, &out).unwrap_or_else(|error| panic!("{name}: {error}"));
            Base::open(&out).unwrap_or_else(|error| panic!("{name}: {error}"))
        });
        let original = Base::open(&folder).unwrap();
        for target in original.targets("all", None).unwrap() {
            let [before, right, found] = [&original, &of_folder, &of_onnx].map(|base| values(base, &target));
            let close = right.iter().zip(&found).all(|(a, b)| (a - b).abs() < 1e-5 * (1.0 + a.abs()));
            assert!(close, "{name}: {target}");
            assert!(before != found, "{name}: {target} did not change");
        }
    }
}

#[test]
fn exported_adapters_merge_to_the_same_bytes() {
    let parts = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"];
    let mut graph = llama_without(&parts);
    graph.floats("model.layers.0.attn.qkv_proj.MatMul.weight", &[D, 2 * D]);
    let joined = ["x", "model.layers.0.attn.qkv_proj.MatMul.weight"];
    graph.node("MatMul", "/model/layers.0/attn/qkv_proj/MatMul", &joined, &[]);
    let (folder, path) = write(&graph, Some(CONFIG));
    let base = Base::open(&path).unwrap();
    let (adapter, out) = (adapter(&base, "all"), folder.path().join("out.onnx"));
    let merged = |sources: &[(Source<'_>, f32)]| {
        let report = merge(&base, sources, &MergeOptions::default(), &out, |_, _| {}).unwrap();
        (fs::read(&out).unwrap(), report)
    };
    let (right, report) = merged(&[(Source::Cur(&adapter), 1.0)]);
    let labels: Vec<String> = report.tensors.iter().map(|tensor| tensor.label()).collect();
    assert!(labels.contains(&"blk.0[attn_q,attn_k,attn_v]".to_string()), "{labels:?}");
    assert_ne!(right, fs::read(&path).unwrap());
    for (format, name) in [(Format::Gguf, "lora.gguf"), (Format::Peft, "peft")] {
        let lora = folder.path().join(name);
        export(&base, &adapter, format, &lora, &[], true).unwrap();
        let lora = Lora::open(&lora, &base).unwrap();
        assert!(merged(&[(Source::Lora(&lora), 1.0)]).0 == right, "{name}");
        // Two adapters at half weight equal one, except for rounding.
        let halves = [(Source::Lora(&lora), 0.5), (Source::Cur(&adapter), 0.5)];
        fs::write(folder.path().join("halves.onnx"), merged(&halves).0).unwrap();
        fs::write(folder.path().join("right.onnx"), &right).unwrap();
        let open = |name: &str| Base::open(folder.path().join(name)).unwrap();
        let (halves, whole) = (open("halves.onnx"), open("right.onnx"));
        for target in &adapter.targets {
            let pairs = values(&halves, &target.name).into_iter().zip(values(&whole, &target.name));
            assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-6), "{}", target.name);
        }
    }
}

/// The folder gets the model under its name, and the files that belong to it, but no others.
#[test]
fn the_output_may_be_a_folder() {
    let scratch = tempfile::tempdir().unwrap();
    let of = |name: &str| scratch.path().join(name);
    for (name, within, expected) in [
        ("genai-int4", "", vec!["genai_config.json", "model.onnx", "model.onnx.data"]),
        ("optimum", "onnx", vec!["config.json", "generation_config.json", "onnx"]),
    ] {
        let (source, out) = (of(&format!("{name}-base")), of(name));
        fs::create_dir_all(source.join(within)).unwrap();
        let export = fixture::path("onnx_models/tiny").join(name);
        for file in names(&export) {
            let to = if file.starts_with("model.onnx") { source.join(within) } else { source.clone() };
            fs::copy(export.join(&file), to.join(&file)).unwrap();
        }
        fs::write(source.join("notes.txt"), "mine").unwrap();
        let base = Base::open(&source).unwrap();
        let report = {
            let adapter = adapter(&base, "q");
            merge(&base, &[(Source::Cur(&adapter), 1.0)], &MergeOptions::default(), &out, |_, _| {}).unwrap()
        };
        assert_eq!(report.model, out.join(within).join("model.onnx"));
        assert_eq!(names(&out), expected, "{name}");
        let after = Base::open(&out).unwrap();
        assert_ne!(values(&base, "blk.0.attn_q"), values(&after, "blk.0.attn_q"), "{name}");
        for same in ["token_embd", "blk.0.attn_output", "blk.0.ffn_down"] {
            assert_eq!(values(&base, same), values(&after, same), "{name} {same}");
        }
        let error = merged(&base, "q", &MergeOptions::default(), &out).unwrap_err();
        assert!(error.contains("--force"), "{error}");
        merged(&base, "q", &MergeOptions { force: true, ..Default::default() }, &out).unwrap();
    }
}

#[test]
fn impossible_merges_are_refused_and_leave_nothing() {
    let (folder, path) = write(&llama(), Some(CONFIG));
    let base = Base::open(&path).unwrap();
    let out = folder.path().join("out.onnx");
    let plain = MergeOptions::default();
    let refused = |targets: &str, options: &MergeOptions<'_>, out: &Path, words: &[&str]| {
        let error = merged(&base, targets, options, out).expect_err("the merge must be refused");
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    };
    refused("q", &plain, &folder.path().join("out.gguf"), &["name a .onnx file"]);
    refused("q", &plain, &path, &["model.onnx"]);
    let shards = MergeOptions { max_shard_size: Some(1000), ..Default::default() };
    refused("q", &shards, &out, &["--max-shard-size"]);
    let half = MergeOptions { storage: Storage::Only(DType::F16), ..Default::default() };
    refused("q", &half, &out, &["F32", "--type-adapted"]);
    let narrowest = MergeOptions { storage: Storage::Narrowest { fidelity: 0.9 }, ..Default::default() };
    refused("q", &narrowest, &out, &["leaves the graph as it is"]);
    let same = MergeOptions { storage: Storage::Only(DType::F32), ..Default::default() };
    merged(&base, "q", &same, &out).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);

    // Another node uses the matrix too.
    let mut shared = llama();
    shared.node("Softmax", "elsewhere", &["onnx::MatMul_0"], &[]);
    let (folder, path) = write(&shared, Some(CONFIG));
    let base = Base::open(&path).unwrap();
    let error = merged(&base, "q", &plain, &folder.path().join("out.onnx")).unwrap_err();
    assert!(error.contains("Softmax 'elsewhere' both use it"), "{error}");
    merged(&base, "k", &plain, &folder.path().join("out.onnx")).unwrap();
}
