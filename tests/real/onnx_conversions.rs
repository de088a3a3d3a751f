//! Conversions of real ONNX exports: llama.cpp on the GGUF file and transformers on the folder give the
//! log-probabilities of onnxruntime on the ONNX model. `CURMERGE_ONLY=llama` selects the models whose names
//! contain `llama`.

use std::path::{Path, PathBuf};

use curmerge::base::Base;
use curmerge::convert::{FileType, FolderOptions, to_gguf, to_hugging_face};
use curmerge_formats::dtype::DType;
use serde_json::{Value, json};

use crate::support::environment;
use crate::support::goldens::{error, log_softmax, numbers};
use crate::support::real_exports::{bases, expected, ran};

/// Models that cannot be converted to GGUF, and why: GGUF has no form for them, or there is no tokenizer.
const NO_GGUF: &[(&str, &str)] = &[
    // The builder writes tokenizer.json alone.
    ("-genai", "tokenizer.model"),
    // The builder rounds the head to 4 bits, and the embedding it is tied to not at all.
    ("gemma-genai11-int4", "tie_word_embeddings"),
    ("gemma2-", "query_pre_attn_scalar"),
    ("phi3-genai-", "SentencePiece"),
    ("tiny-", "no tokenizer"),
    // Its rope scaling keeps no frequency, so base and factors cannot be told apart.
    ("llama3-genai-", "do not follow the rule of Llama 3"),
];
const NO_FOLDER: &[(&str, &str)] = &[("llama3-genai-", "do not follow the rule of Llama 3")];

/// Arbitrary tokens of the model. If its GGUF file has no window, they fit in the model's window.
fn ids(base: &Base) -> Vec<u32> {
    let config = base.config();
    let windowed = config.window.filter(|_| ["llama", "phi3"].contains(&base.architecture().name));
    let count = windowed.unwrap_or(12).min(12) as u32;
    (0..count).map(|i| (i * 37 + 5) % config.vocab as u32).collect()
}

fn ask(script: &str, job: Value) -> Value {
    let answers = environment::answer(script, &["OUT".as_ref()], json!([job]).to_string().as_bytes());
    answers[0].clone()
}

/// The largest accepted error of log-probabilities.
fn tolerance(name: &str, by: &str) -> f64 {
    match (name, by) {
        // onnxruntime computes in half precision.
        _ if name.contains("fp16") || name.contains("q4f16") => 2e-2,
        // optimum exports an attention without the soft cap.
        ("gemma2-optimum", _) => 1.0,
        // llama.cpp takes GELU from a table in F16.
        (_, "llama") if name.starts_with("gemma") || name.starts_with("gpt2") => 2e-3,
        _ => 1e-3,
    }
}

/// The conversions to a GGUF file and to a folder, if they are possible.
fn converted(name: &str, base: &Base, scratch: &Path) -> [Option<PathBuf>; 2] {
    let (file, folder) = (scratch.join("model.gguf"), scratch.join("folder"));
    let options = to_gguf::Options { file_type: Some(FileType::F32), imatrix: None };
    let gguf =
        to_gguf(base, &options, &file, &[], |_, _| ()).map_err(|e| expected(name, &e.to_string(), NO_GGUF));
    let options = FolderOptions { dtype: Some(DType::F32), ..Default::default() };
    let hub = to_hugging_face(base, &folder, &options, |_, _| ())
        .map_err(|e| expected(name, &e.to_string(), NO_FOLDER));
    [gguf.ok().map(|_| file), hub.ok().map(|_| folder)]
}

#[test]
#[ignore = "needs CURMERGE_ONNX and CURMERGE_PYTHON with onnxruntime, xllamacpp, torch and transformers"]
fn llama_cpp_and_transformers_agree_on_converted_exports() {
    let mut bad = Vec::new();
    for (name, base) in bases() {
        let ids = ids(&base);
        let job = json!({ "model": base.path(), "ids": ids, "head": base.config().head_dim, "decode": 0 });
        let own = ask("onnx_logits.py", job);
        if !ran(&name, &own) {
            continue;
        }
        let right = log_softmax(&numbers(&own["logits"]));
        let scratch = tempfile::tempdir().unwrap();
        let [gguf, folder] = converted(&name, &base, scratch.path());
        // For this name, llama.cpp looks for Phi-3's special tokens, which the fixture does not have.
        let gguf = gguf.filter(|_| !name.starts_with("phi3-long"));
        let job = json!({ "gguf": gguf, "folder": folder, "ids": ids, "vocab": base.config().vocab });
        let theirs = ask("onnx_converted.py", job);
        for by in ["llama", "transformers"].into_iter().filter(|by| !theirs[by].is_null()) {
            let worst = error(numbers(&theirs[by]), &right);
            println!("{name}: {by} differs by {worst:.1e}");
            if worst.is_nan() || worst > tolerance(&name, by) {
                bad.push((name.clone(), by, worst));
            }
        }
        let odd = theirs["odd"].as_array().is_some_and(|odd| !odd.is_empty());
        assert!(!odd, "{name}: {}", theirs["odd"]);
    }
    assert!(bad.is_empty(), "{bad:?}");
}
