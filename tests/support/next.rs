//! The next-token distribution after a prompt, from curmerge and from llama.cpp.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{program, venv};

/// The tokens of a prompt, and the natural log-probability of each possible next token.
#[derive(Debug)]
pub struct Next {
    pub ids: Vec<u32>,
    pub log_probs: BTreeMap<u32, f64>,
}

/// curmerge's distributions after the prompts.
#[track_caller]
pub fn ours(model: &Path, adapter: Option<&Path>, prompts: &[&str]) -> Vec<Next> {
    let next = |prompt: &&str| {
        let mut words: Vec<&OsStr> = vec!["run".as_ref(), model.as_os_str(), "--json".as_ref()];
        words.extend(["-n", "1", "--logprobs", "1000000", "-p", prompt].map(OsStr::new));
        words.extend(adapter.iter().flat_map(|a| [OsStr::new("--adapter"), a.as_os_str()]));
        let answer = program::run(&words).json();
        Next {
            ids: serde_json::from_value(answer["prompt_tokens"].clone()).unwrap(),
            log_probs: serde_json::from_value::<Vec<(u32, f64)>>(answer["logprobs"][0].clone())
                .unwrap()
                .into_iter()
                .collect(),
        }
    };
    prompts.iter().map(next).collect()
}

/// llama.cpp's distributions after the prompts.
#[track_caller]
pub fn theirs(model: &Path, lora: Option<&Path>, prompts: &[&str]) -> Vec<Next> {
    let mut words = vec![model.as_os_str(), OsStr::new("OUT")];
    words.extend(lora.iter().flat_map(|l| [OsStr::new("--lora"), l.as_os_str()]));
    let answers = venv::answer("log_probs.py", &words, json!(prompts).to_string().as_bytes());
    read(&answers)
}

/// llama.cpp's distributions after these tokens.
#[track_caller]
pub fn theirs_after(model: &Path, prompts: &[&[u32]]) -> Vec<Next> {
    let words = [model.as_os_str(), OsStr::new("OUT")];
    read(&venv::answer("log_probs.py", &words, json!(prompts).to_string().as_bytes()))
}

/// The answers of a script: a list of `{"ids", "log_probs": {id: natural logarithm}}`.
pub fn read(answers: &Value) -> Vec<Next> {
    let number = |(id, value): (&String, &Value)| (id.parse().unwrap(), value.as_f64().unwrap());
    let next = |answer: &Value| Next {
        ids: serde_json::from_value(answer["ids"].clone()).unwrap(),
        log_probs: answer["log_probs"].as_object().unwrap().iter().map(number).collect(),
    };
    answers.as_array().unwrap().iter().map(next).collect()
}

/// The largest difference between log-probabilities over the whole vocabulary and all prompts.
#[track_caller]
pub fn difference(a: &[Next], b: &[Next]) -> f64 {
    assert_eq!(a.len(), b.len());
    let mut largest = 0.0f64;
    for (a, b) in a.iter().zip(b) {
        assert_eq!(a.ids, b.ids, "the prompt has different tokens");
        // Every vocabulary has the 256 bytes.
        assert!(a.log_probs.len() > 256 && a.log_probs.keys().eq(b.log_probs.keys()), "tokens are missing");
        for (x, y) in a.log_probs.values().zip(b.log_probs.values()) {
            assert!(x.is_finite() && y.is_finite());
            largest = largest.max((x - y).abs());
        }
    }
    largest
}
