//! Hugging Face folders converted to GGUF files, against llama.cpp's converter. `fixtures/convert_hf/make.py`
//! describes the folders, and made goldens.json of the converter's outputs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use curmerge_formats::gguf::Gguf;
use curmerge_formats::sha256_hex;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::{Value as Json, json};

use crate::support::fixture;
use crate::support::folder::copy;
use crate::support::limited::limited;

const SMOL: &str = "Tiny-Smol-0.1M-Instruct-v2";

fn fixture(name: &str) -> PathBuf {
    fixture::path("convert_hf").join(name)
}

fn read_json(path: &Path) -> Json {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// A copy of a fixture that a test may change.
fn copied(name: &str, folder: &Path) -> PathBuf {
    let target = folder.join(name);
    let _ = fs::remove_dir_all(&target);
    copy(&fixture(name), &target);
    target
}

/// Changes a JSON file of a folder.
fn edit(folder: &Path, name: &str, change: impl Fn(&mut Json)) {
    let path = folder.join(name);
    let mut json = read_json(&path);
    change(&mut json);
    fs::write(path, json.to_string()).unwrap();
}

/// Converts a folder, which must be refused with a line that contains `parts`, and write nothing.
#[track_caller]
fn refused(folder: &Path, parts: &[&str]) {
    let out = folder.with_extension("gguf");
    let line = curmerge!("convert", folder, out, "--type", "f32").refusal();
    assert!(parts.iter().all(|part| line.contains(part)), "{line}");
    assert!(!out.exists());
}

#[test]
fn files_equal_those_of_llama_cpps_converter_and_llama_quantize() {
    let goldens = read_json(&fixture("goldens.json"));
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().join("out.gguf");
    let mut compared = 0;
    for (folder, digests) in goldens.as_object().unwrap() {
        for (file_type, digest) in digests.as_object().unwrap() {
            let input = fixture(folder);
            match file_type.as_str() {
                "auto" => curmerge!("convert", input, out).done(),
                file_type => curmerge!("convert", input, out, "--type", file_type).done(),
            };
            let found = sha256_hex(&fs::read(&out).unwrap());
            assert_eq!(found, digest.as_str().unwrap(), "{folder} as {file_type}: see keys/{folder}.txt");
            compared += 1;
        }
    }
    assert_eq!(compared, 28, "four folders in seven types");
}

#[test]
fn the_report_is_right_and_the_file_runs_like_the_folder() {
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().join("out.gguf");
    let ran = curmerge!("convert", fixture(SMOL), out, "--json").done();
    assert!(ran.stderr.starts_with("warning: ") && ran.stderr.contains("'smollm'"), "{}", ran.stderr);
    let answer = ran.json();
    assert_eq!(answer["type"], "BF16");
    assert_eq!(answer["types"], json!({"BF16": 8, "F32": 3}));
    // The folder and the file are the same model.
    let text = scratch.path().join("text.txt");
    fs::write(&text, "a text of the small vocabulary, with some words in it. ".repeat(40)).unwrap();
    let perplexity = |model: &Path| {
        curmerge!("eval", model, "--perplexity", text, "--ctx", "64", "--json").json()["perplexity"].clone()
    };
    assert_eq!(perplexity(&out), perplexity(&fixture(SMOL)));
    // Converting a GGUF file needs a type. No file of the input folder is replaced.
    let ran = curmerge!("convert", out, scratch.path().join("again.gguf"));
    assert!(ran.status == Some(1) && ran.stderr.contains("--type"), "{}", ran.stderr);
    let folder = copied(SMOL, scratch.path());
    fs::rename(&out, folder.join("old.gguf")).unwrap();
    let ran = curmerge!("convert", folder, folder.join("old.gguf"));
    assert!(ran.status == Some(1) && ran.stderr.contains("input"), "{}", ran.stderr);
}

#[test]
fn folders_take_an_imatrix_and_convert_like_their_f32_file() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    curmerge!("convert", fixture(SMOL), path("f32.gguf"), "--type", "f32").done();
    let line =
        curmerge!("convert", fixture(SMOL), path("o.gguf"), "--type", "q4_0", "--imatrix", path("f32.gguf"));
    assert!(line.status == Some(1) && line.stderr.contains("f32.gguf"), "{}", line.stderr);
    // A folder converts as the F32 file made of it does.
    curmerge!("convert", fixture(SMOL), path("one.gguf"), "--type", "q5_k_m").done();
    curmerge!("convert", path("f32.gguf"), path("two.gguf"), "--type", "q5_k_m").done();
    let (one, two) = (Gguf::open(&path("one.gguf")).unwrap(), Gguf::open(&path("two.gguf")).unwrap());
    for tensor in one.tensors() {
        let other = two.tensor(&tensor.name).unwrap();
        assert!(tensor.dtype == other.dtype && one.data(tensor) == two.data(other), "{}", tensor.name);
    }
}

#[test]
fn folders_that_cannot_be_converted_are_refused_by_name() {
    let scratch = tempfile::tempdir().unwrap();
    let smol = || copied(SMOL, scratch.path());

    let folder = smol();
    edit(&folder, "tokenizer.json", |json| json["pre_tokenizer"] = json!({"type": "Whitespace"}));
    refused(&folder, &["tokenizer.json", "pre_tokenizer", "no name", "hash to "]);
    let folder = smol();
    edit(&folder, "tokenizer.json", |json| json["normalizer"] = json!({"type": "NFC"}));
    refused(&folder, &["tokenizer.json", "pre_tokenizer"]);
    let folder = smol();
    edit(&folder, "tokenizer.json", |json| {
        json["model"] = json!({"type": "WordLevel", "vocab": {}, "unk_token": "x"})
    });
    refused(&folder, &["tokenizer.json", "'WordLevel'"]);
    let folder = smol();
    fs::remove_file(folder.join("tokenizer.json")).unwrap();
    refused(&folder, &["no tokenizer", "tokenizer.model"]);
    let folder = smol();
    edit(&folder, "tokenizer_config.json", |json| {
        json["extra_special_tokens"] = (0..20).map(|i| json!(format!("<more{i}>"))).collect();
    });
    refused(&folder, &["tokenizer.json", "324 tokens", "312 rows"]);
    let folder = smol();
    fs::write(folder.join("tokenizer_config.json"), "{\"a\": \n}").unwrap();
    refused(&folder, &["tokenizer_config.json", "line 2", "not a JSON object"]);
    // A tiktoken vocabulary. Some folders have one under this name.
    let folder = smol();
    fs::write(folder.join("tokenizer.model"), "IQ== 0\nIg== 1\n").unwrap();
    refused(&folder, &["tokenizer.model", "byte ", "SentencePiece"]);
    let folder = copied("pieces", scratch.path());
    let model = fs::read(folder.join("tokenizer.model")).unwrap();
    fs::write(folder.join("tokenizer.model"), &model[..100]).unwrap();
    refused(&folder, &["tokenizer.model", "past the end"]);
    let folder = scratch.path().join("gemma");
    copy(&fixture::family("gemma", "hf"), &folder);
    fs::remove_file(folder.join("tokenizer.model")).unwrap();
    refused(&folder, &["tokenizer.model", "tokenizer.json alone"]);
    let folder = smol();
    edit(&folder, "config.json", |json| json["model_type"] = json!("mamba"));
    refused(&folder, &["architecture", "'mamba'"]);
    // A tensor that the architecture does not have.
    let folder = smol();
    let path = folder.join("model.safetensors");
    let weights = fs::read(&path).unwrap();
    let text = b"model.layers.0.mlp.up_proj.weight";
    let at = weights.windows(text.len()).position(|window| window == text).unwrap();
    let mut changed = weights.clone();
    changed[at + 15..at + 18].copy_from_slice(b"abc");
    fs::write(&path, changed).unwrap();
    refused(&folder, &["blk.0.ffn_up", "missing"]);
}

#[test]
fn a_readme_without_valid_yaml_is_left_out_with_a_warning() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = copied(SMOL, scratch.path());
    fs::write(folder.join("README.md"), "---\nlicense: [mit\n---\n").unwrap();
    let out = scratch.path().join("out.gguf");
    let ran = curmerge!("convert", folder, out).done();
    assert!(ran.stderr.contains("README.md is not YAML"), "{}", ran.stderr);
    assert!(Gguf::open(&out).unwrap().get("general.license").is_none());
}

#[test]
fn folders_with_flipped_bytes_are_refused_or_converted() {
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().join("out.gguf");
    let (mut converted, mut refused) = (0, 0);
    for (number, (name, file)) in [
        (SMOL, "config.json"),
        (SMOL, "tokenizer.json"),
        (SMOL, "tokenizer_config.json"),
        (SMOL, "generation_config.json"),
        (SMOL, "model.safetensors"),
        ("llama3-like", "README.md"),
        ("llama3-like", "tokenizer_config.json"),
        ("llama3-like", "model.safetensors.index.json"),
        ("pieces", "tokenizer.model"),
        ("pieces", "added_tokens.json"),
        ("pieces-json", "tokenizer.json"),
    ]
    .into_iter()
    .cycle()
    .take(220)
    .enumerate()
    {
        let mut stream = ChaCha20Rng::seed_from_u64(number as u64);
        let folder = copied(name, scratch.path());
        let path = folder.join(file);
        let mut bytes = fs::read(&path).unwrap();
        for _ in 0..1 + number % 4 {
            // Most of the structure of a file is at its beginning and end.
            let near = (bytes.len() as u32).min(4000);
            let place = (stream.next_u32() % near) as usize;
            let place = if number % 2 == 0 { place } else { bytes.len() - 1 - place };
            // Flips any bits, or low bits only, which turns digits and signs into others.
            bytes[place] ^= (stream.next_u32() % if number % 3 == 0 { 255 } else { 15 }) as u8;
        }
        fs::write(&path, bytes).unwrap();
        let output = limited().arg("convert").args([&folder, &out]).stdin(Stdio::null()).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        let case = format!("{number}: {name}/{file}: {:?}: {errors}", output.status);
        match output.status.code() {
            Some(0) => {
                Gguf::open(&out).unwrap_or_else(|error| panic!("{case}{error}"));
                fs::remove_file(&out).unwrap();
                converted += 1;
            }
            Some(1) => {
                assert!(errors.starts_with("error: ") && errors.lines().count() == 1, "{case}");
                assert!(errors.len() < 1000 && !out.exists(), "{case}");
                refused += 1;
            }
            _ => panic!("{case}"),
        }
        assert!(errors.chars().all(|c| c == '\n' || !c.is_control()), "{case:?}");
    }
    assert!(
        converted > 20 && refused > 20,
        "{converted} converted, {refused} refused: the test shows little"
    );
}
