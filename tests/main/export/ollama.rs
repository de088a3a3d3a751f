//! Chat templates in Ollama's language: fixtures/ollama has templates in the forms of the field, the Modelfiles that
//! come of them, and what Ollama's own packages made of these Modelfiles.
//!
//! With `CURMERGE_OLLAMA=check` the latter is asked again (Go and its module proxy are needed), with
//! `CURMERGE_OLLAMA=write` the fixtures are written anew. `CURMERGE_TEMPLATES=FOLDER` checks a folder's `.jinja` files.
//! `CURMERGE_OLLAMA_BIN=PROGRAM` runs a model in a real Ollama; fixtures/ollama/README.md says how to build one.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use curmerge::base::Base;
use curmerge::chat::{ChatTemplate, Message};
use curmerge::cur::{Selection, fingerprint};
use curmerge::export::ollama::{Prompts, write};
use curmerge::merge::MergeOptions;
use curmerge_formats::adapter::Adapter;
use curmerge_formats::dtype::DType;
use serde_json::{Value, json};

use crate::support::{fixture, program, tiny};

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
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts/ollama");
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
            if conversation[0].role() == "system" && !takes_system {
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

/// An adapter whose U is zero.
fn adapter(base: &Base) -> Adapter {
    let names = base.targets("q", None).unwrap();
    let targets = fingerprint::prepare(base, &names, 4, Selection::Reference, 0).unwrap();
    Adapter {
        base: fingerprint::base_info(base, &targets),
        rank: 4,
        scale: 1.0,
        selection: "reference".into(),
        seed: 0,
        training: None,
        targets,
    }
}

#[test]
fn a_folder_is_refused_and_a_model_without_tokenizer_gets_no_template() {
    let folder = tempfile::tempdir().unwrap();
    let (hf, gguf, out) =
        (folder.path().join("hf"), folder.path().join("tiny.gguf"), folder.path().join("out"));
    tiny::write_folder(&hf);
    tiny::write_gguf(&gguf, DType::F16);
    let export = |path: &Path| {
        let base = Base::open(path).unwrap();
        write(&base, &adapter(&base), &MergeOptions::default(), &out, |_, _| ())
    };
    let refusal = export(&hf).unwrap_err().to_string();
    assert!(
        refusal.starts_with(&hf.display().to_string()) && refusal.contains("curmerge convert"),
        "{refusal}"
    );
    assert!(!out.exists());
    let written = export(&gguf).unwrap();
    assert!(matches!(written.prompts, Prompts::Unknown(_)));
    assert_eq!(std::fs::read_to_string(out.join("Modelfile")).unwrap(), "FROM ./model.gguf\n");
    assert_eq!(Prompts::Plain.modelfile(), "FROM ./model.gguf\nTEMPLATE {{ .Prompt }}\n");
}

/// A server of a real Ollama with a store of its own.
struct Server {
    child: Child,
    address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Asked to end, it ends its runners; killed, it would leave them.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(program: &Path, store: &Path) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let child = Self::command(program, store, &address)
            .arg("serve")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Server { child, address };
        for _ in 0..100 {
            if TcpStream::connect(&server.address).is_ok() {
                return server;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("Ollama does not answer");
    }

    fn command(program: &Path, store: &Path, address: &str) -> Command {
        let mut command = Command::new(program);
        command.env("OLLAMA_HOST", address).env("OLLAMA_MODELS", store).env("HOME", store);
        command
    }

    fn ask(&self, path: &str, request: &Value) -> Value {
        let body = request.to_string();
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(
            stream,
            "POST {path} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    }
}

#[test]
fn a_real_ollama_runs_the_merged_model() {
    let Some(ollama) = std::env::var_os("CURMERGE_OLLAMA_BIN").map(PathBuf::from) else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (base, adapter, out, store) = (path("f32.gguf"), path("adapter"), path("out"), path("store"));
    // In F32 two programs' sums differ too little to change a likeliest token.
    curmerge!("convert", fixture::demo("model.gguf"), base, "--type", "f32").done();
    let data = fixture::demo("train.jsonl");
    curmerge!("build", base, "--data", data, "-o", adapter, "--max-steps", "10", "--lr", "1e-2").done();
    curmerge!("export", adapter, "--base", base, "--format", "ollama", "-o", out).done();
    std::fs::create_dir(&store).unwrap();
    let server = Server::start(&ollama, &store);
    let created = Server::command(&ollama, &store, &server.address)
        .args(["create", "test", "-f"])
        .arg(out.join("Modelfile"))
        .output()
        .unwrap();
    assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));

    let model = out.join("model.gguf");
    let options = json!({ "temperature": 0, "num_predict": 32, "repeat_penalty": 1 });
    let prompts = [
        "Definition: a large wild cat with a striped coat\nKind:",
        "a small",
        "Definition: to move fast on foot\nKind:",
    ];
    for prompt in prompts {
        let own = curmerge!("run", model, "-p", prompt, "-n", "32", "--json").json();
        let request =
            json!({ "model": "test", "prompt": prompt, "raw": true, "stream": false, "options": options });
        let theirs = server.ask("/api/generate", &request);
        assert_eq!(theirs["response"], own["text"], "{prompt}");
        assert_eq!(theirs["prompt_eval_count"], own["prompt_tokens"].as_array().unwrap().len());

        // The same through the chat template; answers end at its marks.
        let own = curmerge!("run", model, "-p", prompt, "-n", "32", "--chat", "--json").json();
        let messages = json!([{ "role": "user", "content": prompt }]);
        let request = json!({ "model": "test", "messages": messages, "stream": false, "options": options });
        let theirs = server.ask("/api/chat", &request);
        assert_eq!(theirs["prompt_eval_count"], own["prompt_tokens"].as_array().unwrap().len(), "{prompt}");
        let (theirs, own) = (theirs["message"]["content"].as_str().unwrap(), own["text"].as_str().unwrap());
        let own = own.split("<|im_").next().unwrap();
        assert_eq!(theirs.trim(), own.trim(), "{prompt}");
    }

    // Ollama's store is a place for bases.
    let again = path("again.gguf");
    let merge = |model: &str, out: &Path| {
        let status = program::program()
            .args(["merge", model])
            .arg(&adapter)
            .arg("--allow-other-base")
            .arg("-o")
            .arg(out)
            .env("OLLAMA_MODELS", &store)
            .output()
            .unwrap();
        assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
    };
    merge("ollama:test", &again);
    let twice = path("twice.gguf");
    merge(model.to_str().unwrap(), &twice);
    assert!(std::fs::read(again).unwrap() == std::fs::read(twice).unwrap(), "not the model of the folder");
}
