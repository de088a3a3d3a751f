//! The keys after the token list: which tokens begin and end a text, and whether the tokenizer adds them.
//!
//! The sources are those of gguf-py's `SpecialVocab`: tokenizer_config.json names tokens whose ids are among
//! tokenizer.json's added tokens, config.json gives ids, and tokenizer.json's post-processor shows what it
//! puts around a text. The first source that knows an id counts.

use curmerge_formats::gguf::{Array, Value};
use serde_json::Value as Json;

use super::chat_templates;
use super::keys::Keys;
use crate::base::folder::{self, Folder, Object};
use crate::chat::Templates;
use crate::{Error, Result};

/// The roles of tokens, and the key of each; `cls` has none.
const ROLES: &[(&str, Option<&str>)] = &[
    ("bos", Some("bos_token_id")),
    ("eos", Some("eos_token_id")),
    ("unk", Some("unknown_token_id")),
    ("sep", Some("seperator_token_id")),
    ("pad", Some("padding_token_id")),
    ("cls", None),
    ("mask", Some("mask_token_id")),
    // Only if the post-processor ends a text with another token than the one called EOS.
    ("eot", Some("eot_token_id")),
    ("eom", Some("eom_token_id")),
];
/// The number of roles that every folder may have.
const USUAL: usize = 7;

/// Values by role, in the order in which they were found.
type Found<T> = Vec<(&'static str, T)>;

/// Sets the keys of special tokens, of merges if `with_merges`, and of chat templates. Ids from `limit` on
/// are left out. `named` has the texts of added tokens for roles that nothing else gives to a token.
pub(super) fn set(
    keys: &mut Keys,
    folder: Folder<'_>,
    with_merges: bool,
    limit: Option<usize>,
    named: &[(&'static str, &str)],
) -> Result<()> {
    let tokenizer = folder.object(folder::TOKENIZER)?;
    let config = folder.object(folder::TOKENIZER_CONFIG)?;
    if with_merges {
        keys.texts("tokenizer.ggml.merges", merges(folder, tokenizer.as_ref())?);
    }
    let mut around = Around { config, roles: USUAL, adds: Vec::new() };
    if let Some(tokenizer) = tokenizer.as_ref().filter(|tokenizer| !tokenizer.is_empty()) {
        around.read(tokenizer);
    }
    let Around { config, roles, mut adds } = around;
    let roles = || ROLES[..roles].iter().map(|(role, _)| *role);

    let mut ids: Found<u64> = Vec::new();
    let mut put = |role, id: Option<u64>| {
        if let Some(id) =
            id.filter(|&id| limit.is_none_or(|limit| id < limit as u64) && id <= u32::MAX.into())
            && ids.iter().all(|(known, _)| *known != role)
        {
            ids.push((role, id));
        }
    };
    let config = config.filter(|config| !config.is_empty());
    if let Some(config) = &config {
        for role in roles() {
            if let Some(adds_it) = config.get(&format!("add_{role}_token")).and_then(Json::as_bool)
                && adds.iter().all(|(known, _)| *known != role)
            {
                adds.push((role, adds_it));
            }
            let entry = config.get(&format!("{role}_token"));
            let text = entry.and_then(|entry| entry.as_str().or_else(|| entry.get("content")?.as_str()));
            put(role, text.and_then(|text| added_id(tokenizer.as_ref()?, text)));
        }
    }
    let model = folder.object(folder::CONFIG)?.unwrap_or_default();
    for role in roles() {
        put(role, model.get(&format!("{role}_token_id")).and_then(Json::as_u64));
    }

    for &(role, text) in named {
        put(role, tokenizer.as_ref().and_then(|tokenizer| added_id(tokenizer, text)));
    }

    let ids = ids.into_iter().filter_map(|(role, id)| {
        let key = ROLES.iter().find(|(known, _)| *known == role)?.1?;
        Some((key, Value::U32(id as u32)))
    });
    ids.for_each(|(key, value)| keys.set(format!("tokenizer.ggml.{key}"), value));
    for (role, adds_it) in adds {
        if matches!(role, "bos" | "eos" | "sep") {
            keys.set(format!("tokenizer.ggml.add_{role}_token"), Value::Bool(adds_it));
        }
    }
    // Without tokenizer_config.json the converter reads no template.
    if config.is_some() {
        chat_templates::set(&Templates::of_folder(folder)?, keys);
    }
    if let Some(tokenizer) = &tokenizer {
        normalizer(keys, tokenizer.get("normalizer"));
    }
    Ok(())
}

/// What the post-processor of tokenizer.json puts around a text.
struct Around {
    /// tokenizer_config.json; tokens that it lacks come from the post-processor.
    config: Option<Object>,
    /// How many of [`ROLES`] the folder may have.
    roles: usize,
    /// Whether a token is put around a text.
    adds: Found<bool>,
}

impl Around {
    fn read(&mut self, tokenizer: &Object) {
        if let Some(config) = &mut self.config {
            for (role, other) in [("bos_token", "cls_token"), ("eos_token", "sep_token")] {
                if !truthy(config.get(role)) && truthy(config.get(other)) {
                    let token = config[other].clone();
                    config.insert(role.into(), token);
                }
            }
        }
        let Some(processor) = tokenizer.get("post_processor").filter(|p| truthy(Some(p))) else { return };
        let one = std::slice::from_ref(processor);
        for step in processor.get("processors").and_then(Json::as_array).map_or(one, Vec::as_slice) {
            match step.get("type").and_then(Json::as_str) {
                Some("ByteLevel") => {
                    for role in ["bos", "eos"] {
                        if self.adds.iter().all(|(known, _)| *known != role) {
                            self.adds.push((role, false));
                        }
                    }
                }
                Some("RobertaProcessing") => {
                    ["bos", "eos", "sep"].into_iter().for_each(|role| self.put(role, true));
                }
                Some("TemplateProcessing") => self.template(step),
                _ => {}
            }
        }
    }

    fn put(&mut self, role: &'static str, adds_it: bool) {
        match self.adds.iter_mut().find(|(known, _)| *known == role) {
            Some((_, old)) => *old = adds_it,
            None => self.adds.push((role, adds_it)),
        }
    }

    fn token(&self, role: &str) -> Json {
        let token = self.config.as_ref().and_then(|config| config.get(&format!("{role}_token")));
        token.cloned().unwrap_or_default()
    }

    fn put_token(&mut self, role: &str, token: &Json) {
        if let Some(config) = &mut self.config {
            config.insert(format!("{role}_token"), token.clone());
        }
    }

    /// A template such as `<s> $A </s>`.
    fn template(&mut self, step: &Json) {
        let sequence = |name: &str| step.get(name).and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
        let (single, pair) = (sequence("single"), sequence("pair"));
        let special = |entry: Option<&Json>| {
            let id = entry?.get("SpecialToken")?.get("id")?;
            id.as_str().filter(|id| !id.is_empty()).map(|id| Json::String(id.to_owned()))
        };
        let has_config = self.config.as_ref().is_some_and(|config| !config.is_empty());
        let (mut eos, separator) = (self.token("eos"), self.token("sep"));
        let mut ends = [None, None];
        if single.len() > 1 {
            ends = [special(single.first()), special(single.last())];
        }
        if let Some(first) = &ends[0] {
            let (mut bos, mut class) = (self.token("bos"), self.token("cls"));
            if !has_config {
                bos = first.clone();
            } else if *first != bos && *first != class {
                if !truthy(Some(&bos)) {
                    self.put_token("bos", first);
                    bos = first.clone();
                }
                if !truthy(Some(&class)) {
                    self.put_token("cls", first);
                    class = first.clone();
                }
            }
            self.put("bos", *first == bos || *first == class);
        }
        if let Some(last) = &ends[1] {
            if has_config && *last != eos {
                // The token that was called EOS ends only a turn.
                if let Some((role, _)) = ROLES.get(self.roles) {
                    self.roles += 1;
                    self.put_token(role, &eos);
                }
                self.put_token("eos", last);
            }
            eos = last.clone();
            self.put("eos", true);
        }
        let start = usize::from(ends[0].is_some() && special(pair.first()) == ends[0]);
        let stop = pair.len() - usize::from(ends[1].is_some() && special(pair.last()) == ends[1]);
        let inner = pair.get(start..stop).unwrap_or_default();
        let of = |entry: Option<&Json>, name: &str| {
            entry.and_then(|entry| entry.get("Sequence")?.get("id")?.as_str()) == Some(name)
        };
        // A, separator, perhaps another, B.
        if !(of(inner.first(), "A") && of(inner.last(), "B") && inner.len() > 2) {
            return;
        }
        let between = &inner[1..inner.len() - 1];
        let separates = |token: Option<Json>| token.is_some_and(|token| token == separator || token == eos);
        let mut adds = separates(special(between.first())) && ends[1].is_none();
        adds |= between.len() == 2 && separates(special(between.get(1)));
        self.put("sep", adds);
        if adds && has_config && !truthy(Some(&separator)) {
            self.put_token("sep", &eos);
        }
    }
}

/// Whether Python takes a token for true: it is neither missing nor empty.
fn truthy(value: Option<&Json>) -> bool {
    match value {
        None | Some(Json::Null) => false,
        Some(Json::String(text)) => !text.is_empty(),
        Some(Json::Object(object)) => !object.is_empty(),
        Some(Json::Bool(truth)) => *truth,
        Some(_) => true,
    }
}

/// The id of the first added token of this text.
pub(super) fn added_id(tokenizer: &Object, text: &str) -> Option<u64> {
    let added = tokenizer.get("added_tokens")?.as_array()?;
    let token = added.iter().find(|token| token.get("content").and_then(Json::as_str) == Some(text))?;
    token.get("id")?.as_u64()
}

/// The merges in the order of their rank, each as two parts with a space between them.
fn merges(folder: Folder<'_>, tokenizer: Option<&Object>) -> Result<Vec<String>> {
    let list =
        tokenizer.and_then(|t| t.get("model")?.get("merges")?.as_array()).map_or(&[][..], Vec::as_slice);
    if list.is_empty() {
        let text = folder.text_with_newlines("merges.txt")?.unwrap_or_default();
        let pairs = text.lines().enumerate().filter(|(i, line)| *i > 0 || !line.starts_with('#'));
        let pair = |line: &str| match line.split_whitespace().collect::<Vec<_>>()[..] {
            [left, right] => Some(format!("{left} {right}")),
            _ => None,
        };
        return Ok(pairs.filter_map(|(_, line)| pair(line)).collect());
    }
    // Byte-level BPE spells a space within a part like this.
    let part = |part: &Json| part.as_str().map(|part| part.replace(' ', "\u{120}"));
    let merge = |merge: &Json| match merge {
        Json::String(text) => Some(text.clone()),
        Json::Array(pair) => match &pair[..] {
            [left, right] => Some(format!("{} {}", part(left)?, part(right)?)),
            _ => None,
        },
        _ => None,
    };
    list.iter()
        .enumerate()
        .map(|(rank, value)| {
            merge(value).ok_or_else(|| {
                let place = format!("model.merges[{rank}]");
                let help = "download the folder again";
                Error::input(
                    folder.join(folder::TOKENIZER),
                    place,
                    "neither a text nor a pair of texts",
                    help,
                )
            })
        })
        .collect()
}

/// Whether the normalizer removes capitals or accents.
fn normalizer(keys: &mut Keys, step: Option<&Json>) {
    let mut flags = [("lowercase", None), ("strip_accents", None)];
    flag_steps(step, &mut flags, 0);
    for (name, value) in flags {
        if let Some(value) = value {
            keys.set(format!("tokenizer.ggml.normalizer.{name}"), Value::Bool(value));
        }
    }
}

fn flag_steps(step: Option<&Json>, flags: &mut [(&'static str, Option<bool>); 2], depth: usize) {
    let Some(step) = step.filter(|_| depth < 16) else { return };
    match step.get("type").and_then(Json::as_str) {
        Some("Lowercase") => flags[0].1 = Some(true),
        Some("StripAccents") => flags[1].1 = Some(true),
        Some("BertNormalizer") => {
            for (name, value) in flags {
                *value = step.get(*name).and_then(Json::as_bool).or(*value);
            }
        }
        Some("Sequence") => {
            let steps = step.get("normalizers").and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
            steps.iter().for_each(|step| flag_steps(Some(step), flags, depth + 1));
        }
        _ => {}
    }
}

/// Sets the token list of a vocabulary: texts, scores if it has them, types.
pub(super) fn set_tokens(keys: &mut Keys, texts: Vec<String>, scores: Option<Vec<f32>>, kinds: Vec<i32>) {
    keys.texts("tokenizer.ggml.tokens", texts);
    if let Some(scores) = scores {
        keys.set("tokenizer.ggml.scores", Value::Array(Array::F32(scores)));
    }
    keys.set("tokenizer.ggml.token_type", Value::Array(Array::I32(kinds)));
}
