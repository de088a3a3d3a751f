//! ONNX decoders in the forms that exporters write: read, run and merged into, compared with onnxruntime. A
//! script makes them from fixtures.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use curmerge::base::Base;
use curmerge::merge::{MergeOptions, MergeReport, Source, merge};
use curmerge::model::Transformer;
use curmerge_formats::adapter::Adapter;
use curmerge_formats::onnx::Onnx;
use serde_json::{Value, json};

use crate::support::adapter::{Recipe, random};
use crate::support::decoder::{logits, written};
use crate::support::goldens::{error, numbers};
use crate::support::venv;

const IDS: [u32; 10] = [5, 42, 79, 116, 153, 190, 227, 264, 301, 18];
const WRITTEN: usize = 12;

/// Fixtures, and the form that onnx_forms.py gives each.
const DENSE: &[(&str, &str)] = &[
    ("qwen2", "plain"),
    ("qwen2", "named,external"),
    ("qwen2", "packed"),
    ("llama2", "plain,external"),
    ("llama2", "packed,typed"),
    ("llama2", "gemm,packed"),
];
const BLOCKS: &[(&str, &str)] = &[
    ("qwen2", "nbits4"),
    ("llama2", "nbits4,zeros,packed,external"),
    ("llama2", "nbits4,fzeros"),
    ("qwen2", "nbits4,wide,zeros"),
    ("llama2", "nbits8,packed"),
    ("qwen2", "nbits8,zeros,hscales"),
    ("qwen2", "nbits2,zeros,external"),
];

/// Makes a model of this form, with its configuration, in its own folder.
fn make(root: &Path, fixture: &str, form: &str) -> PathBuf {
    let source = Path::new("fixtures/arch").join(fixture).join("hf");
    let folder = root.join(format!("{fixture}-{form}"));
    std::fs::create_dir(&folder).unwrap();
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(source.join(file), folder.join(file)).unwrap();
    }
    let path = folder.join("model.onnx");
    venv::ask("onnx_forms.py", &[source.as_os_str(), OsStr::new(form), path.as_os_str()], &[]);
    path
}

fn job(model: &Path) -> Value {
    json!({ "model": model, "ids": IDS, "head": 0, "decode": WRITTEN })
}

/// Runs models in onnxruntime.
fn ask(models: &[PathBuf]) -> Vec<Value> {
    let jobs: Vec<Value> = models.iter().map(|model| job(model)).collect();
    let answers = venv::answer("onnx_logits.py", &[OsStr::new("OUT")], &serde_json::to_vec(&jobs).unwrap());
    let answers: Vec<Value> = serde_json::from_value(answers).unwrap();
    for (answer, model) in answers.iter().zip(models) {
        assert!(answer["error"].is_null(), "{}: {}", model.display(), answer["error"]);
    }
    answers
}

fn check(name: &str, model: &Transformer<f32>, answer: &Value, tolerance: f64) {
    let worst = error(logits(model, &IDS).0, &numbers(&answer["logits"]));
    assert!(worst < tolerance, "{name}: {worst:e}");
    let theirs: Vec<u64> = serde_json::from_value(answer["written"].clone()).unwrap();
    assert_eq!(written(model, &IDS, WRITTEN), theirs, "{name}");
}

/// An adapter of every matrix, with U that changes the outputs visibly.
fn adapter(base: &Base) -> Adapter {
    Recipe::default().adapter(base, random(0.5, 4))
}

fn merged(base: &Base, out: &Path) -> MergeReport {
    let adapter = adapter(base);
    merge(base, &[(Source::Cur(&adapter), 1.0)], &MergeOptions::default(), out, |_, _| {}).unwrap()
}

/// Checks that only the values of these tensors changed.
fn only_changed(before: &Path, after: &Path, changed: &[String]) {
    let (before, after) = (Onnx::open(before).unwrap(), Onnx::open(after).unwrap());
    assert_eq!(before.graph().nodes, after.graph().nodes);
    assert_eq!(before.metadata(), after.metadata());
    let values = |model: &Onnx| -> BTreeMap<String, Vec<u8>> {
        let all = model.graph().initializers.iter();
        all.map(|tensor| (tensor.name.clone(), model.data(tensor).unwrap().into_owned())).collect()
    };
    let (before, after) = (values(&before), values(&after));
    assert!(before.keys().eq(after.keys()));
    let other: Vec<&String> = before.keys().filter(|name| before[*name] != after[*name]).collect();
    assert!(other.iter().all(|name| changed.contains(name)), "{other:?}");
    assert!(!other.is_empty());
}

/// The names of the tensors that hold the base's targets.
fn targets(base: &Base) -> Vec<String> {
    let names = base.targets("all", None).unwrap();
    let tensors = names.iter().map(|name| base.find(name).unwrap().tensor);
    let stored = |tensor: &curmerge::base::BaseTensor| {
        let blocks = tensor.nbits.iter().flat_map(|blocks| {
            std::iter::once(&blocks.scales).chain(&blocks.zero_points).map(|part| part.stored_name.clone())
        });
        std::iter::once(tensor.stored_name.clone()).chain(blocks).collect::<Vec<_>>()
    };
    tensors.flat_map(stored).collect()
}

#[test]
fn dense_decoders_are_read_run_and_merged_into() {
    let root = tempfile::tempdir().unwrap();
    let models: Vec<PathBuf> = DENSE.iter().map(|(f, form)| make(root.path(), f, form)).collect();
    let outs: Vec<PathBuf> = models.iter().map(|model| model.with_file_name("merged.onnx")).collect();
    let bases: Vec<Base> = models.iter().map(|model| Base::open(model).unwrap()).collect();
    for (((fixture, form), base), (model, out)) in DENSE.iter().zip(&bases).zip(models.iter().zip(&outs)) {
        // The model has the folder's values, under the same names.
        let folder = Base::open(Path::new("fixtures/arch").join(fixture).join("hf")).unwrap();
        assert!(folder.tensors().keys().eq(base.tensors().keys()), "{form}");
        assert_eq!(folder.config(), base.config());
        for name in folder.tensors().keys() {
            match name.ends_with(".bias") || folder.tensors()[name].shape.len() == 1 {
                true => assert_eq!(folder.vector(name).unwrap(), base.vector(name).unwrap(), "{form} {name}"),
                false => {
                    let of = |base: &Base| base.weight(name).unwrap().values_sha256();
                    assert_eq!(of(&folder), of(base), "{form} {name}");
                }
            }
        }
        let report = merged(base, out);
        assert!(report.tensors.iter().all(|t| (t.share - 1.0).abs() < 1e-3), "{form}");
        only_changed(model, out, &targets(base));
    }
    let answers = ask(&[&models[..], &outs[..]].concat());
    let (plain, merged) = answers.split_at(models.len());
    for ((base, (fixture, form)), (plain, merged)) in bases.iter().zip(DENSE).zip(plain.iter().zip(merged)) {
        let mut model = Transformer::new(base).unwrap();
        check(&format!("{fixture} {form}"), &model, plain, 1e-4);
        let adapter = adapter(base);
        model.attach(&adapter.targets, adapter.scale).unwrap();
        check(&format!("merged {fixture} {form}"), &model, merged, 1e-3);
        let change = error(numbers(&merged["logits"]), &numbers(&plain["logits"]));
        assert!(change > 0.05, "the adapter changes too little: {change}");
    }
}

#[test]
fn decoders_in_blocks_are_read_run_and_merged_into() {
    let root = tempfile::tempdir().unwrap();
    let models: Vec<PathBuf> = BLOCKS.iter().map(|(f, form)| make(root.path(), f, form)).collect();
    let outs: Vec<PathBuf> = models.iter().map(|model| model.with_file_name("merged.onnx")).collect();
    for ((_, form), (model, out)) in BLOCKS.iter().zip(models.iter().zip(&outs)) {
        let base = Base::open(model).unwrap();
        let report = merged(&base, out);
        for t in &report.tensors {
            assert!((t.share - 1.0).abs() < 0.1, "{form} {}: {}", t.label(), t.share);
            let most = if form.contains("nbits2") { 6.0 } else { 2.0 };
            assert!(t.noise < most, "{form} {}: {}", t.label(), t.noise);
        }
        only_changed(model, out, &targets(&base));
    }
    let answers = ask(&[&models[..], &outs[..]].concat());
    let all = models.iter().chain(&outs).zip(&answers).zip(BLOCKS.iter().cycle());
    for ((path, answer), (fixture, form)) in all {
        let base = Base::open(path).unwrap();
        check(
            &format!("{fixture} {form} {}", path.display()),
            &Transformer::new(&base).unwrap(),
            answer,
            1e-4,
        );
    }
}

#[test]
fn matrices_in_blocks_decode_as_in_onnxruntime() {
    let root = tempfile::tempdir().unwrap();
    for (fixture, form) in BLOCKS {
        let model = make(root.path(), fixture, form);
        let words = [model.as_os_str(), OsStr::new("OUT")];
        let matrices: BTreeMap<String, Vec<Vec<f64>>> =
            serde_json::from_value(venv::answer("onnx_blocks.py", &words, &[])).unwrap();
        let base = Base::open(&model).unwrap();
        let mut seen = 0;
        for (name, tensor) in base.tensors() {
            let Some(right) = matrices.get(&tensor.stored_name) else { continue };
            let weight = base.stored_weight(name).unwrap();
            let values = weight.vector();
            for (i, row) in right.iter().enumerate() {
                for (o, &right) in row.iter().enumerate() {
                    let own = f64::from(values[o * weight.cols() + i]);
                    // onnxruntime may compute code times scale, less zero point times scale.
                    assert!((own - right).abs() <= 1e-6 * right.abs().max(0.1), "{form} {name} {i} {o}");
                }
            }
            seen += 1;
        }
        assert!(seen >= matrices.len() && seen > 0, "{form}: {seen} of {}", matrices.len());
    }
}
