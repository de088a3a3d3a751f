//! Tests with Ollama: its packages for Modelfiles and templates, run through Go, and a server that runs a
//! merged model.
//!
//! `CURMERGE_OLLAMA=write` writes the goldens of fixtures/ollama.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use curmerge::export::ollama::Prompts;
use serde_json::{Value, json};

use crate::support::environment::named;
use crate::support::ollama::{check_renderings, conversations, fixtures, modelfiles, prompts, templates};
use crate::support::{fixture, program};

/// Asks Ollama's packages to parse Modelfiles and render conversations, by name.
fn ask_ollama(modelfiles: &BTreeMap<String, String>) -> Value {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts/ollama");
    // A copy, because Go writes a go.sum beside the go.mod.
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

#[test]
#[ignore = "needs Go and its module proxy"]
fn the_goldens_are_what_ollama_renders() {
    let templates = templates(&fixtures());
    let prompts = prompts(&templates);
    let modelfiles = modelfiles(&prompts);
    let answers = ask_ollama(&modelfiles);
    if std::env::var_os("CURMERGE_OLLAMA").is_some_and(|mode| mode == "write") {
        std::fs::write(fixtures().join("modelfiles.json"), format!("{:#}\n", json!(modelfiles))).unwrap();
        std::fs::write(fixtures().join("goldens.json"), format!("{answers:#}\n")).unwrap();
    }
    check_renderings(&templates, &prompts, &answers);
}

#[test]
#[ignore = "needs CURMERGE_TEMPLATES, Go and its module proxy"]
fn a_folder_of_templates_is_rendered_alike_or_not_at_all() {
    let templates = templates(&named("CURMERGE_TEMPLATES"));
    let prompts = prompts(&templates);
    check_renderings(&templates, &prompts, &ask_ollama(&modelfiles(&prompts)));
    for (name, prompts) in &prompts {
        match prompts {
            Prompts::Chat { stops, .. } => println!("{name}: answers end at {stops:?}"),
            other => println!("{name}: {other:?}"),
        }
    }
    let known = prompts.values().filter(|p| matches!(p, Prompts::Chat { .. })).count();
    println!("{known} of {} templates", prompts.len());
}

/// A real Ollama server with its own store.
struct Server {
    child: Child,
    address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGTERM makes the server stop its runners. SIGKILL would leave them running.
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
#[ignore = "needs CURMERGE_OLLAMA_BIN"]
fn a_real_ollama_runs_the_merged_model() {
    let ollama = named("CURMERGE_OLLAMA_BIN");
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (base, adapter, out, store) = (path("f32.gguf"), path("adapter.st"), path("out"), path("store"));
    // In F32 the two programs differ too little to change a likeliest token.
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

        // The same through the chat template. Answers end at its stop texts.
        let own = curmerge!("run", model, "-p", prompt, "-n", "32", "--chat", "--json").json();
        let messages = json!([{ "role": "user", "content": prompt }]);
        let request = json!({ "model": "test", "messages": messages, "stream": false, "options": options });
        let theirs = server.ask("/api/chat", &request);
        assert_eq!(theirs["prompt_eval_count"], own["prompt_tokens"].as_array().unwrap().len(), "{prompt}");
        let (theirs, own) = (theirs["message"]["content"].as_str().unwrap(), own["text"].as_str().unwrap());
        let own = own.split("<|im_").next().unwrap();
        assert_eq!(theirs.trim(), own.trim(), "{prompt}");
    }

    // A base can come from Ollama's store.
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
    assert!(
        std::fs::read(again).unwrap() == std::fs::read(twice).unwrap(),
        "the merge into the store's model differs from that into the folder's"
    );
}
