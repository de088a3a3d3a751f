//! Chat templates of fixtures/ollama, and Ollama's renderings of their Modelfiles.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use curmerge::chat::{ChatTemplate, Message};
use curmerge::export::ollama::Prompts;
use serde_json::{Value, json};

use super::fixture;

pub const BOS: &str = "<s>";
const EOS: &str = "</s>";

pub fn fixtures() -> PathBuf {
    fixture::path("ollama")
}

/// The templates of a folder, by name.
pub fn templates(folder: &Path) -> BTreeMap<String, ChatTemplate> {
    let mut templates = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "jinja") {
            let source = std::fs::read_to_string(&path).unwrap();
            // transformers removes one line end at the end of the file.
            let source = source.strip_suffix('\n').unwrap_or(&source).to_string();
            let name = path.file_stem().unwrap().to_str().unwrap().to_string();
            templates.insert(name, ChatTemplate::new(source, BOS.into(), EOS.into()));
        }
    }
    templates
}

pub fn conversations() -> Vec<Vec<Message>> {
    let text = std::fs::read_to_string(fixtures().join("conversations.json")).unwrap();
    let conversations: Vec<Vec<BTreeMap<String, String>>> = serde_json::from_str(&text).unwrap();
    let message = |m: BTreeMap<String, String>| Message::new(&m["role"], &m["content"]);
    conversations.into_iter().map(|c| c.into_iter().map(message).collect()).collect()
}

/// What curmerge writes for each template, by its name.
pub fn prompts(templates: &BTreeMap<String, ChatTemplate>) -> BTreeMap<String, Prompts> {
    templates.iter().map(|(name, t)| (name.clone(), Prompts::of_template(t, Some(BOS)))).collect()
}

/// The Modelfile of each template, by its name.
pub fn modelfiles(prompts: &BTreeMap<String, Prompts>) -> BTreeMap<String, String> {
    prompts.iter().map(|(name, p)| (name.clone(), p.modelfile())).collect()
}

/// Checks that Ollama renders what the model's own template renders, without the BOS that the tokenizer adds.
pub fn check_renderings(
    templates: &BTreeMap<String, ChatTemplate>,
    prompts: &BTreeMap<String, Prompts>,
    answers: &Value,
) {
    let conversations = conversations();
    let answers = answers.as_array().unwrap();
    assert_eq!(answers.len(), prompts.len());
    for (answer, (name, prompts)) in answers.iter().zip(prompts) {
        assert_eq!(answer["name"], *name);
        assert_eq!(answer["from"], "./model.gguf");
        let Prompts::Chat { stops, takes_system, .. } = prompts else {
            assert!(answer["texts"].is_null(), "{name}");
            continue;
        };
        assert_eq!(answer["stops"], json!(stops), "{name}");
        for (i, conversation) in conversations.iter().enumerate() {
            if conversation[0].role() == "system" && !takes_system {
                continue;
            }
            let own = templates[name].render(conversation, true).unwrap();
            let own = own.strip_prefix(BOS).unwrap_or(&own);
            assert_eq!(answer["texts"][i].as_str(), Some(own), "{name}");
        }
    }
}
