//! The small files of a folder: settings of the tokenizer and of generating, indexes, configurations.

use std::fs;

use serde_json::{Value, json};

use super::Corpus;
use super::damage::damaged;
use crate::support::fixture::family;

/// Content that is wrong in every file.
fn wrong() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("empty", Vec::new()),
        ("list", b"[]".to_vec()),
        ("null", b"null".to_vec()),
        ("open", b"{\"a\": ".to_vec()),
        ("binary", b"\xff\xfe\0\0".to_vec()),
        ("deep", "{\"a\":".repeat(10_000).into_bytes()),
        ("many", format!("{{\"a\": [{}0]}}", "[],".repeat(3_000_000)).into_bytes()),
        ("huge-number", b"{\"bos_token_id\": 1e999, \"eos_token_id\": -1}".to_vec()),
    ]
}

/// Writes the files, each in the folder of a small model.
pub fn write(corpus: &mut Corpus<'_>) {
    let example = corpus.example();
    let names = [
        "tokenizer_config.json",
        "generation_config.json",
        "special_tokens_map.json",
        "chat_template.json",
        "model.safetensors.index.json",
    ];
    let out = corpus.root.join("side-converted").to_str().unwrap().to_owned();
    for (number, file) in names.into_iter().enumerate() {
        for (kind, bytes) in wrong() {
            let name = format!("side files/{file}-{kind}");
            let out = format!("{out}-{number}-{kind}.gguf");
            let words: &[&str] = match file {
                "chat_template.json" => &["run", "@", "--chat", "-p", "hi", "-n", "1"],
                "special_tokens_map.json" => &["convert", "@", &out],
                _ => &["eval", "@", "--data", &example],
            };
            corpus.model("llama3", &name, file, &bytes, words);
        }
    }
    for (name, value) in settings() {
        let name = format!("side files/settings-{name}");
        let out = corpus.root.join(name.replace('/', "-") + ".gguf").to_str().unwrap().to_owned();
        corpus.model(
            "llama3",
            &name,
            "tokenizer_config.json",
            value.to_string().as_bytes(),
            &["convert", "@", &out],
        );
    }
    for (name, value) in indexes() {
        let name = format!("side files/index-{name}");
        let bytes = value.to_string();
        let words = ["inspect", "@", "--no-checksums"];
        corpus.model("llama3", &name, "model.safetensors.index.json", bytes.as_bytes(), &words);
        // Without the file that holds all tensors, the index counts.
        fs::remove_file(corpus.place(&name).join("model.safetensors")).unwrap();
    }
    let config = fs::read(family("qwen3moe", "hf").join("config.json")).unwrap();
    for (kind, bytes) in wrong() {
        let name = format!("configurations/{kind}");
        corpus.model("qwen3moe", &name, "config.json", &bytes, &["eval", "@", "--data", &example]);
    }
    for number in 0..25 {
        let (name, bytes) = (format!("configurations/damaged-{number}"), damaged(&config, number));
        corpus.model("qwen3moe", &name, "config.json", &bytes, &["eval", "@", "--data", &example]);
    }
}

fn settings() -> Vec<(&'static str, Value)> {
    let token = |content: &str| json!({ "content": content, "normalized": true });
    vec![
        ("bos-number", json!({ "bos_token": 7 })),
        ("bos-unknown", json!({ "bos_token": "\u{0}nowhere\n" })),
        ("added-list", json!({ "added_tokens_decoder": [] })),
        ("added-long", json!({ "added_tokens_decoder": { "900": token(&"x".repeat(5_000_000)) } })),
        (
            "added-id",
            json!({ "added_tokens_decoder": { "18446744073709551616": token("x"), "-1": token("y") } }),
        ),
        ("added-greatest", json!({ "added_tokens_decoder": { "18446744073709551615": token("x") } })),
        ("added-empty", json!({ "added_tokens_decoder": { "0": token("") } })),
        ("special-list", json!({ "extra_special_tokens": [7, null, {}] })),
        ("special-long", json!({ "extra_special_tokens": ["x".repeat(5_000_000)] })),
        ("class", json!({ "tokenizer_class": { "a": 1 } })),
        ("template-list", json!({ "chat_template": [{ "name": 7 }] })),
    ]
}

fn indexes() -> Vec<(&'static str, Value)> {
    vec![
        ("none", json!({})),
        ("no-map", json!({ "weight_map": [] })),
        ("empty", json!({ "weight_map": {} })),
        ("numbers", json!({ "weight_map": { "a": 7 } })),
        ("above", json!({ "weight_map": { "a": "../../../../etc/passwd" } })),
        ("absolute", json!({ "weight_map": { "a": "/dev/zero" } })),
        ("folder", json!({ "weight_map": { "a": "." } })),
        ("itself", json!({ "weight_map": { "a": "model.safetensors.index.json" } })),
        ("control", json!({ "weight_map": { "a": "\u{1b}[31m\n.safetensors" } })),
    ]
}
