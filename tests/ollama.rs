//! Chat templates in Ollama's language: fixtures/ollama has templates in the forms of the field, the Modelfiles that
//! come of them, and what Ollama's own packages made of these Modelfiles.
//!
//! With `CURMERGE_OLLAMA=check` the latter is asked again (Go and its module proxy are needed), with
//! `CURMERGE_OLLAMA=write` the fixtures are written anew. `CURMERGE_TEMPLATES=FOLDER` checks a folder's `.jinja` files.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use curmerge::export::ollama::Prompts;
use curmerge::tokenizer::{ChatTemplate, Message};
use serde_json::{Value, json};

const BOS: &str = "<s>";
const EOS: &str = "</s>";

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/ollama")
}

/// Whether Ollama is to be asked, and whether to keep what it says.
fn asked() -> (bool, bool) {
    let mode = std::env::var("CURMERGE_OLLAMA").unwrap_or_default();
    (!mode.is_empty(), mode == "write")
}

/// The templates of a folder by name.
fn templates(folder: &Path) -> BTreeMap<String, ChatTemplate> {
    let mut templates = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "jinja") {
            let source = std::fs::read_to_string(&path).unwrap();
            // Transformers takes off one line end behind the last line.
            let source = source.strip_suffix('\n').unwrap_or(&source).to_string();
            let name = path.file_stem().unwrap().to_str().unwrap().to_string();
            templates.insert(name, ChatTemplate::new(source, BOS.into(), EOS.into()));
        }
    }
    templates
}

fn conversations() -> Vec<Vec<Message>> {
    let text = std::fs::read_to_string(fixtures().join("conversations.json")).unwrap();
    let conversations: Vec<Vec<BTreeMap<String, String>>> = serde_json::from_str(&text).unwrap();
    let message = |m: BTreeMap<String, String>| Message::new(&m["role"], &m["content"]);
    conversations.into_iter().map(|c| c.into_iter().map(message).collect()).collect()
}

/// What Ollama's packages make of Modelfiles, by name.
fn ask_ollama(modelfiles: &BTreeMap<String, String>) -> Value {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/ollama");
    // Go adds a go.sum beside its go.mod.
    let folder = tempfile::tempdir().unwrap();
    for name in ["go.mod", "render.go"] {
        std::fs::copy(source.join(name), folder.path().join(name)).unwrap();
    }
    let jobs: Vec<Value> = modelfiles
        .iter()
        .map(|(name, modelfile)| json!({ "name": name, "modelfile": modelfile, "conversations": conversations() }))
        .collect();
    let mut child = Command::new("go")
        .args(["run", "-mod=mod", "."])
        .current_dir(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("go starts");
    child.stdin.take().unwrap().write_all(json!(jobs).to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "Ollama refuses a Modelfile");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What Ollama renders must be what the model's own template renders, without a BOS that the tokenizer adds.
fn check_renderings(
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
            if conversation[0].role == "system" && !takes_system {
                continue;
            }
            let own = templates[name].render(conversation, true).unwrap();
            let own = own.strip_prefix(BOS).unwrap_or(&own);
            assert_eq!(answer["texts"][i].as_str(), Some(own), "{name}");
        }
    }
}

#[test]
fn ollama_renders_what_the_models_own_template_renders() {
    let templates = templates(&fixtures());
    assert!(templates.len() > 15);
    let prompts: BTreeMap<_, _> =
        templates.iter().map(|(name, t)| (name.clone(), Prompts::of_template(t, Some(BOS)))).collect();
    for (name, prompts) in &prompts {
        assert_eq!(matches!(prompts, Prompts::Unknown(_)), name.starts_with("unlike"), "{name}: {prompts:?}");
    }
    let modelfiles: BTreeMap<_, _> = prompts.iter().map(|(name, p)| (name.clone(), p.modelfile())).collect();
    let (ask, write) = asked();
    let (standing, said) = (fixtures().join("modelfiles.json"), fixtures().join("goldens.json"));
    if ask {
        let answers = ask_ollama(&modelfiles);
        if write {
            std::fs::write(&standing, format!("{:#}\n", json!(modelfiles))).unwrap();
            std::fs::write(&said, format!("{answers:#}\n")).unwrap();
        }
        check_renderings(&templates, &prompts, &answers);
    }
    let golden: BTreeMap<String, String> =
        serde_json::from_str(&std::fs::read_to_string(standing).unwrap()).unwrap();
    assert_eq!(modelfiles, golden);
    let answers: Value = serde_json::from_str(&std::fs::read_to_string(said).unwrap()).unwrap();
    check_renderings(&templates, &prompts, &answers);
}

#[test]
fn a_folder_of_templates_is_rendered_alike_or_not_at_all() {
    let Some(folder) = std::env::var_os("CURMERGE_TEMPLATES") else { return };
    let templates = templates(Path::new(&folder));
    let prompts: BTreeMap<_, _> =
        templates.iter().map(|(name, t)| (name.clone(), Prompts::of_template(t, Some(BOS)))).collect();
    let modelfiles = prompts.iter().map(|(name, p)| (name.clone(), p.modelfile())).collect();
    check_renderings(&templates, &prompts, &ask_ollama(&modelfiles));
    for (name, prompts) in &prompts {
        match prompts {
            Prompts::Chat { stops, .. } => println!("{name}: answers end at {stops:?}"),
            other => println!("{name}: {other:?}"),
        }
    }
    let known = prompts.values().filter(|p| matches!(p, Prompts::Chat { .. })).count();
    println!("{known} of {} templates", prompts.len());
}
