//! The demo model and its adapter in other programs: llama.cpp, and the reference packages of GGUF and
//! safetensors.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use curmerge::base::Base;
use serde_json::{Value, json};

use crate::support::fixture::demo;
use crate::support::next::{Next, difference};
use crate::support::venv::{answer, ask};
use crate::support::{next, program, remade};

/// The task's form, plain English, and text that is hard to tokenize.
const PROMPTS: &[&str] = &[
    "Definition: a large wild cat with a striped coat\nKind:",
    "Definition: a sweet cake made with eggs, butter and sugar\nKind:",
    "the capital and largest city of",
    "a written agreement between two states; \"the treaty was",
    "  Ünïcödé 12345 \n\n\t!?",
];
/// The largest accepted difference of log-probabilities, due to another order of arithmetic.
const SAME: f64 = 1e-4;

/// Files that several tests use.
struct Made {
    folder: PathBuf,
    /// The demo model in Q8_0.
    base: PathBuf,
    /// The same values as F32, in GGUF and in a Hugging Face folder.
    f32: PathBuf,
    hf: PathBuf,
    /// Trained on `base`, with every kind of matrix.
    adapter: PathBuf,
}

impl Made {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

fn made() -> &'static Made {
    static MADE: OnceLock<Made> = OnceLock::new();
    MADE.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients");
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let made = Made {
            base: demo("model.gguf"),
            f32: folder.join("f32.gguf"),
            hf: folder.join("hf"),
            adapter: folder.join("adapter.safetensors"),
            folder,
        };
        ask("to_f32.py", &[made.base.as_os_str(), made.f32.as_os_str()], &[]);
        ask("hf_folder.py", &[made.base.as_os_str(), made.hf.as_os_str()], &[]);
        train(&made.base, &made.adapter, "all");
        made
    })
}

/// A change that is large enough to be told from rounding. It has no need of an anchor.
fn train(base: &Path, adapter: &Path, targets: &str) {
    let data = demo("train.jsonl");
    let words = ["--targets", targets, "--lr", "0.02", "--epochs", "1", "--batch-size", "16"].map(OsStr::new);
    let drawn = ["--rank", "16", "--select", "reference", "--protect", "scale"].map(OsStr::new);
    let files = ["--data".as_ref(), data.as_os_str(), "-o".as_ref(), adapter.as_os_str()];
    let build = ["build".as_ref(), base.as_os_str()];
    program::run(&[&build[..], &files, &words, &drawn].concat()).done();
}

/// What may come after each of [`PROMPTS`], by curmerge.
fn ours(model: &Path, adapter: Option<&Path>) -> Vec<Next> {
    next::ours(model, adapter, PROMPTS)
}

/// The same by llama.cpp.
fn theirs(model: &Path, lora: Option<&Path>) -> Vec<Next> {
    next::theirs(model, lora, PROMPTS)
}

#[track_caller]
fn assert_same(what: &str, a: &[Next], b: &[Next]) {
    let difference = difference(a, b);
    println!("{what}: log-probabilities differ by at most {difference:.1e}");
    assert!(difference < SAME, "{what}: log-probabilities differ by {difference}");
}

/// merged.py's report.
fn merge_report(base: &Path, adapter: &Path, merged: &Path) -> Value {
    answer("merged.py", &[base.as_os_str(), adapter.as_os_str(), merged.as_os_str(), OsStr::new("OUT")], &[])
}

/// Checks that metadata and other tensors are the base's, and that `figure` ("error" or "noise") of each
/// changed tensor is below `tolerance`.
#[track_caller]
fn check_merge(report: &Value, dtype: &str, figure: &str, tolerance: f64) {
    assert_eq!(report["metadata"], json!([]));
    assert_eq!(report["unadapted"], json!([]));
    let adapted = report["adapted"].as_object().unwrap();
    let base = Base::open(demo("model.gguf")).unwrap();
    assert_eq!(adapted.len(), 7 * base.config().layers);
    let worst = adapted.values().map(|t| t[figure].as_f64().unwrap()).fold(0.0, f64::max);
    println!("{dtype}: {figure} at most {worst:.1e}");
    assert!(worst < tolerance, "{dtype}: {figure} {worst}");
    assert!(adapted.values().all(|t| t["type"] == dtype && t["change"].as_f64().unwrap() > 1e-4));
}

fn accuracy(model: &Path, adapter: Option<&Path>) -> f64 {
    let (model, data) = (model.as_os_str(), demo("test.jsonl"));
    let mut words: Vec<&OsStr> =
        vec!["eval".as_ref(), model, "--data".as_ref(), data.as_os_str(), "--json".as_ref()];
    words.extend(adapter.iter().flat_map(|a| [OsStr::new("--adapter"), a.as_os_str()]));
    program::run(&words).json()["accuracy"].as_f64().unwrap()
}

/// Accuracy on the same examples by llama.cpp.
fn their_accuracy(model: &Path, lora: Option<&Path>) -> f64 {
    let data = demo("test.jsonl");
    let mut words = vec![model.as_os_str(), data.as_os_str(), OsStr::new("OUT")];
    words.extend(lora.iter().flat_map(|l| [OsStr::new("--lora"), l.as_os_str()]));
    answer("accuracy.py", &words, &[])["accuracy"].as_f64().unwrap()
}

#[test]
fn llama_cpp_has_the_same_tokens() {
    let mut texts: Vec<String> = PROMPTS.iter().map(|p| p.to_string()).collect();
    let hard = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/tokenizer/hard.jsonl"));
    texts.extend(hard.lines().map(|line| serde_json::from_str::<String>(line).unwrap()));
    for name in ["train.jsonl", "valid.jsonl", "test.jsonl"] {
        for line in std::fs::read_to_string(demo(name)).unwrap().lines() {
            let row: Value = serde_json::from_str(line).unwrap();
            texts.push(format!("{}{}", row["prompt"].as_str().unwrap(), row["completion"].as_str().unwrap()));
        }
    }
    texts.push(std::fs::read_to_string(demo("text.txt")).unwrap());
    let tokenizer = Base::open(demo("model.gguf")).unwrap().tokenizer().unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    for text in &texts {
        writeln!(file, "{}", json!({ "text": text, "ids": tokenizer.encode(text, false).unwrap() })).unwrap();
    }
    ask("tokens.py", &[demo("model.gguf").as_os_str(), file.path().as_os_str()], &[]);
}

#[test]
fn llama_cpp_gives_the_same_probabilities() {
    let made = made();
    assert_same("base in F32", &ours(&made.f32, None), &theirs(&made.f32, None));
    assert_same("F32 and Q8_0", &ours(&made.f32, None), &ours(&made.base, None));
    assert_same("GGUF and Hugging Face", &ours(&made.f32, None), &ours(&made.hf, None));
}

#[test]
fn adapter_merged_file_and_lora_are_one_model() {
    let made = made();
    let (merged, lora) = (made.path("merged-f32.gguf"), made.path("lora.gguf"));
    curmerge!("merge", made.f32, made.adapter, "-o", merged).done();
    curmerge!("export", made.adapter, "--base", made.f32, "--format", "gguf", "-o", lora).done();
    let adapted = ours(&made.f32, Some(&made.adapter));
    assert_same("adapter and merged file in curmerge", &adapted, &ours(&merged, None));
    assert_same("adapter and merged file in llama.cpp", &adapted, &theirs(&merged, None));
    assert_same("adapter and LoRA in llama.cpp", &adapted, &theirs(&made.f32, Some(&lora)));
    let moved = difference(&adapted, &ours(&made.f32, None));
    assert!(moved > 0.1, "the adapter changes too little ({moved}) for this test");
    // Users have the quantized base, so the LoRA must also help there.
    let (base, with) = (their_accuracy(&made.base, None), their_accuracy(&made.base, Some(&lora)));
    println!("llama.cpp on Q8_0: accuracy {base:.3}, with the LoRA {with:.3}");
    assert!((with - accuracy(&made.base, Some(&made.adapter))).abs() <= 0.02, "{with}");
    assert!(with > base + 0.1, "{base} {with}");
}

#[test]
fn a_trained_lora_is_one_model_with_llama_cpps() {
    let made = made();
    let data = demo("train.jsonl");
    for (method, scale) in [("lora", "--rslora"), ("lora-xs", "--force"), ("curlora", "--force")] {
        let (lora, merged) = (made.path("trained-lora.gguf"), made.path("trained-lora-merged.gguf"));
        curmerge!(
            "build",
            made.f32,
            "--data",
            data,
            "-o",
            lora,
            "--method",
            method,
            scale,
            "--targets",
            "all",
            "--rank",
            "4",
            "--lr",
            "0.02",
            "--max-steps",
            "12",
            "--shrink",
            "1"
        )
        .done();
        curmerge!("merge", made.f32, lora, "-o", merged).done();
        let adapted = ours(&made.f32, Some(&lora));
        assert_same("LoRA in curmerge and llama.cpp", &adapted, &theirs(&made.f32, Some(&lora)));
        assert_same("LoRA and merged file in llama.cpp", &adapted, &theirs(&merged, None));
        let moved = difference(&adapted, &ours(&made.f32, None));
        assert!(moved > 0.02, "{method} changes too little ({moved}) for this test");
    }
}

#[test]
fn merged_gguf_is_the_base_plus_the_change() {
    let made = made();
    let merged = made.path("merged-checked.gguf");
    curmerge!("merge", made.f32, made.adapter, "-o", merged).done();
    check_merge(&merge_report(&made.f32, &made.adapter, &merged), "F32", "error", 1e-5);
}

#[test]
fn merged_folder_is_the_base_plus_the_change() {
    let made = made();
    let (folder, gguf) = (made.path("merged-hf"), made.path("merged-hf.gguf"));
    curmerge!("merge", made.hf, made.adapter, "-o", folder).done();
    check_merge(&merge_report(&made.hf, &made.adapter, &folder), "F32", "error", 1e-5);
    curmerge!("merge", made.f32, made.adapter, "-o", gguf).done();
    assert_same("merged folder and merged GGUF file", &ours(&folder, None), &ours(&gguf, None));
}

#[test]
fn containers_of_equal_values_have_the_same_rows_and_columns() {
    let made = made();
    let chosen = |base: &Path, name: &str| {
        let out = made.path(name);
        let answer = curmerge!("select", base, "-o", out, "--targets", "all", "--seed", "7", "--json").json();
        for other in [&made.base, &made.f32, &made.hf] {
            curmerge!("verify", out, "--base", other).done();
        }
        answer["targets"].clone()
    };
    let gguf = chosen(&made.base, "select-q8_0.safetensors");
    assert!(gguf.as_array().is_some_and(|targets| targets.len() > 7));
    assert_eq!(gguf, chosen(&made.f32, "select-f32.safetensors"));
    assert_eq!(gguf, chosen(&made.hf, "select-hf.safetensors"));
}

#[test]
fn an_adapter_trained_on_a_folder_fits_the_gguf_file() {
    let made = made();
    let adapter = made.path("from-hf.safetensors");
    let data = demo("train.jsonl");
    curmerge!("build", made.hf, "--data", data, "-o", adapter, "--lr", "1e-2", "--max-steps", "5").done();
    curmerge!("verify", adapter, "--base", made.base).done();
    let (folder, gguf) = (ours(&made.hf, Some(&adapter)), ours(&made.base, Some(&adapter)));
    assert_same("one adapter on a folder and on a GGUF file", &folder, &gguf);
    assert!(difference(&gguf, &ours(&made.base, None)) > 0.1);
}

#[test]
fn quantized_merges_keep_what_was_learnt() {
    let made = made();
    let (base, beside) = (accuracy(&made.base, None), accuracy(&made.base, Some(&made.adapter)));
    println!("accuracy: base {base:.3}, with the adapter {beside:.3}");
    assert!(beside > base + 0.1, "training did not help: accuracy {base} before, {beside} after");
    for (dtype, tolerance) in [("q8_0", 0.007), ("q4_1", 0.1)] {
        let merged = made.path(&format!("merged-{dtype}.gguf"));
        curmerge!("merge", made.base, made.adapter, "-o", merged, "--type-adapted", dtype).done();
        check_merge(
            &merge_report(&made.base, &made.adapter, &merged),
            &dtype.to_uppercase(),
            "noise",
            tolerance,
        );
        let (own, llama) = (accuracy(&merged, None), their_accuracy(&merged, None));
        println!("accuracy of the {dtype} merge: {own:.3}, in llama.cpp {llama:.3}");
        for found in [own, llama] {
            assert!((found - beside).abs() <= 0.02, "{dtype}: {found}, with the adapter {beside}");
            assert!(found > base + 0.1, "{dtype}: {found}, base {base}");
        }
    }
}

#[test]
fn splits_are_the_whole_model_in_llama_cpp_and_curmerge() {
    let made = made();
    let (whole, splits) = (made.path("split-whole.gguf"), made.path("splits"));
    curmerge!("merge", made.f32, made.adapter, "-o", whole).done();
    let merge = curmerge!("merge", made.f32, made.adapter, "-o", splits, "--max-shard-size", "3M", "--json");
    let first = PathBuf::from(merge.json()["model"].as_str().unwrap());
    ask("gguf_splits.py", &["check".as_ref(), whole.as_os_str(), splits.as_os_str()], &[]);
    let next = theirs(&whole, None);
    assert_same("splits and whole file in llama.cpp", &theirs(&first, None), &next);
    assert_same("splits in curmerge, whole file in llama.cpp", &ours(&first, None), &next);

    // Splits that the package gguf wrote.
    let (words, first) = (["write", "5"].map(OsStr::new), made.path("theirs-00001-of-00008.gguf"));
    let out = made.path("theirs.gguf");
    ask("gguf_splits.py", &[words[0], made.f32.as_os_str(), out.as_os_str(), words[1]], &[]);
    assert_same("their splits", &theirs(&first, None), &ours(&first, None));
    curmerge!("verify", made.adapter, "--base", first).done();
    let joined = made.path("joined.gguf");
    curmerge!("merge", first, made.adapter, "-o", joined).done();
    assert!(std::fs::read(joined).unwrap() == std::fs::read(whole).unwrap());
}

#[test]
fn a_folder_in_other_shards_is_the_same_model() {
    let made = made();
    let (own, shards) = (made.path("shards-own"), made.path("shards"));
    curmerge!("merge", made.hf, made.adapter, "-o", own).done();
    curmerge!("merge", made.hf, made.adapter, "-o", shards, "--max-shard-size", "2500KB").done();
    ask("hf_shards.py", &[own.as_os_str(), shards.as_os_str(), "2500000".as_ref()], &[]);
    assert_same("base's shards and smaller ones", &ours(&own, None), &ours(&shards, None));
}

#[test]
fn a_folder_made_from_a_gguf_file_has_llama_cpps_tokens() {
    let made = made();
    let models = remade::PRE_TOKENIZERS.iter().map(|pre| {
        let value = curmerge_formats::gguf::Value::String((*pre).into());
        (*pre, remade::Remade::demo().set("tokenizer.ggml.pre", Some(value)))
    });
    let pieces = [("spaced", true), ("unspaced", false)]
        .map(|(name, spaced)| (name, remade::Remade::demo().sentence_pieces(spaced)));
    let mut pairs = Vec::new();
    for (name, model) in models.chain(pieces) {
        let [gguf, folder] = [format!("tokens-{name}.gguf"), format!("tokens-{name}")].map(|n| made.path(&n));
        model.write(&gguf);
        curmerge!("convert", gguf, folder).done();
        pairs.extend([gguf, folder]);
    }
    let words: Vec<&OsStr> = pairs.iter().map(|path| path.as_os_str()).collect();
    // llama.cpp's server refuses an empty text.
    let texts: Vec<String> = remade::texts().into_iter().filter(|text| !text.is_empty()).collect();
    ask("hf_tokens.py", &words, json!(texts).to_string().as_bytes());
}

#[test]
fn a_folder_made_from_a_gguf_file_is_the_same_model() {
    let made = made();
    let folder = made.path("from-gguf");
    curmerge!("convert", made.base, folder, "--type", "f32", "--max-shard-size", "3M").done();
    assert_same("GGUF file in llama.cpp and the folder", &theirs(&made.f32, None), &ours(&folder, None));
    // hf_folder.py wrote the other folder without curmerge.
    ask("hf_shards.py", &[made.hf.as_os_str(), folder.as_os_str(), "3000000".as_ref()], &[]);
}

#[test]
fn the_divergence_from_the_base_is_that_of_llama_cpp() {
    const CTX: usize = 16;
    let made = made();
    let merged = made.path("diverged.gguf");
    let f32 = made.f32.as_os_str();
    let words = [OsStr::new("merge"), f32, made.adapter.as_os_str(), OsStr::new("-o"), merged.as_os_str()];
    program::run(&words).done();
    let ctx = CTX.to_string();
    let text = demo("text.txt");
    let words = ["--ctx", &ctx, "--chunks", "3", "--json", "--perplexity"].map(OsStr::new);
    let files = [text.as_os_str(), "--against".as_ref(), f32];
    let base = ["eval".as_ref(), merged.as_os_str()];
    let ours = program::run(&[&base[..], &words, &files].concat()).json();

    let tokenizer = Base::open(&made.f32).unwrap().tokenizer().unwrap();
    let text = std::fs::read_to_string(text).unwrap();
    let chunks = curmerge::eval::Chunks::new(&tokenizer, &text, CTX, Some(3)).unwrap();
    let mut prompts: Vec<&[u32]> = Vec::new();
    for batch in &chunks.batches {
        for (row, _) in batch.predictions() {
            let sequence = batch.sequences().iter().find(|rows| rows.contains(row)).unwrap();
            prompts.push(&batch.tokens()[sequence.start..=*row]);
        }
    }
    let [reference, model] = [&made.f32, &merged].map(|file| next::theirs_after(file, &prompts));
    let top = |next: &Next| *next.log_probs.iter().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
    let (mut kl, mut same) = (0.0, 0.0);
    for (p0, p) in reference.iter().zip(&model) {
        kl += p0.log_probs.iter().map(|(id, l0)| l0.exp() * (l0 - p.log_probs[id])).sum::<f64>();
        same += f64::from(u8::from(top(p0) == top(p)));
    }
    let count = prompts.len() as f64;
    assert_eq!(ours["perplexity_predictions"], prompts.len());
    let found = ours["kl"].as_f64().unwrap();
    assert!(kl / count > 1e-2 && (found - kl / count).abs() < 1e-4, "KL {found}, llama.cpp's {}", kl / count);
    assert_eq!(ours["same_top"].as_f64().unwrap(), same / count);
}
