//! What is learnt of a conversation through each template of llama.cpp's source: the assistant's contents, the
//! tokens that end its turns, and nothing that the user, the system or the template's headers say.

use std::fs;
use std::path::Path;

use curmerge::chat::{self, ChatError, ChatTemplate, Conversation};
use curmerge::tokenizer::Tokenizer;
use regex::Regex;
use serde_json::{Value, json};

use crate::support::chat::sources;
use crate::support::{environment, fixture};

const BOS: &str = "<s>";

/// What looks like a special token in a template.
const SPECIAL: &str = r#"<SPECIAL_\d+>|<seed:[a-z_]+>|\[e~\[|\]~!?b\[?|</?mm:think>|<[|｜][^<>\n'"{}]{1,40}[|｜]>|<\|?/?[a-z_][a-z_0-9]{2,30}\|?>|\[/?[A-Z_]{3,20}\]|</?s>|<[A-Z_]{3,30}>"#;

/// Ends that are not the first special token after a last turn: the template writes it later, or it is a token
/// of the next turn.
const ENDS: [(&str, &str); 6] = [
    ("Apertus-8B-Instruct", "<|assistant_end|>"),
    ("Apriel-1.6-15b-Thinker-fixed", "<|end|>"),
    ("GLM-4.6", "<|user|>"),
    ("GLM-4.7-Flash", "<|user|>"),
    ("Kimi-K3", "<|end_of_msg|>"),
    ("tencent-Hy3", "<｜hy_eos:opensource｜>"),
];

/// Words beside special tokens that the model itself writes: kinds of its text, and addressees.
const WRITTEN: [&str; 7] = ["think", "response", "final", "all", "to=user", "message", "content"];

/// Templates with turns that end with no token.
const WITHOUT_END: [&str; 1] = ["llama-cpp-rwkv-world"];

/// A tokenizer with these special tokens, which stops at `end`.
fn tokenizer(folder: &Path, special: &[&str], end: &str) -> Tokenizer {
    let json = fs::read_to_string(fixture::path("arch/qwen2/hf/tokenizer.json")).unwrap();
    let mut json: Value = serde_json::from_str(&json).unwrap();
    let known: Vec<String> =
        json["added_tokens"].as_array().unwrap().iter().map(|t| t["content"].to_string()).collect();
    let first =
        json["added_tokens"].as_array().unwrap().iter().map(|t| t["id"].as_u64().unwrap()).max().unwrap() + 1;
    let new = special.iter().filter(|text| !known.contains(&json!(text).to_string()));
    let new: Vec<Value> = (first..)
        .zip(new)
        .map(|(id, text)| {
            json!({"id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    json["added_tokens"].as_array_mut().unwrap().extend(new);
    fs::write(folder.join("tokenizer.json"), json.to_string()).unwrap();
    let config = json!({"bos_token": BOS, "eos_token": end, "add_bos_token": false});
    fs::write(folder.join("tokenizer_config.json"), config.to_string()).unwrap();
    Tokenizer::from_hf_folder(folder).unwrap()
}

/// The learnt parts of a conversation as texts.
fn learnt(row: &Value, template: &ChatTemplate, tokenizer: &Tokenizer) -> Result<Vec<String>, ChatError> {
    let conversation = Conversation::from_json(&row.to_string()).unwrap();
    let sequences = chat::tokenize(&conversation, template, tokenizer, true)?;
    let mut parts = Vec::new();
    for sequence in sequences {
        let tokens = sequence.tokens.iter().zip(&sequence.loss_mask);
        let chunks: Vec<(bool, Vec<u32>)> = tokens.fold(Vec::new(), |mut chunks, (&token, &learnt)| {
            match chunks.last_mut() {
                Some((same, chunk)) if *same == learnt => chunk.push(token),
                _ => chunks.push((learnt, vec![token])),
            }
            chunks
        });
        parts.extend(
            chunks.into_iter().filter(|(learnt, _)| *learnt).map(|(_, chunk)| tokenizer.decode(&chunk)),
        );
    }
    Ok(parts)
}

/// What is wrong with the learnt parts.
fn problems(name: &str, parts: &[String], special: &Regex, end: &str) -> Vec<String> {
    let contents = ["ALPHA one", "BETA two"];
    let mut found = Vec::new();
    let of = |part: &String| contents.iter().filter(|content| part.contains(**content)).count();
    if parts.iter().any(|part| of(part) != 1) {
        found.push("a part without one content".to_owned());
    }
    if !parts.iter().all(|part| part.ends_with(end) || WITHOUT_END.contains(&name)) {
        found.push(format!("a part that does not end with {end}"));
    }
    for part in parts {
        let rest = contents.iter().fold(part.clone(), |rest, content| rest.replace(content, " "));
        let rest = special.replace_all(&rest, " ").into_owned();
        let strange: Vec<&str> = rest.split_whitespace().filter(|word| !WRITTEN.contains(word)).collect();
        if !strange.is_empty() {
            found.push(format!("{strange:?}"));
        }
        if ["assistant>", "<|im_start|>", "<|user|>", "[INST]"]
            .iter()
            .any(|header| part.starts_with(&format!("<{header}")) || part.starts_with(header))
        {
            found.push("a header".to_owned());
        }
    }
    found
}

#[test]
#[ignore = "needs CURMERGE_TEMPLATES (models/templates of llama.cpp)"]
fn only_what_the_assistant_writes_is_learnt_through_every_template() {
    let special = Regex::new(SPECIAL).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let turn = |role: &str, content: &str| json!({"role": role, "content": content});
    let one = vec![turn("user", "Say alpha"), turn("assistant", "ALPHA one")];
    let two = [one.clone(), vec![turn("user", "Say beta"), turn("assistant", "BETA two")]].concat();
    let with_system = [vec![turn("system", "Rules here")], two.clone()].concat();
    let (mut wrong, mut right, mut refused) = (Vec::new(), 0, Vec::new());
    for (name, source) in sources(&environment::named("CURMERGE_TEMPLATES")) {
        let mut tokens: Vec<&str> = special.find_iter(&source).map(|found| found.as_str()).collect();
        tokens.extend([BOS, "</s>", "<|eot_id|>", "<|im_end|>", "<|end|>", "<|endoftext|>"]);
        let named = ENDS.iter().find(|(template, _)| *template == name).map(|(_, end)| (*end).to_owned());
        let template = |end: &str| ChatTemplate::new(source.clone(), BOS.into(), end.into());
        let asked = Conversation::from_json(&json!({"messages": one}).to_string()).unwrap();
        let end = named.unwrap_or_else(|| {
            let text = template("</s>").render(&asked.messages, false).unwrap_or_default();
            let after = text.split_once("ALPHA one").map_or("", |(_, after)| after.trim_start());
            let first = special.find(after).filter(|found| found.start() == 0);
            first.map_or("</s>", |found| found.as_str()).to_owned()
        });
        tokens.push(&end);
        tokens.sort_unstable();
        tokens.dedup();
        let tokenizer = tokenizer(folder.path(), &tokens, &end);
        for messages in [&one, &two, &with_system] {
            match learnt(&json!({"messages": messages}), &template(&end), &tokenizer) {
                Err(error) => refused.push(format!("{name}: {}", error.problem())),
                Ok(parts) => {
                    let found = problems(&name, &parts, &special, &end);
                    match found.is_empty() {
                        true => right += 1,
                        false => wrong.push(format!("{name}: {} in {parts:?}", found.join("; "))),
                    }
                }
            }
        }
    }
    println!(
        "{right} conversations are learnt rightly, {} are refused:\n{}",
        refused.len(),
        refused.join("\n")
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(refused.len() * 10 < right, "too many are refused");
}
