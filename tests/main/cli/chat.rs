//! `run` without a prompt: a conversation through pipes.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};

use curmerge::base::Base;
use curmerge::chat::Message;
use curmerge_formats::gguf::Value as GgufValue;
use serde_json::Value;

use super::{folder, small_adapter};
use crate::support::families::{Container, Family};
use crate::support::fixture::demo;
use crate::support::program::{Ran, interrupt, program};
use crate::support::remade::Remade;

/// A conversation with these lines as input.
fn chat(words: &[&OsStr], input: &str) -> Ran {
    let mut command = program();
    command.arg("run").args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A program that ends early closes its input.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let words = words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    Ran { status: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr), words }
}

/// The answers, as JSON, of greedy models, of at most 12 tokens.
fn answers(base: &Path, more: &[&OsStr], input: &str) -> Vec<Value> {
    let mut words = vec![base.as_os_str()];
    words.extend(["--json", "--exact", "--temp", "0", "-n", "12"].map(OsStr::new));
    words.extend(more);
    let ran = chat(&words, input).done();
    ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn text(answer: &Value) -> &str {
    answer["content"].as_str().unwrap()
}

/// What `run -p` writes after the rendered conversation.
fn continued(
    base: &Path,
    template: Option<&Path>,
    adapter: Option<&Path>,
    messages: &[(&str, &str)],
) -> String {
    let mut open = Base::open(base).unwrap();
    if let Some(template) = template {
        open.use_chat_template(template.to_str().unwrap()).unwrap();
    }
    let template = open.chat_template(&open.tokenizer().unwrap()).unwrap().unwrap();
    let messages: Vec<Message> = messages.iter().map(|(role, text)| Message::new(*role, *text)).collect();
    let prompt = template.render(&messages, true).unwrap();
    let prompt = OsStr::new(&prompt);
    let mut words = vec![OsStr::new("run"), base.as_os_str(), OsStr::new("-p"), prompt];
    words.extend(["-n", "12", "--json", "--exact"].map(OsStr::new));
    words.extend(adapter.iter().flat_map(|adapter| [OsStr::new("--adapter"), adapter.as_os_str()]));
    crate::support::program::run(&words).json()["text"].as_str().unwrap().to_owned()
}

/// A template for the models that have none.
fn template(folder: &Path) -> PathBuf {
    let path = folder.join("plain.jinja");
    let text = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:";
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn every_answer_continues_the_whole_conversation() {
    let scratch = folder();
    let template = template(scratch.path());
    let with = [OsStr::new("--chat-template"), template.as_os_str()];
    // Attention, also with windows, and what cannot go back: linear attention, convolutions, state spaces.
    for name in ["demo", "gemma3", "gptneox", "qwen3_5", "lfm2", "nemotron_h"] {
        let (base, more) = match name {
            "demo" => (demo("model.gguf"), &[][..]),
            _ => (Family::open(name).path(Container::Folder), &with[..]),
        };
        let own = (name != "demo").then_some(template.as_path());
        let found = answers(&base, more, "a bird\n\nof prey?\n");
        assert_eq!(found.len(), 2, "{name}");
        let first = continued(&base, own, None, &[("user", "a bird")]);
        assert_eq!(text(&found[0]), first, "{name}");
        let history = [("user", "a bird"), ("assistant", &first), ("user", "of prey?")];
        assert_eq!(text(&found[1]), continued(&base, own, None, &history), "{name}");
    }
}

#[test]
fn only_new_tokens_are_computed() {
    let found =
        answers(&demo("model.gguf"), &[], "a bird that lives in the water\nand a fish\n/reset\na fish\n");
    let number = |answer: usize, name: &str| found[answer][name].as_u64().unwrap();
    assert_eq!(number(0, "prompt_tokens"), number(0, "computed_prompt_tokens"));
    let before = number(0, "prompt_tokens") + number(0, "completion_tokens");
    assert!(number(1, "prompt_tokens") >= before, "{found:?}");
    let new = number(1, "prompt_tokens") - before;
    // The last token that was written had not been read.
    assert!(number(1, "computed_prompt_tokens") <= new + 1, "{found:?}");
    assert!(number(2, "prompt_tokens") < number(1, "prompt_tokens"), "{found:?}");
    assert!(found.iter().all(|answer| answer["role"] == "assistant" && answer["model"] == "base"));
}

#[test]
fn adapters_are_switched_and_compared() {
    let scratch = folder();
    let (base, file) = (demo("model.gguf"), scratch.path().join("adapter.st"));
    small_adapter(&file);
    // The adapter alone changes too little to be seen in twelve tokens.
    let adapter = PathBuf::from(format!("{}=40", file.display()));
    let with = [OsStr::new("--adapter"), adapter.as_os_str()];
    let question = [("user", "a bird")];
    let [plain, changed] = [None, Some(&*adapter)].map(|adapter| continued(&base, None, adapter, &question));
    assert_ne!(plain, changed, "the adapter changes nothing, so the test proves nothing");

    let input =
        format!("a bird\n/reset\n/adapter {}\na bird\n/reset\n/adapter off\na bird\n", adapter.display());
    let found = answers(&base, &[], &input);
    assert_eq!(found.iter().map(text).collect::<Vec<_>>(), [&plain, &changed, &plain]);
    let both = [&with[..], &[OsStr::new("--compare")]].concat();
    let found = answers(&base, &both, "a bird\nand a fish\n/compare off\n/reset\na bird\n");
    let models: Vec<&str> = found.iter().map(|answer| answer["model"].as_str().unwrap()).collect();
    assert_eq!(models, ["base", "adapted", "base", "adapted", "adapted"]);
    assert_eq!([text(&found[0]), text(&found[1]), text(&found[4])], [&plain, &changed, &changed]);
    // Each goes on with what it said itself.
    for (speaker, own) in [(2, &plain), (3, &changed)] {
        let history = [("user", "a bird"), ("assistant", own), ("user", "and a fish")];
        let used = (speaker == 3).then_some(&*adapter);
        assert_eq!(text(&found[speaker]), continued(&base, None, used, &history));
    }
    let shown = chat(&[&[base.as_os_str()], &both[..]].concat(), "a bird\n").done().stdout;
    assert!(shown.starts_with("base:\n") && shown.contains("\nadapted:\n"), "{shown}");
}

#[test]
fn conversations_are_saved_as_examples() {
    let scratch = folder();
    let (base, saved) = (demo("model.gguf"), scratch.path().join("saved.jsonl"));
    let save = format!("/save {}\n", saved.display());
    // The file's last line has no end.
    fs::write(&saved, "{\"text\": \"a bird\"}").unwrap();
    let input = format!("\"\"\"\na bird\nor two\n\"\"\"\n{save}and a fish\n{save}");
    answers(&base, &["--system", "be brief"].map(OsStr::new), &input);
    let text = fs::read_to_string(&saved).unwrap();
    let mut rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((rows.len(), rows.remove(0)["text"].as_str()), (3, Some("a bird")));
    let roles = |row: usize| -> Vec<&str> {
        rows[row]["messages"].as_array().unwrap().iter().map(|m| m["role"].as_str().unwrap()).collect()
    };
    assert_eq!(roles(0), ["system", "user", "assistant"]);
    assert_eq!(roles(1), ["system", "user", "assistant", "user", "assistant"]);
    assert_eq!(rows[0]["messages"][1]["content"], "a bird\nor two");
    let shown = curmerge!("data", saved).done();
    assert!(shown.stdout.contains("system: be brief") && shown.stdout.contains("3 rows"), "{}", shown.stdout);
    // A model is no file of examples.
    let model = scratch.path().join("model.gguf");
    fs::copy(&base, &model).unwrap();
    let ran = chat(&[model.as_os_str()], &format!("a bird\n/save {}\n", model.display()));
    assert!(ran.status == Some(1) && ran.stderr.contains("ends in .jsonl"), "{}", ran.stderr);
    assert_eq!(fs::read(&model).unwrap(), fs::read(&base).unwrap());
}

#[test]
fn the_oldest_messages_make_room() {
    let base = demo("model.gguf");
    let input = "a bird of prey\n".repeat(6);
    let words =
        [base.as_os_str(), OsStr::new("--ctx-size"), OsStr::new("64"), OsStr::new("-n"), OsStr::new("8")];
    let ran = chat(&words, &input).done();
    assert_eq!(ran.stderr.matches("first messages are left out").count(), 1, "{}", ran.stderr);
    let ran = chat(&words, &"a bird of prey ".repeat(30));
    assert!(ran.status == Some(1) && ran.stderr.contains("send a shorter one"), "{}", ran.stderr);
    let ran = chat(&[base.as_os_str(), OsStr::new("-c"), OsStr::new("999")], "a\n");
    assert!(ran.status == Some(1) && ran.stderr.contains("context is 256"), "{}", ran.stderr);
}

#[test]
fn what_cannot_be_done_is_said() {
    let base = demo("model.gguf");
    for (input, says) in [
        ("/compare on\n", "needs an adapter"),
        ("/forget\n", "there is no command /forget"),
        ("/adapter nowhere.st\n", "nowhere.st"),
        ("/save x.jsonl\n", "nothing was said"),
    ] {
        let ran = chat(&[base.as_os_str()], input);
        assert!(ran.status == Some(1) && ran.stderr.contains(says), "{input}: {}", ran.stderr);
        assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
    }
    let scratch = folder();
    let none = scratch.path().join("none.gguf");
    Remade::demo().set("tokenizer.chat_template", None).write(&none);
    let ran = chat(&[none.as_os_str()], "a\n");
    assert!(ran.status == Some(1) && ran.stderr.contains("chat template"), "{}", ran.stderr);
    let mut command = program();
    command.arg("run").arg(&base).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"a \xff bird\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("not UTF-8"));
}

#[test]
fn a_prompt_may_come_from_standard_input() {
    let base = demo("model.gguf");
    let [prompt, n] = ["-p", "-n"].map(OsStr::new);
    let piped = chat(&[base.as_os_str(), prompt, OsStr::new("-"), n, OsStr::new("9")], "a bird of\n").done();
    let given = curmerge!("run", base, "-p", "a bird of", "-n", "9").done();
    assert_eq!(piped.stdout, given.stdout);
}

#[test]
fn draws_are_repeated_by_their_seed() {
    let base = demo("model.gguf");
    let drawn = |seed: &str| {
        chat(&[base.as_os_str(), OsStr::new("-s"), OsStr::new(seed), OsStr::new("--temp=2")], "a bird\nb\n")
            .done()
            .stdout
    };
    assert_eq!(drawn("1"), drawn("1"));
    assert_ne!(drawn("1"), drawn("2"));
}

/// A conversation whose answer has begun and never ends, since no token is likelier than all others; and its input.
#[cfg(unix)]
fn endless(folder: &Path) -> (Child, ChildStdin) {
    let base = folder.join("long.gguf");
    Remade::demo().set("llama.context_length", Some(GgufValue::U32(1 << 20))).write(&base);
    let mut command = program();
    command.arg("run").arg(&base).args(["--temp", "50", "--top-k", "0", "--top-p", "1", "--min-p", "0"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"a bird\na fish\n").unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 4]).unwrap();
    (child, stdin)
}

/// In a pipe nobody can go on after Ctrl-C. tests/clients/terminal.rs has the terminal.
#[cfg(unix)]
#[test]
fn an_interrupted_conversation_in_a_pipe_ends() {
    let scratch = folder();
    let (child, _stdin) = endless(scratch.path());
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
}

/// What nobody reads is not written.
#[cfg(unix)]
#[test]
fn a_closed_pipe_ends_the_conversation() {
    let scratch = folder();
    // Its input stays open: only the pipe's end can end it.
    let (mut child, _stdin) = endless(scratch.path());
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
