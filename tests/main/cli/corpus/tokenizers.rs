//! Files tokenizer.json.

use std::fs;

use serde_json::{Value, json};

use super::Corpus;
use super::damage::damaged;
use crate::support::fixture::family;

/// Writes the tokenizers, each in the folder of a small model.
pub fn write(corpus: &mut Corpus<'_>) {
    let text = fs::read(family("qwen3", "hf").join("tokenizer.json")).unwrap();
    let sound: Value = serde_json::from_slice(&text).unwrap();
    let example = corpus.example();
    let out = corpus.root.join("tokenizers-converted").to_str().unwrap().to_owned();
    let mut add = |name: &str, bytes: &[u8]| {
        // Both readers of the file see it: the one that encodes, and the one that converts.
        corpus.model(
            "qwen3",
            &format!("tokenizers/{name}"),
            "tokenizer.json",
            bytes,
            &["eval", "@", "--data", &example],
        );
        if bytes.len() < 1 << 16 {
            let out = format!("{out}-{name}.gguf");
            let name = format!("tokenizers/{name}-converted");
            corpus.model("qwen3", &name, "tokenizer.json", bytes, &["convert", "@", &out]);
        }
    };
    for number in 0..30 {
        add(&format!("damaged-{number}"), &damaged(&text, number));
    }
    for (place, name, value) in hand_made(&sound) {
        let mut changed = sound.clone();
        *changed.pointer_mut(place).unwrap() = value;
        add(name, changed.to_string().as_bytes());
    }
    let many = format!("{}[]]", "[".to_owned() + &"[],".repeat(4_000_000));
    add("many-values", many.as_bytes());
    add("deep", "[".repeat(100_000).as_bytes());
    add("empty", b"");
    add("list", b"[]");
}

/// A place in the file, the case's name, and what is put there.
fn hand_made(sound: &Value) -> Vec<(&'static str, &'static str, Value)> {
    let mut all = steps();
    let token = |content: String, normalized: bool, lstrip: bool| {
        json!({ "id": 900, "content": content, "single_word": false, "lstrip": lstrip, "rstrip": !lstrip,
                "normalized": normalized, "special": false })
    };
    let tokens = [
        ("added-long", json!([token("x".repeat(10_000_000), false, false)])),
        ("added-many", (0..100_000).map(|i| token(format!("<{i}>").repeat(8), false, false)).collect()),
        ("added-strips", json!([token("a".into(), false, false), token(" ".into(), false, true)])),
        ("added-nothing", json!([token(String::new(), true, false)])),
        ("added-number", json!([7])),
        ("added-object", json!({})),
    ];
    all.extend(tokens.map(|(name, value)| ("/added_tokens", name, value)));
    let model = |name: &str, value: Value| {
        let mut model = sound["model"].clone();
        model[name] = value;
        model
    };
    let unigram = |tokens: Vec<Value>| json!({ "type": "Unigram", "unk_id": 0, "vocab": tokens });
    let models = [
        ("prefix", model("continuing_subword_prefix", json!("##########"))),
        ("prefix-long", model("continuing_subword_prefix", json!("#".repeat(5_000_000)))),
        ("suffix-long", model("end_of_word_suffix", json!("#".repeat(5_000_000)))),
        ("unknown-missing", model("unk_token", json!("nowhere"))),
        ("dropout", model("dropout", json!(1.0))),
        ("merge-of-others", model("merges", json!([["a", "zzzzzzzzzzzzzzzzzzzzz"]]))),
        ("merge-of-three", model("merges", json!(["a b c"]))),
        ("merge-of-numbers", model("merges", json!([[1, 2]]))),
        ("no-merges", model("merges", Value::Null)),
        ("vocabulary-twice", model("vocab", json!({ "a": 0, "b": 0 }))),
        ("vocabulary-greatest", model("vocab", json!({ "a": u32::MAX }))),
        ("vocabulary-negative", model("vocab", json!({ "a": -1 }))),
        ("vocabulary-empty", model("vocab", json!({}))),
        ("type", model("type", json!("Other"))),
        ("unigram-long", unigram(vec![json!(["<unk>", 0.0]), json!(["a".repeat(10_000_000), -1.0])])),
        (
            "unigram-many",
            unigram((0..400_000u64).map(|i| json!([(i * 62_710_241).to_string(), 0.0])).collect()),
        ),
        ("unigram-no-scores", unigram(vec![json!(["a"])])),
        ("unigram-unknown", json!({ "type": "Unigram", "unk_id": 9, "vocab": [["a", 0.0]] })),
        (
            "word-piece",
            json!({ "type": "WordPiece", "unk_token": "a", "continuing_subword_prefix": "#",
                               "max_input_chars_per_word": 1u64 << 60, "vocab": { "a": 0 } }),
        ),
        ("word-level", json!({ "type": "WordLevel", "unk_token": "nowhere", "vocab": { "a": 0 } })),
    ];
    all.extend(models.map(|(name, value)| ("/model", name, value)));
    all
}

/// Hostile normalizers, pre-tokenizers, post-processors and decoders.
fn steps() -> Vec<(&'static str, &'static str, Value)> {
    let replace =
        |pattern: Value, content: &str| json!({ "type": "Replace", "pattern": pattern, "content": content });
    let table = |base64: &str| json!({ "type": "Precompiled", "precompiled_charsmap": base64 });
    let doubling = vec![replace(json!({ "String": "a" }), "aa"); 30];
    let mut nested = json!({ "type": "NFC" });
    for _ in 0..30 {
        nested = json!({ "type": "Sequence", "normalizers": [nested] });
    }
    let normalizers = [
        ("table-empty", table("")),
        ("table-short", table("AA==")),
        ("table-no-array", table("AAAAAA==")),
        ("table-huge", table("/////w==")),
        ("table-outside", table("BAAAAP////9hAA==")),
        ("table-no-base64", table("\u{0}")),
        ("table-missing", json!({ "type": "Precompiled" })),
        ("prepend-empty", json!({ "type": "Prepend", "prepend": "" })),
        ("prepend-long", json!({ "type": "Prepend", "prepend": "x".repeat(10_000_000) })),
        ("replace-nothing", replace(json!({ "String": "" }), "x")),
        ("replace-star", replace(json!({ "Regex": "x*" }), "y")),
        ("replace-ahead", replace(json!({ "Regex": "(?=a)" }), "y")),
        ("replace-behind", replace(json!({ "Regex": "(?<=a)" }), "y")),
        ("replace-long", replace(json!({ "String": "a" }), &"x".repeat(10_000_000))),
        ("replace-doubling", json!({ "type": "Sequence", "normalizers": doubling })),
        (
            "bytes-doubling",
            json!({ "type": "Sequence", "normalizers": vec![json!({ "type": "ByteLevel" }); 40] }),
        ),
        ("nested", nested),
        ("many-steps", json!({ "type": "Sequence", "normalizers": vec![json!({ "type": "NFKD" }); 5000] })),
        ("no-type", json!({ "normalizers": [] })),
        ("normalizer-unknown", json!({ "type": "Other" })),
        ("normalizer-list", json!([])),
    ];
    let split = |regex: &str| json!({ "type": "Split", "pattern": { "Regex": regex }, "behavior": "Isolated", "invert": false });
    let cutters = [
        ("length-zero", json!({ "type": "FixedLength", "length": 0 })),
        ("length-greatest", json!({ "type": "FixedLength", "length": u64::MAX })),
        ("regex-open", split("(")),
        ("regex-backtracks", split("(a+|a+)+b\\b(?!x)")),
        ("regex-large", split(r"(\p{L}{200}){200}")),
        ("regex-repeats", split(r"\p{L}{90000}")),
        ("regex-deep", split(&"(".repeat(20_000))),
        ("regex-many", json!({ "type": "Sequence", "pretokenizers": vec![split(r"\p{L}{100}"); 200] })),
        ("regex-empty", split("")),
        ("space-number", json!({ "type": "Metaspace", "replacement": 3, "prepend_scheme": "always" })),
    ];
    let text = json!({ "Sequence": { "id": "A", "type_id": 0 } });
    let token = json!({ "SpecialToken": { "id": "<x>", "type_id": 0 } });
    let template = |single: Vec<&Value>, special: Value| json!({ "type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": special });
    let declared = |ids: Value| json!({ "<x>": { "id": "<x>", "ids": ids, "tokens": ["<x>"] } });
    let second = json!({ "Sequence": { "id": "B", "type_id": 0 } });
    let twice = vec![template(vec![&token, &text], declared(json!([1]))); 2];
    let processors = [
        ("template-undeclared", template(vec![&token, &text], json!({}))),
        ("template-second", template(vec![&second], json!({}))),
        ("template-none", template(vec![], json!({}))),
        ("template-many", template(vec![&text; 100_000], json!({}))),
        ("template-ids", template(vec![&token, &text], declared(json!([1, 2, 3])))),
        ("template-beyond", template(vec![&token, &text], declared(json!([4_000_000_000u32])))),
        ("template-twice", json!({ "type": "Sequence", "processors": twice })),
    ];
    let decoders = [
        ("decoder-strip", json!({ "type": "Strip", "content": "a", "start": 0, "stop": 99 })),
        (
            "decoder-empty",
            json!({ "type": "Sequence", "decoders": vec![json!({ "type": "BPEDecoder", "suffix": "" }); 60] }),
        ),
        ("decoder-long", replace(json!({ "String": "a" }), &"x".repeat(1 << 20))),
    ];
    let place = |at: &'static str| move |(name, value)| (at, name, value);
    let mut all: Vec<(&str, &str, Value)> = normalizers.into_iter().map(place("/normalizer")).collect();
    all.extend(cutters.into_iter().map(place("/pre_tokenizer")));
    all.extend(processors.into_iter().map(place("/post_processor")));
    all.extend(decoders.into_iter().map(place("/decoder")));
    all
}
