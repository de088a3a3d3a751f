//! Chat templates: the text that transformers renders, or a refusal where it refuses.
//!
//! fixtures/chat has templates with the features of the field's, conversations, and what transformers made of them. With
//! `CURMERGE_PYTHON=PYTHON`, whose environment has transformers, it is asked again; `CURMERGE_CHAT=write` writes the
//! goldens anew. `CURMERGE_TEMPLATES=FOLDER` compares a folder's `.jinja` files too, and prints the figures.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use curmerge::chat::{ChatTemplate, Conversation};
use curmerge::tokenizer::Tokenizer;
use curmerge::train::data::{DataOptions, Dataset};
use serde_json::json;

const BOS: &str = "<s>";
const EOS: &str = "</s>";

/// By template, for each conversation the text without and with the generation prompt.
type Texts = BTreeMap<String, Vec<[Option<String>; 2]>>;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/chat")
}

fn rows() -> Vec<String> {
    let text = std::fs::read_to_string(fixtures().join("conversations.jsonl")).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn sources(folder: &Path) -> BTreeMap<String, String> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let templates = paths.filter(|path| path.extension().is_some_and(|e| e == "jinja"));
    templates
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_string();
            (name, std::fs::read_to_string(&path).unwrap())
        })
        .collect()
}

/// What transformers makes of the conversations.
fn theirs(python: &OsString, sources: &BTreeMap<String, String>) -> Texts {
    // The rows as they are written: a template may ask for the order of keys, which serde_json's maps do not keep.
    let asked = format!(
        "{{\"templates\": {}, \"conversations\": [{}], \"bos\": \"{BOS}\", \"eos\": \"{EOS}\"}}",
        json!(sources),
        rows().join(",")
    );
    serde_json::from_str(&ask(python, "chat_templates.py", &[], &asked)).unwrap()
}

/// What a script of tests/scripts prints.
fn ask(python: &OsStr, script: &str, words: &[&OsStr], input: &str) -> String {
    let mut child = Command::new(python)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts").join(script))
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the interpreter of CURMERGE_PYTHON starts");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

fn ours(sources: &BTreeMap<String, String>) -> Texts {
    let rows: Vec<Conversation> = rows().iter().map(|row| Conversation::from_json(row).unwrap()).collect();
    let texts = |source: &String| {
        let template = ChatTemplate::new(source.clone(), BOS.into(), EOS.into());
        let render =
            |row: &Conversation, prompt| template.render_with(&row.messages, &row.variables, prompt).ok();
        rows.iter().map(|row| [render(row, false), render(row, true)]).collect()
    };
    sources.iter().map(|(name, source)| (name.clone(), texts(source))).collect()
}

/// Each text or refusal that differs, in short; texts that only we render are not among them if `lenient`.
fn differences(theirs: &Texts, ours: &Texts, lenient: bool) -> Vec<String> {
    let mut found = Vec::new();
    for (name, texts) in theirs {
        for (i, (theirs, ours)) in texts.iter().zip(&ours[name]).enumerate() {
            for (theirs, ours) in theirs.iter().zip(ours) {
                if theirs != ours && !(lenient && theirs.is_none()) {
                    found.push(format!("{name}, line {}: {}", i + 1, difference(theirs, ours)));
                }
            }
        }
    }
    found
}

/// Where two texts begin to differ.
fn difference(theirs: &Option<String>, ours: &Option<String>) -> String {
    let (Some(theirs), Some(ours)) = (theirs, ours) else {
        return format!("one refuses: {} {}", theirs.is_none(), ours.is_none());
    };
    let same = theirs.chars().zip(ours.chars()).take_while(|(a, b)| a == b).count();
    let part = |text: &str| text.chars().skip(same.saturating_sub(40)).take(80).collect::<String>();
    format!("{:?} here {:?}", part(theirs), part(ours))
}

#[test]
fn the_fixtures_render_as_in_transformers() {
    let (sources, path) = (sources(&fixtures()), fixtures().join("goldens.json"));
    if let Some(python) = std::env::var_os("CURMERGE_PYTHON") {
        let asked = theirs(&python, &sources);
        if std::env::var_os("CURMERGE_CHAT").is_some_and(|mode| mode == "write") {
            std::fs::write(&path, format!("{}\n", json!(asked))).unwrap();
        }
        let golden: Texts = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert!(asked == golden, "transformers no longer says what the goldens say");
    }
    let golden: Texts = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let ours = ours(&sources);
    assert!(ours.len() >= 8 && ours.keys().eq(golden.keys()));
    let found = differences(&golden, &ours, false);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Conversations of plain texts.
fn plain_conversations() -> Vec<serde_json::Value> {
    let turns = |turns: &[(&str, &str)]| {
        turns
            .iter()
            .map(|(role, content)| json!({"role": role, "content": content}))
            .collect::<Vec<_>>()
            .into()
    };
    vec![
        turns(&[("user", "What is 7 times 6?"), ("assistant", "42")]),
        turns(&[
            ("system", " Be kind.\n"),
            ("user", "Hi"),
            ("assistant", "Hello!"),
            ("user", "Bye"),
            ("assistant", "Bye, then."),
        ]),
        turns(&[("user", "a"), ("assistant", "  two\n\n spaces "), ("assistant", "Grüße 世界 🙂")]),
        turns(&[("assistant", "I begin."), ("user", "No."), ("assistant", ""), ("user", "the last word")]),
        turns(&[
            ("user", "x"),
            ("assistant", "<|im_start|>user\nnot a turn"),
            ("user", "y"),
            ("assistant", "def f(x):\n    return x"),
        ]),
    ]
}

#[test]
fn loss_falls_where_transformers_marks_the_assistant() {
    let (golden_path, template) = (fixtures().join("masks.json"), fixtures().join("marked.jinja"));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/arch/qwen2/hf");
    let conversations = plain_conversations();
    if let Some(python) = std::env::var_os("CURMERGE_PYTHON") {
        let words = [folder.as_os_str(), template.as_os_str()];
        let asked = ask(&python, "assistant_masks.py", &words, &json!(conversations).to_string());
        if std::env::var_os("CURMERGE_CHAT").is_some_and(|mode| mode == "write") {
            std::fs::write(&golden_path, asked).unwrap();
        } else {
            assert_eq!(asked.trim(), std::fs::read_to_string(&golden_path).unwrap().trim());
        }
    }
    let golden: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&golden_path).unwrap()).unwrap();
    // The folder's tokenizer with that template.
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
    let options = DataOptions { max_seq_len: 4096, append_eos: false };
    let data = Dataset::read(&data, &tokenizer, template.as_ref(), &options).unwrap();
    assert_eq!(data.examples.len(), conversations.len());
    for (example, golden) in data.examples.iter().zip(golden.as_array().unwrap()) {
        let mask: Vec<u8> = example.loss_mask.iter().map(|&target| target.into()).collect();
        assert_eq!((json!(example.tokens), json!(mask)), (golden["ids"].clone(), golden["mask"].clone()));
    }
}

#[test]
#[ignore = "needs CURMERGE_TEMPLATES (models/templates of llama.cpp) and CURMERGE_PYTHON with transformers"]
fn a_folder_of_templates_renders_as_in_transformers() {
    let named = |name: &str| std::env::var_os(name).unwrap_or_else(|| panic!("set {name}"));
    let (folder, python) = (named("CURMERGE_TEMPLATES"), named("CURMERGE_PYTHON"));
    let sources = sources(Path::new(&folder));
    let (theirs, ours) = (theirs(&python, &sources), ours(&sources));
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
