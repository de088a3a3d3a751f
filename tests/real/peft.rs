//! LoRA adapters compared with PEFT: it loads those that `export` writes, `merge` merges those that PEFT
//! makes, and `build --method lora` trains as PEFT and torch do.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use curmerge::Transformer;
use curmerge::base::Base;
use curmerge::export::{Format, export};
use curmerge::lora::{LoraMethod, LoraOptions, TrainedLora};
use curmerge::model::Batch;
use curmerge::train::data::{DataOptions, Dataset, Example, order};
use curmerge::train::schedule::Schedule;
use curmerge::train::{TrainOptions, Trainer};
use ndarray::Array2;
use serde_json::{Value, json};

use crate::support::environment;
use crate::support::families::{CONTAINERS, Container, Family};
use crate::support::fixture::demo;

#[test]
#[ignore = "needs CURMERGE_PYTHON with torch, transformers and peft"]
fn peft_agrees_on_fused_and_transposed_matrices() {
    let folder = tempfile::tempdir().unwrap();
    let [adapter_file, exported, merged, lora] =
        ["adapter.st", "peft", "merged", "lora"].map(|name| folder.path().join(name));
    for name in ["phi3", "gpt2", "llama2", "gemma3", "qwen3moe", "nemotron_h", "apertus", "falcon"] {
        let family = Family::open(name);
        let path = family.path(Container::Folder);
        // PEFT loads no LoRA of the output projections of state spaces.
        let mamba = name == "nemotron_h";
        let words = if mamba { ["q,k,v,in,up,down", "q,v,in"] } else { ["all", "q,v,o"] };
        for (words, container) in words.into_iter().flat_map(|w| CONTAINERS.map(|c| (w, c))) {
            let base = Base::open(family.path(container)).unwrap();
            family.adapter(&base, words).write(&adapter_file, &[]).unwrap();
            let base = family.path(container);
            curmerge!("export", adapter_file, "--base", base, "--format", "peft", "-o", exported, "--force")
                .done();
            curmerge!("merge", path, adapter_file, "-o", merged, "--type-adapted", "f32", "--force").done();
            let folders = [&path, &exported, &merged].map(|folder| folder.as_os_str());
            let arguments = [&["same".as_ref()], &folders[..], &["OUT".as_ref()]].concat();
            let found = environment::answer("peft_client.py", &arguments, &[]);
            let [off, moved] = ["off", "moved"].map(|key| found[key].as_f64().unwrap());
            println!("{name} {words} {container:?}: logits off by {off:.1e}, moved by {moved:.1e}");
            assert!(off < 1e-4 && moved > 1e-2, "{name} {words} {container:?}: {off} {moved}");
        }
        // transformers stores experts as parameters without modules, and curmerge refuses PEFT's adapters of
        // those.
        let kinds: &[&str] = if name == "qwen3moe" || mamba { &[] } else { &["plain", "rslora", "patterns"] };
        for kind in kinds {
            fs::remove_dir_all(&lora).ok();
            let words = ["make".as_ref(), path.as_os_str(), lora.as_os_str(), OsStr::new(kind)];
            environment::ask("peft_client.py", &words, &[]);
            curmerge!("merge", path, lora, "-o", merged, "--type-adapted", "f32", "--force").done();
            let folders = [&path, &lora, &merged].map(|folder| folder.as_os_str());
            let words = [&["merged".as_ref()], &folders[..], &["OUT".as_ref()]].concat();
            let found = environment::answer("peft_client.py", &words, &[]);
            let error = found["error"].as_f64().unwrap();
            println!("{name} {kind}: {} matrices, error at most {error:.1e}", found["changed"]);
            assert!(error < 1e-4 && found["changed"].as_u64() >= Some(8), "{name} {kind}: {error}");
        }
    }
}

/// PEFT loads what `export --combine` and `extract` write, and computes what a merge of it does.
#[test]
#[ignore = "needs CURMERGE_PYTHON with torch, transformers and peft"]
fn peft_loads_combinations_and_differences() {
    let scratch = tempfile::tempdir().unwrap();
    let [one, merged, found] = ["one", "merged", "found"].map(|name| scratch.path().join(name));
    let base = Family::open("qwen2").path(Container::Folder);
    let lora = |name: &str, weight: f32| {
        format!("{}={weight}", crate::support::fixture::path("combine").join(name).display())
    };
    let same = |adapter: &Path| {
        let folders = [&base, adapter, &merged].map(|folder: &Path| folder.as_os_str());
        let words = [&["same".as_ref()], &folders[..], &["OUT".as_ref()]].concat();
        let answer = environment::answer("peft_client.py", &words, &[]);
        let [off, moved] = ["off", "moved"].map(|key| answer[key].as_f64().unwrap());
        println!("{}: logits off by {off:.1e}, moved by {moved:.1e}", adapter.display());
        assert!(off < 1e-4 && moved > 1e-2, "{off} {moved}");
    };
    let (first, third) = (lora("first", 0.7), lora("third", -0.5));
    curmerge!("export", first, third, "--base", base, "--combine", "svd", "--svd-rank", "5", "-o", one)
        .done();
    curmerge!("merge", base, one, "-o", merged, "--type-adapted", "f32").done();
    same(&one);
    curmerge!("extract", base, merged, "-o", found, "--rank", "5").done();
    same(&found);
}

/// What PEFT computes, from an adapter on.
fn train_with_peft(folder: &Path, adapter: &Path, rates: &[f64], batches: &[Vec<&Example>]) -> Value {
    let batch = |batch: &Vec<&Example>| -> Vec<Value> {
        batch.iter().map(|e| json!({"ids": e.tokens, "mask": e.loss_mask})).collect()
    };
    let job = json!({
        "clip": TrainOptions::default().clip,
        "rates": rates,
        "batches": batches.iter().map(batch).collect::<Vec<_>>(),
    });
    let words = [folder.as_os_str(), adapter.as_os_str(), OsStr::new("OUT")];
    environment::answer("peft_train.py", &words, job.to_string().as_bytes())
}

/// The largest difference between our matrices and those of PEFT's parameters, relative to the largest number
/// of each kind, A or B.
fn off(base: &Base, lora: &TrainedLora, ours: &[Array2<f32>], theirs: &Value) -> [f64; 2] {
    let (mut off, mut size) = ([0.0f64; 2], [0.0f64; 2]);
    for (target, pair) in lora.targets.iter().zip(ours.chunks_exact(2)) {
        let (name, _) = base.to_hugging_face(&target.name).unwrap();
        let module = base.architecture().module(&name);
        let weight = base.weight(&target.name).unwrap();
        for (kind, (part, matrix)) in ["lora_A", "lora_B"].into_iter().zip(pair).enumerate() {
            let found = &theirs[format!("base_model.model.{module}.{part}.default.weight")];
            let found: Vec<f64> = serde_json::from_value(found.clone()).unwrap();
            assert_eq!(found.len(), matrix.len(), "{} {part}", target.name);
            for ((row, col), &x) in matrix.indexed_iter() {
                // The rows of B are the outputs, which the folder may hold in another order.
                let row = if kind == 1 { weight.stored_row(row) } else { row };
                let right = found[row * matrix.ncols() + col];
                off[kind] = off[kind].max((f64::from(x) - right).abs());
                size[kind] = size[kind].max(right.abs());
            }
        }
    }
    [off[0] / size[0], off[1] / size[1]]
}

/// The same factors, order and settings give the same losses, gradients and matrices.
fn check_training(name: &str, path: &Path, targets: &str, rslora: bool) {
    let folder = tempfile::tempdir().unwrap();
    let base = Base::open(path).unwrap();
    let tokenizer = base.tokenizer().unwrap();
    let limits = DataOptions { max_seq_len: 48, ..Default::default() };
    let mut data = Dataset::read(demo("train.jsonl"), &tokenizer, None, &limits).unwrap();
    data.examples.truncate(24);
    let options = TrainOptions {
        epochs: 2,
        batch_size: 4,
        learning_rate: 2e-3,
        shrink: 1.0,
        seed: 5,
        ..Default::default()
    };
    let lora = LoraOptions {
        method: LoraMethod::Lora,
        rank: 4,
        alpha: 6.0,
        rslora,
        targets: targets.into(),
        layers: None,
        seed: 7,
    };
    let mut lora = TrainedLora::new(&base, lora).unwrap();
    let begin = folder.path().join("begin");
    export(&base, &lora, Format::Peft, &begin, &[], false).unwrap();

    let steps = options.steps(data.examples.len());
    let schedule =
        Schedule { peak: options.learning_rate, warmup: (steps as f64 * 0.1).round() as u64, steps };
    let rates: Vec<f64> = (0..steps).map(|step| schedule.rate(step)).collect();
    let order = (0..options.epochs).flat_map(|epoch| order(data.examples.len(), options.seed, epoch));
    let order: Vec<&Example> = order.map(|i| &data.examples[i]).collect();
    let batches: Vec<Vec<&Example>> = order.chunks(options.batch_size).map(<[_]>::to_vec).collect();
    let right = train_with_peft(path, &begin, &rates, &batches);

    let mut model = Transformer::new(&base).unwrap();
    model.attach_lora(&lora.targets, lora.options.scale()).unwrap();
    let mut trainer = Trainer::new(&mut model, &data, None, &options).unwrap();
    while trainer.advance().unwrap().is_some() {}
    let report = trainer.finish();
    let losses: Vec<f64> = serde_json::from_value(right["losses"].clone()).unwrap();
    assert_eq!(losses.len(), report.progress.losses.len());
    let worst = losses.iter().zip(&report.progress.losses).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    let trained: Vec<_> = model.trainable_mut().iter().map(|x| (*x).clone()).collect();
    let [a, b] = off(&base, &lora, &trained, &right["trained"]);
    println!(
        "{name}: losses from {:.4} to {:.4} differ by at most {worst:.1e}; A by {a:.1e}, B by {b:.1e} of the largest",
        losses[0],
        losses[losses.len() - 1],
    );
    let [first, second] =
        [&losses[..losses.len() / 2], &losses[losses.len() / 2..]].map(|l| l.iter().sum::<f64>());
    assert!(worst < 1e-4 && second < first, "{name}: {losses:?}");

    // The gradients where neither A nor B is zero.
    model.store_lora(&mut lora.targets);
    let end = folder.path().join("end");
    export(&base, &lora, Format::Peft, &end, &[], false).unwrap();
    let right = train_with_peft(path, &end, &[0.0], &batches[..1]);
    let mut batch = Batch::default();
    batches[0].iter().for_each(|e| batch.push(&e.tokens, &e.loss_mask));
    let (_, gradients) = model.gradients(&batch, 1.0 / batch.predictions().len() as f64);
    let [da, db] = off(&base, &lora, &gradients, &right["gradients"]);
    println!("{name}: dA off by {da:.1e}, dB by {db:.1e} of the largest");
    assert!(da < 1e-4 && db < 1e-4, "{name}: {da} {db}");
}

#[test]
#[ignore = "needs CURMERGE_PYTHON with torch, transformers and peft"]
fn lora_trains_as_in_peft() {
    for (name, targets, rslora) in [
        ("llama3", "all", false),
        ("gemma3", "all", true),
        ("qwen2", "q,v,down", true),
        ("gpt2", "o,up,down", false),
    ] {
        check_training(name, &Family::open(name).path(Container::Folder), targets, rslora);
    }
}

#[test]
#[ignore = "needs CURMERGE_MODELS (shared/models/get.py) and CURMERGE_PYTHON with torch, transformers and peft"]
fn lora_trains_smollm2_as_in_peft() {
    let folder: PathBuf = environment::named("CURMERGE_MODELS").join("smollm2-hf");
    check_training("SmolLM2", &folder, "q,k,v,o,gate,up,down", false);
}
