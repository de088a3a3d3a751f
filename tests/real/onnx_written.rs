//! ONNX models written from SmolLM2-135M-Instruct and Gemma 3 270M, compared with transformers and
//! onnxruntime-genai.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use curmerge_formats::dtype::DType;
use serde_json::{Value, json};

use crate::support::environment::{self, named};
use crate::support::families::{Container, Family, genai};
use crate::support::goldens::error;
use crate::support::remade::Remade;
use crate::support::{program, python, venv};

const PROMPTS: &[&str] = &[
    "Review: celebrity cameos do not automatically equal laughs\nSentiment:",
    "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n",
    "The three laws of thermodynamics say that",
];
/// Tokens generated after each prompt.
const COUNT: &str = "24";

fn model(name: &str) -> PathBuf {
    named("CURMERGE_MODELS").join(name)
}

/// Runs a model in onnxruntime-genai.
fn ask_genai(words: &[&OsStr], input: &Value) -> Value {
    python::answer(&named("CURMERGE_GENAI_PYTHON"), "onnx_genai.py", words, input.to_string().as_bytes())
}

/// For each prompt, its tokens and those that curmerge generates after it.
fn ours(model: &Path, adapter: Option<&Path>, prompts: &[&str]) -> Vec<[Vec<u32>; 2]> {
    let generate = |prompt: &&str| {
        let mut words = vec![OsStr::new("run"), model.as_os_str()];
        words.extend(["-n", COUNT, "--exact", "--json", "-p", prompt].map(OsStr::new));
        words.extend(adapter.iter().flat_map(|adapter| [OsStr::new("--adapter"), adapter.as_os_str()]));
        let answer = program::run(&words).json();
        ["prompt_tokens", "tokens"].map(|key| serde_json::from_value(answer[key].clone()).unwrap())
    };
    prompts.iter().map(generate).collect()
}

/// Checks that onnxruntime, and transformers on `folder`, give equal logits after every token of the first
/// prompt.
fn assert_same_logits(what: &str, source: &Path, folder: &Path, scratch: &Path) {
    let onnx = scratch.join("model.onnx");
    curmerge!("convert", source, onnx).done();
    let [ids, _] = ours(source, None, &PROMPTS[..1]).swap_remove(0);
    let words = [onnx.as_os_str(), OsStr::new("OUT")];
    let found = venv::answer("onnx_decoder.py", &words, json!([ids]).to_string().as_bytes());
    let asked = scratch.join("asked.json");
    let places: Vec<usize> = (0..ids.len()).collect();
    std::fs::write(
        &asked,
        json!({ folder.to_str().unwrap(): [{ "ids": ids, "places": places }] }).to_string(),
    )
    .unwrap();
    let words = [asked.as_os_str(), OsStr::new("OUT")];
    let right = environment::answer("hf_logits.py", &words, b"null");
    let rows = |value: &Value| serde_json::from_value::<Vec<Vec<f64>>>(value.clone()).unwrap();
    let (found_rows, right) = (rows(&found["logits"][0]), rows(&right[folder.to_str().unwrap()]["rows"]));
    assert_eq!((found_rows.len(), right.len()), (ids.len(), ids.len()));
    let apart = found_rows.into_iter().zip(&right).map(|(a, b)| error(a, b)).fold(0.0, f64::max);
    let [cached, padded] = ["cached", "padded"].map(|key| found[key].as_f64().unwrap());
    println!("{what}: {apart:.1e} from transformers, through the cache {cached:.1e}, padded {padded:.1e}");
    assert!(apart < 1e-4 && cached < 1e-4 && padded < 1e-4, "{what}: {apart:e}, {cached:e}, {padded:e}");
}

#[test]
#[ignore = "needs real models"]
fn transformers_gives_the_same_logits() {
    let scratch = tempfile::tempdir().unwrap();
    let smol = model("smollm2-hf");
    assert_same_logits("SmolLM2, folder", &smol, &smol, scratch.path());
    for name in ["smollm2-135m-instruct.Q4_1.gguf", "gemma-3-270m.Q4_K_M.gguf"] {
        let (source, folder) = (model(name), scratch.path().join("folder"));
        curmerge!("convert", source, folder, "--type", "f32", "--force").done();
        assert_same_logits(name, &source, &folder, scratch.path());
    }
}

/// Checks that onnxruntime-genai generates the same tokens as curmerge.
fn assert_same_tokens(what: &str, source: &Path, prompts: &[&str], scratch: &Path, options: &[&str]) {
    let folder = scratch.join("genai");
    let mut words: Vec<&OsStr> = vec!["convert".as_ref(), source.as_os_str(), folder.as_os_str()];
    words.extend(["--format", "onnx", "--genai", "--force"].iter().chain(options).map(OsStr::new));
    program::run(&words).done();
    let ours = ours(source, None, prompts);
    let ids: Vec<&Vec<u32>> = ours.iter().map(|[prompt, _]| prompt).collect();
    let words = [folder.as_os_str(), OsStr::new("OUT"), OsStr::new(COUNT)];
    let found = ask_genai(&words, &json!(ids));
    assert_generated(what, &ours, &found);
}

fn assert_generated(what: &str, ours: &[[Vec<u32>; 2]], found: &Value) {
    for ([_, right], found) in ours.iter().zip(found.as_array().unwrap()) {
        let mut found: Vec<u32> = serde_json::from_value(found["tokens"].clone()).unwrap();
        // onnxruntime-genai also returns the end-of-text token.
        found.truncate(if found.len() == right.len() + 1 { right.len() } else { found.len() });
        assert_eq!(&found, right, "{what}");
    }
    println!("{what}: {} prompts, the same tokens", ours.len());
}

#[test]
#[ignore = "needs onnxruntime-genai"]
fn genai_generates_the_same_tokens_with_every_architecture() {
    let scratch = tempfile::tempdir().unwrap();
    for name in genai() {
        let prompts = ["The quick brown fox", "In the evening, when the wind comes from the west"];
        for container in [Container::Folder, Container::Gguf] {
            let source = Family::open(name).path(container);
            assert_same_tokens(&format!("{name}, {container:?}"), &source, &prompts, scratch.path(), &[]);
        }
    }
}

#[test]
#[ignore = "needs real models"]
fn genai_generates_the_same_tokens_with_real_models() {
    let scratch = tempfile::tempdir().unwrap();
    let smol = model("smollm2-hf");
    assert_same_tokens("SmolLM2, F32", &smol, PROMPTS, scratch.path(), &[]);
    let words = [scratch.path().join("genai").into_os_string(), "OUT".into(), COUNT.into()];
    let words: Vec<&OsStr> = words.iter().map(|word| word.as_os_str()).collect();
    // Its own tokenizer also loads the folder.
    let found = ask_genai(&words, &json!(PROMPTS));
    for ([ids, _], found) in ours(&smol, None, PROMPTS).iter().zip(found.as_array().unwrap()) {
        assert_eq!(found["prompt"], json!(ids));
    }

    let four = scratch.path().join("four.gguf");
    Remade::of(&model("smollm2-135m-instruct.Q4_1.gguf")).stored_as(DType::Q4_0).write(&four);
    assert_same_tokens("SmolLM2, Q4_0", &four, PROMPTS, scratch.path(), &["--type", "q4_0"]);
    let gemma = model("gemma-3-270m.Q4_K_M.gguf");
    assert_same_tokens("Gemma 3", &gemma, PROMPTS, scratch.path(), &[]);
}

#[test]
#[ignore = "needs real models"]
fn genai_generates_the_same_tokens_with_an_adapter() {
    let scratch = tempfile::tempdir().unwrap();
    let [data, adapter, exported, folder] =
        ["data.jsonl", "adapter.st", "a.onnx_adapter", "genai"].map(|name| scratch.path().join(name));
    let lines = [
        r#"{"prompt": "The river is", "completion": " red in the morning"}"#,
        r#"{"prompt": "The capital of Norway", "completion": " is Oslo."}"#,
    ];
    std::fs::write(&data, lines.join("\n")).unwrap();
    let smol = model("smollm2-hf");
    let build: Vec<&OsStr> = vec!["build".as_ref(), smol.as_os_str(), "--data".as_ref(), data.as_os_str()];
    let options = ["--targets", "q,v", "--lr", "0.02", "--epochs", "4", "--shrink", "1"].map(OsStr::new);
    let out = [OsStr::new("-o"), adapter.as_os_str()];
    program::run(&[&build[..], &options, &out].concat()).done();
    curmerge!("convert", smol, folder, "--format", "onnx", "--genai", "--lora-inputs", "q,v").done();
    curmerge!("export", adapter, "--base", smol, "--format", "onnx-adapter", "-o", exported).done();
    let [with, without] = [Some(adapter.as_path()), None].map(|adapter| ours(&smol, adapter, PROMPTS));
    assert_ne!(with, without, "the adapter changes nothing, so the test proves nothing");
    let words = [folder.as_os_str(), OsStr::new("OUT"), OsStr::new(COUNT), exported.as_os_str()];
    let ids: Vec<&Vec<u32>> = with.iter().map(|[prompt, _]| prompt).collect();
    assert_generated("without", &without, &ask_genai(&words[..3], &json!(ids)));
    assert_generated("with the adapter", &with, &ask_genai(&words, &json!(ids)));
}
