//! Files that make the crate panic, abort or hang are refused with the place.

use std::path::Path;

use serde_json::{Value as Json, json};

use super::*;

const BYTES: &str = include_str!("../../../fixtures/convert_hf/llama3-like/tokenizer.json");
const PIECES: &str = include_str!("../../../fixtures/convert_hf/pieces-json/tokenizer.json");

/// Builds the tokenizer after this change of its file, and encodes a text.
fn changed(file: &str, change: impl FnOnce(&mut Json)) -> Result<Vec<u32>, String> {
    let mut json: Json = serde_json::from_str(file).unwrap();
    change(&mut json);
    let path = Path::new("tokenizer.json");
    let built = VettedTokenizer::from_bytes(path, json.to_string().as_bytes(), |_| ());
    let (tokenizer, ()) = built.map_err(|error| error.to_string())?;
    tokenizer.encode("a cat, a  b", true).map_err(|error| error.to_string())
}

/// Checks that the file with `value` at `place`, a JSON pointer, is refused in one line with these words.
#[track_caller]
fn refused(file: &str, place: &str, value: Json, words: &[&str]) {
    let change = |json: &mut Json| *json.pointer_mut(place).unwrap() = value;
    let error = changed(file, change).unwrap_err();
    assert!(words.iter().all(|word| error.contains(word)) && !error.contains('\n'), "{error}");
    assert!(error.len() < 300, "{error}");
}

fn replace(pattern: Json, content: &str) -> Json {
    json!({ "type": "Replace", "pattern": pattern, "content": content })
}

#[test]
fn sound_files_are_built() {
    assert!(!changed(BYTES, |_| ()).unwrap().is_empty());
    assert!(!changed(PIECES, |_| ()).unwrap().is_empty());
    let split = |json: &mut Json| {
        // Splitting at nothing is usual.
        json["pre_tokenizer"] =
            json!({ "type": "Split", "pattern": { "Regex": "x*" }, "behavior": "Isolated", "invert": false });
    };
    assert!(changed(BYTES, split).is_ok());
}

#[test]
fn normalizers_are_checked() {
    let refused = |step: Json, words: &[&str]| refused(BYTES, "/normalizer", step, words);
    refused(json!({ "type": "Prepend", "prepend": "" }), &["tokenizer.json: normalizer:", "null"]);
    for pattern in [json!({ "String": "" }), json!({ "Regex": "b*" }), json!({ "Regex": "(?=a)" })] {
        refused(replace(pattern, "x"), &["normalizer.pattern", "empty text"]);
    }
    refused(replace(json!({ "String": "a" }), &"x".repeat(10_000_000)), &["10000000 bytes", "1024"]);
    let doubling = vec![replace(json!({ "String": "a" }), "aa"); 30];
    refused(json!({ "type": "Sequence", "normalizers": doubling }), &["normalizer.normalizers[6]", "64"]);
    for table in ["", "AA==", "AAAAAA==", "/////w==", "?"] {
        let step = json!({ "type": "Precompiled", "precompiled_charsmap": table });
        refused(step, &["normalizer:"]);
    }
    // The array is not followed: what it does is caught.
    let step = json!({ "type": "Precompiled", "precompiled_charsmap": "BAAAAP////9hAA==" });
    refused(step, &["tokenizers library"]);
    let mut nested = json!({ "type": "NFC" });
    for _ in 0..20 {
        nested = json!({ "type": "Sequence", "normalizers": [nested] });
    }
    refused(nested, &["9 sequences"]);
    refused(json!({ "normalizers": [] }), &["without \"type\""]);
}

#[test]
fn other_steps_are_checked() {
    refused(BYTES, "/pre_tokenizer", json!({ "type": "FixedLength", "length": 0 }), &["pre_tokenizer", "0"]);
    let split = |regex: &str| json!({ "type": "Split", "pattern": { "Regex": regex }, "behavior": "Isolated", "invert": false });
    refused(BYTES, "/pre_tokenizer", split("("), &["pre_tokenizer.pattern", "parenthesis"]);
    refused(BYTES, "/pre_tokenizer", split(r"\p{L}{9000}"), &["pre_tokenizer.pattern", "9000"]);
    let many = json!({ "type": "Sequence", "pretokenizers": vec![split("a"); 30] });
    refused(BYTES, "/pre_tokenizer", many, &["pretokenizers[24]"]);

    let text = json!({ "Sequence": { "id": "A", "type_id": 0 } });
    let second = json!({ "Sequence": { "id": "B", "type_id": 0 } });
    let token = json!({ "SpecialToken": { "id": "<x>", "type_id": 0 } });
    let template = |single: &[&Json], ids: Json| {
        json!({ "type": "TemplateProcessing", "single": single, "pair": single,
                "special_tokens": { "<x>": { "id": "<x>", "ids": ids, "tokens": ["<x>"] } } })
    };
    let refused = |step: Json, words: &[&str]| refused(BYTES, "/post_processor", step, words);
    let mut undeclared = template(&[&token, &text], json!([1]));
    undeclared["special_tokens"] = json!({});
    refused(undeclared, &["post_processor.single[0]", "'<x>'", "special_tokens"]);
    refused(template(&[&second], json!([1])), &["single[0]"]);
    refused(template(&[], json!([1])), &["0 places"]);
    refused(template(&[&token, &text], json!([1, 2])), &["2 ids for 1 tokens"]);
    let two = vec![template(&[&token, &text], json!([1])); 2];
    refused(json!({ "type": "Sequence", "processors": two }), &["processors[1]", "2 templates"]);
}

#[test]
fn models_are_checked() {
    refused(BYTES, "/model", json!([]), &["model: missing"]);
    let with = |name: &str, value: Json, words: &[&str]| {
        let change = |json: &mut Json| json["model"][name] = value;
        let error = changed(BYTES, change).unwrap_err();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    };
    with("continuing_subword_prefix", json!("########"), &["model.merges[0]", "prefix"]);
    with("continuing_subword_prefix", json!("#".repeat(1000)), &["prefix", "1000 bytes"]);
    with("dropout", json!(0.5), &["model.dropout", "null"]);
    with("merges", json!([["a", "zzzzzzzzzz"]]), &["model.merges[0]", "not in model.vocab"]);
    with("vocab", json!({ "a": 0, "b": 0 }), &["model.vocab", "same id, 0"]);
    let unigram = |tokens: Vec<String>| {
        let vocabulary: Vec<_> = tokens.into_iter().map(|token| json!([token, 0.0])).collect();
        json!({ "type": "Unigram", "unk_id": 0, "vocab": vocabulary })
    };
    refused(BYTES, "/model", unigram(vec!["<unk>".into(), "a".repeat(100_000)]), &["model.vocab[1]"]);
    let many = (0..10_000).map(|i| format!("{i}{}", "x".repeat(200))).collect();
    refused(BYTES, "/model", unigram(many), &["model.vocab", "nodes"]);
    let word_piece = json!({ "type": "WordPiece", "unk_token": "a", "continuing_subword_prefix": "#",
                             "max_input_chars_per_word": 1u64 << 60, "vocab": { "a": 0 } });
    refused(BYTES, "/model", word_piece, &["max_input_chars_per_word"]);
}

#[test]
fn added_tokens_are_checked() {
    let token = |content: &str, normalized: bool, lstrip: bool| {
        json!({ "id": 900, "content": content, "single_word": false, "lstrip": lstrip, "rstrip": !lstrip,
                "normalized": normalized, "special": false })
    };
    let with = |normalizer: Json, tokens: Json| {
        changed(BYTES, |json| {
            json["normalizer"] = normalizer;
            json["added_tokens"] = tokens;
        })
    };
    let clean = json!({ "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                        "strip_accents": null, "lowercase": false });
    for content in ["\0", "\u{200d}"] {
        let error = with(clean.clone(), json!([token(content, true, false)])).unwrap_err();
        assert!(error.contains("added_tokens[0]") && error.contains("normalized"), "{error}");
        assert!(with(clean.clone(), json!([token(content, false, false)])).is_ok());
    }
    let error = with(Json::Null, json!([token(&"x".repeat(5000), false, false)])).unwrap_err();
    assert!(error.contains("added_tokens[0]: 5000 bytes"), "{error}");
    let error = with(Json::Null, json!(vec![token(&"x".repeat(4000), false, false); 600])).unwrap_err();
    assert!(error.contains("added_tokens[524]"), "{error}");
    // The first takes the space that the second begins with: the crate panics as it cuts the text.
    let strips = json!([token("a", false, false), token(" ", false, true)]);
    let error = with(Json::Null, strips).unwrap_err();
    assert!(error.contains("tokenizers library"), "{error}");
}

#[test]
fn long_words_are_refused() {
    let (tokenizer, ()) = VettedTokenizer::from_bytes(Path::new("x"), BYTES.as_bytes(), |_| ()).unwrap();
    let error = tokenizer.encode(&"a".repeat(MAX_TEXT + 1), false).unwrap_err().to_string();
    assert!(error.contains("2048 KiB"), "{error}");
}
