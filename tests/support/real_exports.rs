//! The real ONNX models that fixtures/onnx_models/make.py made, and which of them curmerge or onnxruntime
//! cannot read.

use std::path::PathBuf;

use curmerge::base::Base;

use super::environment::named;

/// Parts of names of the models that curmerge refuses, and of its messages.
const REFUSED: &[(&str, &str)] = &[
    // An If chooses between the frequencies for short and for long contexts.
    ("phi3-long-genai", "it is not a constant"),
    ("-dynamic8", "MatMulInteger"),
];
/// Parts of names of the models that onnxruntime does not run, and of its messages.
const NOT_RUN: &[(&str, &str)] = &[("llama2-genai", ""), ("gemma2-genai-", "")];

/// The models that curmerge opens, with their names. With CURMERGE_ONLY, only those whose path contains it.
/// Panics if there is no model, or if one is refused that is not listed.
pub fn bases() -> Vec<(String, Base)> {
    let only = std::env::var("CURMERGE_ONLY").unwrap_or_default();
    let entries = std::fs::read_dir(named("CURMERGE_ONNX")).unwrap();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| {
        let model = path.join("model.onnx").is_file() || path.join("onnx").is_dir();
        model && path.to_string_lossy().contains(&only)
    });
    found.sort();
    assert!(!found.is_empty(), "no model; fixtures/onnx_models/make.py makes them");
    let open = |path: PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        match Base::open(&path) {
            Ok(base) => Some((name, base)),
            Err(error) => {
                expected(&name, &error.to_string(), REFUSED);
                None
            }
        }
    };
    found.into_iter().filter_map(open).collect()
}

/// Checks that a refusal is listed.
#[track_caller]
pub fn expected(name: &str, error: &str, list: &[(&str, &str)]) {
    let listed = list.iter().any(|(model, problem)| name.contains(model) && error.contains(problem));
    assert!(listed, "{name}: unexpected refusal: {error}");
    println!("{name}: refused: {error}");
}

/// Whether onnxruntime ran the model. Panics if it did not and that is not listed.
#[track_caller]
pub fn ran(name: &str, answer: &serde_json::Value) -> bool {
    match answer["error"].as_str() {
        Some(error) => expected(name, error, NOT_RUN),
        None => return true,
    }
    false
}
