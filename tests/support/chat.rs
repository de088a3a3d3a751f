//! Chat templates and conversations of fixtures/chat, and curmerge's renderings of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use curmerge::chat::{ChatTemplate, Conversation};
use serde_json::{Value, json};

use super::fixture;

pub const BOS: &str = "<s>";

pub const EOS: &str = "</s>";

/// For each template and conversation, the text without and with the generation prompt; `None` if it is
/// refused.
pub type Texts = BTreeMap<String, Vec<[Option<String>; 2]>>;

pub fn fixtures() -> PathBuf {
    fixture::path("chat")
}

/// The lines of conversations.jsonl.
pub fn rows() -> Vec<String> {
    let text = std::fs::read_to_string(fixtures().join("conversations.jsonl")).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// The Jinja sources of a folder, by name.
pub fn sources(folder: &Path) -> BTreeMap<String, String> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let templates = paths.filter(|path| path.extension().is_some_and(|e| e == "jinja"));
    templates
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_string();
            (name, std::fs::read_to_string(&path).unwrap())
        })
        .collect()
}

/// What curmerge renders.
pub fn ours(sources: &BTreeMap<String, String>) -> Texts {
    let rows: Vec<Conversation> = rows().iter().map(|row| Conversation::from_json(row).unwrap()).collect();
    let texts = |source: &String| {
        let template = ChatTemplate::new(source.clone(), BOS.into(), EOS.into());
        let render =
            |row: &Conversation, prompt| template.render_with(&row.messages, &row.variables, prompt).ok();
        rows.iter().map(|row| [render(row, false), render(row, true)]).collect()
    };
    sources.iter().map(|(name, source)| (name.clone(), texts(source))).collect()
}

/// A short description of each text or refusal that differs. If `lenient`, curmerge may render what they
/// refuse.
pub fn differences(theirs: &Texts, ours: &Texts, lenient: bool) -> Vec<String> {
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

/// The part of two texts where they begin to differ.
fn difference(theirs: &Option<String>, ours: &Option<String>) -> String {
    let (Some(theirs), Some(ours)) = (theirs, ours) else {
        return format!("refused: theirs {}, ours {}", theirs.is_none(), ours.is_none());
    };
    let same = theirs.chars().zip(ours.chars()).take_while(|(a, b)| a == b).count();
    let part = |text: &str| text.chars().skip(same.saturating_sub(40)).take(80).collect::<String>();
    format!("theirs {:?}, ours {:?}", part(theirs), part(ours))
}

/// Conversations whose contents are plain texts.
pub fn plain_conversations() -> Vec<Value> {
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
