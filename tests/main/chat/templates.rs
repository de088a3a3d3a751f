//! Chat templates: curmerge renders what transformers renders, and refuses what it refuses.
//!
//! fixtures/chat holds templates with the features of real ones, conversations, and transformers' renderings
//! of them. tests/real/chat_templates.rs runs transformers again.

use curmerge::chat::ChatTemplate;
use curmerge::tokenizer::Tokenizer;
use curmerge::train::data::{DataOptions, Dataset};
use serde_json::json;

use crate::support::chat::{Texts, differences, fixtures, ours, plain_conversations, sources};
use crate::support::fixture;

#[test]
fn the_fixtures_render_as_in_transformers() {
    let (sources, path) = (sources(&fixtures()), fixtures().join("goldens.json"));
    let golden: Texts = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let ours = ours(&sources);
    assert!(ours.len() >= 8 && ours.keys().eq(golden.keys()));
    let found = differences(&golden, &ours, false);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn loss_falls_where_transformers_marks_the_assistant() {
    let (golden_path, template) = (fixtures().join("masks.json"), fixtures().join("marked.jinja"));
    let folder = fixture::family("qwen2", "hf");
    let conversations = plain_conversations();
    let golden: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&golden_path).unwrap()).unwrap();
    // A folder with the tokenizer of qwen2 and this template.
    let copy = tempfile::tempdir().unwrap();
    for file in ["tokenizer.json", "config.json"] {
        std::fs::copy(folder.join(file), copy.path().join(file)).unwrap();
    }
    std::fs::write(copy.path().join("tokenizer_config.json"), "{\"eos_token\": \"<|im_end|>\"}").unwrap();
    std::fs::copy(&template, copy.path().join("chat_template.jinja")).unwrap();
    let tokenizer = Tokenizer::from_hf_folder(copy.path()).unwrap();
    let template = ChatTemplate::from_hf_folder(copy.path(), &tokenizer).unwrap();
    let data = copy.path().join("data.jsonl");
    let lines: Vec<String> = conversations.iter().map(|c| json!({"messages": c}).to_string()).collect();
    std::fs::write(&data, lines.join("\n")).unwrap();
    let options = DataOptions { max_seq_len: 4096, append_eos: false, ..DataOptions::default() };
    let data = Dataset::read(&data, &tokenizer, template.as_ref(), &options).unwrap();
    assert_eq!(data.examples.len(), conversations.len());
    for (example, golden) in data.examples.iter().zip(golden.as_array().unwrap()) {
        let mask: Vec<u8> = example.loss_mask.iter().map(|&target| target.into()).collect();
        assert_eq!((json!(example.tokens), json!(mask)), (golden["ids"].clone(), golden["mask"].clone()));
    }
}
