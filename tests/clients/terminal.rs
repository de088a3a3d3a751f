//! A chat and questions on a terminal, which a Python script plays.
#![cfg(unix)]

use std::ffi::OsStr;

use curmerge_formats::gguf::Value;
use serde_json::json;

use crate::support::fixture::demo;
use crate::support::remade::Remade;
use crate::support::venv;

#[test]
fn ctrl_c_stops_an_answer_and_the_conversation_goes_on() {
    let scratch = tempfile::tempdir().unwrap();
    let base = scratch.path().join("long.gguf");
    Remade::demo().set("llama.context_length", Some(Value::U32(1 << 20))).write(&base);
    let program = env!("CARGO_BIN_EXE_curmerge");
    // A model that never ends its answer: no token of it is likelier than all others.
    let words = [
        program,
        "run",
        base.to_str().unwrap(),
        "--temp",
        "50",
        "--top-k",
        "0",
        "--top-p",
        "1",
        "--min-p",
        "0",
    ];
    let steps = [
        [">>> ", "a bird\r"],
        // The answer has begun.
        ["\n", "\u{3}"],
        ["(stopped)", ""],
        [">>> ", "/he\t\r"],
        ["/adapter off|on|FILE", ""],
        [">>> ", "/forget\r"],
        ["there is no command /forget", ""],
        [">>> ", "\u{3}"],
        ["(/exit or Ctrl-D ends)", ""],
        [">>> ", "\u{4}"],
    ];
    let asked = json!({ "words": words, "steps": steps });
    let answer = venv::answer("terminal.py", &[OsStr::new("OUT")], asked.to_string().as_bytes());
    assert_eq!(answer["status"], 0, "{answer}");
    let shown = answer["shown"].as_str().unwrap();
    assert!(shown.contains("stopping the answer (Ctrl-C again"), "{shown}");
    assert!(shown.contains("tokens of context. /help lists commands"), "{shown}");
}

/// SIGTERM, as a closed window or `kill` sends it.
#[test]
fn a_signal_at_the_prompt_ends_the_program_and_leaves_the_terminal_as_it_was() {
    let words =
        [env!("CARGO_BIN_EXE_curmerge"), "run", demo("model.gguf").to_str().unwrap()].map(str::to_owned);
    let asked = json!({ "words": words, "steps": [[">>> ", 15]] });
    let answer = venv::answer("terminal.py", &[OsStr::new("OUT")], asked.to_string().as_bytes());
    assert_eq!((&answer["status"], &answer["canonical"]), (&json!(130), &json!(true)), "{answer}");
}

#[test]
fn init_asks_until_it_can_write_a_recipe() {
    let scratch = tempfile::tempdir().unwrap();
    let (base, data) = (demo("model.gguf"), demo("train.jsonl"));
    let (file, adapter) = (scratch.path().join("run.toml"), scratch.path().join("mine.safetensors"));
    let program = env!("CARGO_BIN_EXE_curmerge");
    let words = [program, "init", "-o", file.to_str().unwrap()];
    let line = |text: &str| format!("{text}\r");
    let steps = [
        ["Base model".to_owned(), line("none.gguf")],
        ["none.gguf: ".to_owned(), line(base.to_str().unwrap())],
        ["million numbers".to_owned(), String::new()],
        ["Examples".to_owned(), line(data.to_str().unwrap())],
        ["What they teach".to_owned(), line("painting")],
        ["'painting' is no task".to_owned(), line("facts")],
        ["Memory".to_owned(), line("1500M")],
        ["of 1500M".to_owned(), String::new()],
        ["Adapter to write [adapter.safetensors]".to_owned(), line(adapter.to_str().unwrap())],
        ["curmerge build --config".to_owned(), String::new()],
    ];
    let asked = json!({ "words": words, "steps": steps });
    let answer = venv::answer("terminal.py", &[OsStr::new("OUT")], asked.to_string().as_bytes());
    assert_eq!(answer["status"], 0, "{answer}");
    let text = std::fs::read_to_string(&file).unwrap();
    let table = text.parse::<toml::Table>().unwrap();
    assert_eq!(table["build"]["epochs"].as_integer(), Some(6), "{text}");
    assert_eq!(table["build"]["output"].as_str(), adapter.to_str(), "{text}");
    // What stands there is kept, unless that is wanted.
    let steps = [["Replace it? [y/N]", "n\r"]];
    let asked = json!({ "words": words, "steps": steps });
    let answer = venv::answer("terminal.py", &[OsStr::new("OUT")], asked.to_string().as_bytes());
    assert_eq!(answer["status"], 1, "{answer}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
}
