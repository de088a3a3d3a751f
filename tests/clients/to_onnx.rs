//! ONNX models converted from GGUF files and Hugging Face folders, in onnx's checker and onnxruntime.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;

use curmerge::arch::BlockKind;
use curmerge::base::Base;
use curmerge::cur::Selection;
use curmerge::model::{Batch, Transformer};
use curmerge_formats::adapter::Adapter;
use curmerge_formats::dtype::DType;
use curmerge_formats::gguf::GgufModel;
use curmerge_formats::onnx::{ElementType, Onnx};
use serde_json::{Value, json};

use crate::support::adapter::Recipe;
use crate::support::families::{Container, Family};
use crate::support::goldens::error;
use crate::support::onnx_weights::{four_bits, stored_as, weights};
use crate::support::remade::Remade;
use crate::support::{program, venv};

/// The largest accepted difference from curmerge's logits in F32, relative to the largest logit.
const SAME: f64 = 1e-4;
/// The same for models without strong rope scaling.
const CLOSE: f64 = 2e-5;

fn sequences(family: &Family) -> Vec<Vec<u32>> {
    family.sequences().into_iter().map(|sequence| sequence.ids).collect()
}

/// curmerge's logits after every token of every sequence.
fn ours(model: &Path, sequences: &[Vec<u32>]) -> Vec<Vec<Vec<f64>>> {
    adapted(model, None, sequences)
}

/// The same with an adapter.
fn adapted(model: &Path, adapter: Option<&Adapter>, sequences: &[Vec<u32>]) -> Vec<Vec<Vec<f64>>> {
    let base = Base::open(model).unwrap_or_else(|e| panic!("{e}"));
    let mut transformer = Transformer::<f32>::new(&base).unwrap();
    if let Some(adapter) = adapter {
        transformer.attach(&adapter.targets, adapter.scale).unwrap();
    }
    let logits = |ids: &Vec<u32>| {
        transformer.for_context(ids.len()).unwrap();
        let mut batch = Batch::default();
        batch.push_sequence(ids);
        (0..ids.len()).for_each(|place| batch.predict(place, 0));
        let logits = transformer.logits(&batch);
        logits.rows().into_iter().map(|row| row.iter().map(|&x| f64::from(x)).collect()).collect()
    };
    sequences.iter().map(logits).collect()
}

/// Checks a model with onnx's checker and runs it in onnxruntime.
fn theirs(model: &Path, sequences: &[Vec<u32>]) -> Value {
    let words = [model.as_os_str(), OsStr::new("OUT")];
    venv::answer("onnx_decoder.py", &words, json!(sequences).to_string().as_bytes())
}

/// The largest difference of the logits.
fn apart(answer: &Value, right: &[Vec<Vec<f64>>]) -> f64 {
    rows_apart(&answer["logits"], right)
}

fn rows_apart(found: &Value, right: &[Vec<Vec<f64>>]) -> f64 {
    let found: Vec<Vec<Vec<f64>>> = serde_json::from_value(found.clone()).unwrap();
    assert_eq!(found.len(), right.len());
    let rows = found.into_iter().zip(right).flat_map(|(found, right)| {
        assert_eq!(found.len(), right.len());
        found.into_iter().zip(right)
    });
    rows.map(|(found, right)| error(found, right)).fold(0.0, f64::max)
}

fn check_logits(name: &str) {
    let (family, out) = (Family::open(name), tempfile::tempdir().unwrap());
    let sequences = sequences(&family);
    for container in [Container::Folder, Container::Gguf] {
        let (model, onnx) = (family.path(container), out.path().join(format!("{container:?}.onnx")));
        curmerge!("convert", model, onnx).done();
        // llama.cpp's formula for GELU is not that of the folder, nor of its ONNX model.
        let same = family.architecture().gguf.activation.is_none();
        let source = if same { model } else { family.path(Container::Folder) };
        let (answer, right) = (theirs(&onnx, &sequences), ours(&source, &sequences));
        let [cached, padded] = ["cached", "padded"].map(|key| answer[key].as_f64().unwrap());
        let apart = apart(&answer, &right);
        println!("{name}, {container:?}: {apart:.1e}, through the cache {cached:.1e}, padded {padded:.1e}");
        assert!(apart < SAME, "{name}: logits differ by {apart:e}");
        assert!(cached < 1e-5 && padded < 1e-5, "{name}: cached {cached:e}, padded {padded:e}");
    }
}

macro_rules! tests {
    ($($module:ident: $name:literal),* $(,)?) => {
        $(mod $module {
            #[test]
            fn onnxruntime_gives_the_same_logits() {
                super::check_logits($name);
            }
        })*
    };
}

each_convertible!(tests);

#[test]
fn onnxruntime_runs_models_of_four_bits() {
    let out = tempfile::tempdir().unwrap();
    let at = |name: &str| out.path().join(name);
    let family = Family::open("qwen2");
    let sequences = sequences(&family);
    let model = stored_as("qwen2", DType::Q4_0, out.path());
    curmerge!("convert", model, at("q4_0.onnx"), "--type", "q4_0").done();
    let apart_0 = apart(&theirs(&at("q4_0.onnx"), &sequences), &ours(&model, &sequences));

    // Q4_1 rounds, so the values of the ONNX model go into a GGUF file for the comparison.
    let source = family.path(Container::Gguf);
    let ran = curmerge!("convert", source, at("q4_1.onnx"), "--type", "q4_1", "--json").json();
    assert!(ran["notes"][0].as_str().unwrap().contains("were rounded to Q4_1"), "{ran}");
    let found = weights(&at("q4_1.onnx"));
    let mut decoded = Remade::of(&source);
    let gguf = GgufModel::open(&source).unwrap();
    let mut matrices = 0;
    for (_, tensor) in gguf.tensors().filter(|(_, t)| t.dims.len() == 2 && t.name.starts_with("blk.")) {
        let stem = tensor.name.strip_suffix(".weight").unwrap();
        let architecture = curmerge::arch::by_gguf_name("qwen2", false, false).unwrap();
        let (module, _) = architecture.to_hugging_face(stem, BlockKind::USUAL).unwrap();
        let values = four_bits(&found, &format!("{module}.weight"));
        decoded = decoded.with(&tensor.name, &tensor.dims, &values);
        matrices += 1;
    }
    assert_eq!(matrices, 14);
    decoded.write(&at("decoded.gguf"));
    let right = ours(&at("decoded.gguf"), &sequences);
    let apart_1 = apart(&theirs(&at("q4_1.onnx"), &sequences), &right);
    println!("Q4_0: {apart_0:.1e}, Q4_1: {apart_1:.1e}");
    assert!(apart_0 < CLOSE && apart_1 < CLOSE, "Q4_0: {apart_0:e}, Q4_1: {apart_1:e}");
    let rounded = error(right[0][9].clone(), &ours(&source, &sequences)[0][9]);
    assert!(rounded > 1e-3, "rounding changes logits by only {rounded:e}");
}

#[test]
fn onnxruntime_runs_models_in_half_precision() {
    let out = tempfile::tempdir().unwrap();
    for name in ["llama3", "gemma3", "phi3", "qwen3moe"] {
        let (family, model) = (Family::open(name), out.path().join(name).with_extension("onnx"));
        let (source, sequences) = (family.path(Container::Folder), sequences(&family));
        curmerge!("convert", source, model, "--type", "f16").done();
        let onnx = Onnx::open(&model).unwrap();
        let halves = onnx.graph().initializers.iter().filter(|t| t.element == ElementType::FLOAT16);
        assert!(halves.filter(|tensor| tensor.dims.len() == 2).count() > 8);
        let answer = theirs(&model, &sequences);
        let apart = apart(&answer, &ours(&source, &sequences));
        println!("{name}: {apart:.1e}");
        // The fixtures' attention is sharp, so rounding scores to eleven bits matters.
        assert!(apart < 2e-2, "{name}: {apart:e}");
    }
}

/// MoE's matrices are read back as those of single experts, and so are QMoE's codes.
#[test]
fn onnxruntime_runs_experts_of_four_bits() {
    let out = tempfile::tempdir().unwrap();
    for (name, file_type) in [
        ("gpt-oss", "q4_0"),
        ("gpt-oss", "q4_1"),
        ("mixtral", "q4_0"),
        ("olmoe", "q4_1"),
        ("lfm2moe", "q4_0"),
    ] {
        let (family, model) = (Family::open(name), out.path().join(format!("{name}-{file_type}.onnx")));
        let sequences = sequences(&family);
        curmerge!("convert", family.path(Container::Folder), model, "--type", file_type).done();
        std::fs::copy(family.path(Container::Folder).join("config.json"), out.path().join("config.json"))
            .unwrap();
        let nodes = Onnx::open(&model).unwrap();
        let nodes = nodes.graph().nodes.iter().filter(|node| node.op_type == "QMoE").count();
        let base = Base::open(&model).unwrap();
        let with_experts = (0..base.config().layers).filter(|&layer| base.config().block_kind(layer).experts);
        assert_eq!(nodes, with_experts.count(), "{name}");
        let apart = apart(&theirs(&model, &sequences), &ours(&model, &sequences));
        println!("{name}, {file_type}: {apart:.1e}");
        assert!(apart < CLOSE, "{name}, {file_type}: {apart:e}");
    }
}

/// Writes an adapter of these matrices, with U that changes the outputs visibly.
fn adapter(base: &Path, targets: &str, out: &Path) -> Adapter {
    let recipe = Recipe { targets, rank: 3, selection: Selection::Reference, ..Default::default() };
    let mut i = 0;
    let adapter = recipe.adapter(&Base::open(base).unwrap(), |(_, target)| {
        target.u.fill_with(|| {
            i += 1;
            (((i - 1) * 7 % 11) as f32 - 5.0) * 0.1
        });
    });
    adapter.write(out, &[]).unwrap();
    adapter
}

#[test]
fn onnxruntime_applies_adapters_to_models_with_inputs_for_them() {
    let out = tempfile::tempdir().unwrap();
    let [file, model, exported] =
        ["adapter", "model.onnx", "a.onnx_adapter"].map(|name| out.path().join(name));
    for (name, targets, options, tolerance) in [
        ("llama3", "all", &[][..], CLOSE),
        ("qwen3", "all", &[], CLOSE),
        ("gemma3", "all", &[], CLOSE),
        ("phi3", "all", &[], CLOSE),
        ("llama2", "all", &["--type", "f16"], 2e-2),
        // Here the inputs of other modules keep rank 0.
        ("llama3", "v", &[], CLOSE),
        ("llama3", "down", &[], CLOSE),
        ("qwen3", "v", &[], CLOSE),
    ] {
        let (family, source) = (Family::open(name), Family::open(name).path(Container::Gguf));
        let adapter = adapter(&source, targets, &file);
        let format = "onnx-adapter";
        curmerge!("export", file, "--base", source, "--format", format, "-o", exported).done();
        let mut words = vec![OsStr::new("convert"), source.as_os_str(), model.as_os_str()];
        words.extend(["--lora-inputs", "all"].iter().chain(options).map(OsStr::new));
        program::run(&words).done();
        let sequences = sequences(&family);
        let words = [model.as_os_str(), OsStr::new("OUT"), exported.as_os_str()];
        let answer = venv::answer("onnx_decoder.py", &words, json!(sequences).to_string().as_bytes());
        let base = ours(&source, &sequences);
        let right = adapted(&source, Some(&adapter), &sequences);
        let (without, with) = (apart(&answer, &base), rows_apart(&answer["adapted"], &right));
        let moved = rows_apart(&answer["adapted"], &base);
        println!(
            "{name}: {without:.1e} without, {with:.1e} with the adapter of {targets}, which changes logits by {moved:.1e}"
        );
        assert!(without < tolerance && with < tolerance, "{name}: {without:e} without, {with:e} with it");
        // Each input has its own symbolic rank.
        let onnx = Onnx::open(&model).unwrap();
        let inputs = onnx.graph().inputs.iter().filter(|input| input.name.ends_with("lora_A.weight"));
        let ranks: Vec<String> = inputs.map(|input| format!("{:?}", input.value_type)).collect();
        assert_eq!(ranks.iter().collect::<BTreeSet<_>>().len(), ranks.len(), "{ranks:?}");
        assert!(moved > 0.1, "{name}: the adapter changes logits by only {moved:e}");
    }
}
