//! Every kind of argument that may be a name of the Hub.

use std::ffi::OsStr;
use std::fs;

use super::{error, server};
use crate::cli::{folder, small_adapter};
use crate::support::fixture::{self, demo};
use crate::support::hub::Server;
use crate::support::program::{Ran, finish};

/// Runs the program on these words.
fn run(server: &Server, home: &std::path::Path, words: &[&str]) -> Ran {
    finish(server.program(home), &words.iter().map(OsStr::new).collect::<Vec<_>>())
}

#[test]
fn base_data_and_adapter_come_from_the_hub() {
    let (server, home) = (server(), folder());
    let adapter = home.path().join("own.safetensors");
    small_adapter(&adapter);
    server.add("models/some-one/learnt", "sst.safetensors", fs::read(&adapter).unwrap());
    for file in ["train.jsonl", "valid.jsonl", "test.jsonl"] {
        server.add("datasets/some-one/sst", file, fs::read(demo(file)).unwrap());
    }
    server.add("datasets/some-one/sst", "README.md", "data");
    server.add("datasets/some-one/text", "wiki.txt", fs::read(demo("text.txt")).unwrap());
    let base = "hf:some-one/tiny-GGUF:Q4_K_M";

    let out = home.path().join("new.safetensors");
    let train = ["--targets", "q", "--rank", "4", "--max-steps", "2", "--anchor", "none"];
    let words =
        ["build", base, "--data", "hf:some-one/sst:train", "--valid", "hf:some-one/sst:valid.jsonl", "-o"];
    let hub = run(&server, home.path(), &[&words[..], &[out.to_str().unwrap()], &train].concat()).done();
    assert!(hub.stdout.contains("valid"), "{}", hub.stdout);
    let local = home.path().join("local.safetensors");
    let [model, data, valid] = ["model.gguf", "train.jsonl", "valid.jsonl"].map(demo);
    let [model, data, valid] = [&model, &data, &valid].map(|path| path.to_str().unwrap());
    let words = ["build", model, "--data", data, "--valid", valid, "-o", local.to_str().unwrap()];
    run(&server, home.path(), &[&words[..], &train].concat()).done();
    assert_eq!(fs::read(&out).unwrap(), fs::read(&local).unwrap(), "where inputs lie changes nothing");

    let words = [
        "--data",
        "hf:some-one/sst:test",
        "--perplexity",
        "hf:some-one/text",
        "--chunks",
        "2",
        "--ctx",
        "64",
    ];
    let adapted = ["eval", base, "--adapter", "hf:some-one/learnt=0.5", "--against", "hf:some-one/tiny-GGUF"];
    let measured = run(&server, home.path(), &[&adapted[..], &words, &["--json"]].concat()).json();
    assert!(measured["kl"].as_f64().unwrap() > 0.0, "{measured}");

    run(&server, home.path(), &["verify", "hf:some-one/learnt", "--base", base]).done();
    run(&server, home.path(), &["data", "hf:some-one/sst:train", "--base", base]).done();
    let merged = home.path().join("merged.gguf");
    run(
        &server,
        home.path(),
        &["merge", base, "hf:some-one/learnt:sst.safetensors", "-o", merged.to_str().unwrap()],
    )
    .done();
    let line = error(&run(&server, home.path(), &["eval", base, "--data", "hf:some-one/sst"]));
    assert!(line.contains("several files of data") && line.contains("valid.jsonl"), "{line}");
}

#[test]
fn an_adapter_of_peft_is_a_folder() {
    let (server, home) = (server(), folder());
    let (adapter, peft) = (home.path().join("own.safetensors"), home.path().join("peft"));
    small_adapter(&adapter);
    curmerge!("export", adapter, "--base", demo("model.gguf"), "--format", "peft", "-o", peft).done();
    server.add_folder("models/some-one/peft", &peft);
    server.add("models/some-one/peft", "optimizer.pt", vec![0; 20_000]);
    let chat = "/adapter hf:some-one/peft\n/exit\n";
    let words = ["run", "hf:some-one/tiny-GGUF", "--adapter", "hf:some-one/peft", "-p", "a", "-n", "3"];
    run(&server, home.path(), &words).done();
    assert!(!server.asked().iter().any(|asked| asked.contains("optimizer.pt")));
    let mut program = server.program(home.path());
    let mut child = program
        .args(["run", "hf:some-one/tiny-GGUF"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), chat.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_folder_of_safetensors_converts_under_its_repository_s_name() {
    let (server, home) = (server(), folder());
    let hugging_face = fixture::path("arch/arcee/hf");
    server.add_folder("models/some-one/Arcee-1B", &hugging_face);
    server.add("models/some-one/Arcee-1B", "pytorch_model.bin", vec![0; 20_000]);
    server.add("models/some-one/Arcee-1B", "original/params.json", "{}");
    let out = home.path().join("out.gguf");
    run(&server, home.path(), &["convert", "hf:some-one/Arcee-1B", out.to_str().unwrap(), "--type", "f32"])
        .done();
    let asked = server.asked();
    assert!(!asked.iter().any(|asked| asked.contains("pytorch") || asked.contains("original")), "{asked:?}");
    let weights = asked.iter().rposition(|asked| asked.starts_with("storage")).unwrap();
    assert!(weights + 1 == asked.len(), "the weights come last: {asked:?}");
    let converted = curmerge_formats::gguf::Gguf::open(&out).unwrap();
    let name = converted.get("general.name").and_then(|value| value.as_str().map(str::to_owned));
    assert_eq!(name.as_deref(), Some("Arcee 1B"));
}

#[test]
fn an_onnx_model_is_opened_with_its_weights_beside_it() {
    let (server, home) = (server(), folder());
    server.add_folder("models/some-one/onnx", &fixture::path("onnx_models/tiny/genai-fp32"));
    let out = home.path().join("adapter.safetensors");
    let words = ["select", "hf:some-one/onnx:model.onnx", "-o", out.to_str().unwrap(), "--rank", "2"];
    run(&server, home.path(), &words).done();
}
