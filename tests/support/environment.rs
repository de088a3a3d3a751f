//! The environment variables that name what the tests against real models need.

use std::ffi::OsStr;
use std::path::PathBuf;

use serde_json::Value;

use super::python;

/// The variables, and what each one names.
pub const VARIABLES: &[(&str, &str)] = &[
    (
        "CURMERGE_MODELS",
        "a folder with smollm2-hf and smollm2-135m-instruct.Q4_1.gguf, which hold equal weights, and \
         gemma-3-270m.Q4_K_M.gguf",
    ),
    (
        "CURMERGE_DATA",
        "a folder with sst2, mrpc and sentiment140, each with train.jsonl and test.jsonl, and \
         wikitext2/wiki.test.raw",
    ),
    (
        "CURMERGE_PYTHON",
        "an interpreter with the packages of tests/scripts/requirements.txt, torch, transformers and peft",
    ),
    ("CURMERGE_GENAI_PYTHON", "an interpreter with onnxruntime-genai 0.18"),
    ("CURMERGE_ONNX", "the folder of exports that fixtures/onnx_models/make.py made"),
    ("CURMERGE_LLAMA_CPP", "a source folder of llama.cpp, build 11434"),
    ("CURMERGE_TEMPLATES", "a folder of chat templates, such as models/templates of llama.cpp"),
    ("CURMERGE_CHROMIUM", "a Chromium or Chrome, which draws the pages of --report"),
    ("CURMERGE_OLLAMA_BIN", "an Ollama program; fixtures/ollama/README.md says how to build one"),
];

/// The path in a variable. If it is not set, panics with what it must name.
#[track_caller]
pub fn named(variable: &str) -> PathBuf {
    let (_, what) = VARIABLES.iter().find(|(name, _)| *name == variable).expect("a listed variable");
    std::env::var_os(variable).unwrap_or_else(|| panic!("set {variable} to {what}")).into()
}

/// Runs a script of tests/scripts with the interpreter that CURMERGE_PYTHON names.
#[track_caller]
pub fn ask(script: &str, words: &[&OsStr], input: &[u8]) {
    python::run(&named("CURMERGE_PYTHON"), script, words, input);
}

/// Runs a script like [`ask`]. Returns what it prints.
#[track_caller]
pub fn printed(script: &str, words: &[&OsStr], input: &[u8]) -> String {
    python::run(&named("CURMERGE_PYTHON"), script, words, input)
}

/// Runs a script like [`ask`] that writes JSON to the file in place of the word "OUT". Returns the JSON.
#[track_caller]
pub fn answer(script: &str, words: &[&OsStr], input: &[u8]) -> Value {
    python::answer(&named("CURMERGE_PYTHON"), script, words, input)
}
