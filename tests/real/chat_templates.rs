//! Chat templates compared with transformers: the goldens of fixtures/chat, and whole folders of templates.
//!
//! `CURMERGE_CHAT=write` writes the goldens.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use crate::support::chat::{
    BOS, EOS, Texts, differences, fixtures, ours, plain_conversations, rows, sources,
};
use crate::support::environment;

/// Whether to write the goldens.
fn writes() -> bool {
    std::env::var_os("CURMERGE_CHAT").is_some_and(|mode| mode == "write")
}

/// The conversations as transformers renders them.
fn theirs(sources: &BTreeMap<String, String>) -> Texts {
    // The rows are passed as text: a template may depend on the order of keys, which serde_json's maps do not
    // keep.
    let asked = format!(
        "{{\"templates\": {}, \"conversations\": [{}], \"bos\": \"{BOS}\", \"eos\": \"{EOS}\"}}",
        json!(sources),
        rows().join(",")
    );
    serde_json::from_str(&environment::printed("chat_templates.py", &[], asked.as_bytes())).unwrap()
}

#[test]
#[ignore = "needs CURMERGE_PYTHON with transformers"]
fn the_goldens_are_what_transformers_renders() {
    let path = fixtures().join("goldens.json");
    let asked = theirs(&sources(&fixtures()));
    if writes() {
        std::fs::write(&path, format!("{}\n", json!(asked))).unwrap();
    }
    let golden: Texts = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert!(asked == golden, "transformers' answers differ from the goldens");
}

#[test]
#[ignore = "needs CURMERGE_PYTHON with transformers"]
fn the_masks_are_what_transformers_marks() {
    let (path, template) = (fixtures().join("masks.json"), fixtures().join("marked.jinja"));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/arch/qwen2/hf");
    let words = [folder.as_os_str(), template.as_os_str()];
    let conversations = json!(plain_conversations()).to_string();
    let asked = environment::printed("assistant_masks.py", &words, conversations.as_bytes());
    if writes() {
        std::fs::write(&path, &asked).unwrap();
    }
    assert_eq!(asked.trim(), std::fs::read_to_string(&path).unwrap().trim());
}

#[test]
#[ignore = "needs CURMERGE_TEMPLATES (models/templates of llama.cpp) and CURMERGE_PYTHON with transformers"]
fn a_folder_of_templates_renders_as_in_transformers() {
    let sources = sources(&environment::named("CURMERGE_TEMPLATES"));
    let (theirs, ours) = (theirs(&sources), ours(&sources));
    let refused = theirs.values().flatten().flatten().filter(|text| text.is_none()).count();
    let all: usize = theirs.values().map(|texts| 2 * texts.len()).sum();
    let (other, more) = (differences(&theirs, &ours, true), differences(&theirs, &ours, false));
    println!(
        "{} templates, {all} renderings: transformers refuses {refused}, {} of them are rendered here; {} differ",
        theirs.len(),
        more.len() - other.len(),
        other.len()
    );
    // `safe` does nothing here; see src/chat/jinja/environment.rs.
    let found: Vec<String> =
        other.into_iter().filter(|text| !text.starts_with("meetkai-functionary-medium-v3.1")).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}
