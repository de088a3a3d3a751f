//! The `general.*` keys: the model's name, its authors, what it was made from, and how to sample from it.
//!
//! The sources and their order are those of gguf-py's metadata.py: the model card in README.md, then
//! config.json's `_name_or_path`, then the folder's own name; and generation_config.json for sampling.

use curmerge_formats::gguf::Value;
use serde_json::Value as Json;

use super::keys::Keys;
use super::model_name::{ModelName, Size, title};
use crate::Result;
use crate::base::folder::{self, Folder, Object};
use crate::base::model_card;

/// The kind of a number under `general.sampling`.
#[derive(Clone, Copy)]
enum Kind {
    Integer,
    Float,
    Text,
}

/// Keys under `general.sampling`, and their names in generation_config.json; the first one found counts.
const SAMPLING: &[(&str, &[&str], Kind)] = &[
    ("sequence", &["sequence"], Kind::Text),
    ("top_k", &["top_k"], Kind::Integer),
    ("top_p", &["top_p"], Kind::Float),
    ("min_p", &["min_p"], Kind::Float),
    ("xtc_probability", &["xtc_probability"], Kind::Float),
    ("xtc_threshold", &["xtc_threshold"], Kind::Float),
    ("temp", &["temperature"], Kind::Float),
    ("penalty_last_n", &["penalty_last_n"], Kind::Integer),
    ("penalty_repeat", &["penalty_repeat", "repetition_penalty"], Kind::Float),
    ("mirostat", &["mirostat"], Kind::Integer),
    ("mirostat_tau", &["mirostat_tau"], Kind::Float),
    ("mirostat_eta", &["mirostat_eta"], Kind::Float),
];

/// Keys under `general`, and their names in the model card; the first one with a value counts.
const CARD: &[(&str, &[&str])] = &[
    ("name", &["name", "model_name"]),
    ("author", &["author", "model_author", "model_creator"]),
    ("version", &["version", "model_version"]),
    ("organization", &["organization", "model_organization"]),
    ("finetune", &["finetune", "model_finetune"]),
    ("basename", &["basename", "model_basename", "model_type"]),
    ("description", &["description", "model_description"]),
    ("size_label", &["size_label", "model_size_label"]),
    ("license", &["license"]),
    ("license.name", &["license_name"]),
    ("license.link", &["license_link"]),
    ("source.url", &["url", "model_url"]),
    ("source.doi", &["doi", "model_doi"]),
    ("source.uuid", &["uuid", "model_uuid"]),
    ("source.repo_url", &["repo_url", "model_repo_url"]),
];

/// The keys of each base model and data set, in the order in which they are written.
const ORIGIN: &[&str] =
    &["name", "author", "version", "organization", "description", "url", "doi", "uuid", "repo_url"];

/// Sets the keys of a model of this size, and adds what the user should know to `notes`.
pub(super) fn set(
    keys: &mut Keys,
    folder: Folder<'_>,
    config: &Object,
    size: Size,
    notes: &mut Vec<String>,
) -> Result<()> {
    let (card, unreadable) = model_card::read(folder)?;
    if unreadable {
        notes.push("the front matter of README.md is not YAML: it was left out".into());
    }
    // The converter ignores a file that is not JSON.
    if let Ok(Some(generation)) = folder.object(folder::GENERATION_CONFIG) {
        sampling(keys, &generation);
    }
    let parameters = size.parameters;
    let said = names(folder, config, &card, size);
    for (key, value) in CARD.iter().map(|(key, _)| *key).zip(&said) {
        if let Some(value) = value {
            keys.text(format!("general.{key}"), value);
        }
    }
    origins(keys, "base_model", &card, &["base_model", "base_models", "base_model_sources"], parameters);
    origins(keys, "dataset", &card, &["datasets", "dataset", "dataset_sources"], parameters);
    let lists = |names: &[&str]| names.iter().filter_map(|name| card.get(*name)).flat_map(texts).collect();
    keys.texts("general.tags", lists(&["tags", "pipeline_tag"]));
    keys.texts("general.languages", lists(&["languages", "language"]));
    Ok(())
}

/// The values of [`CARD`]'s keys.
fn names(folder: Folder<'_>, config: &Object, card: &Object, model: Size) -> Vec<Option<String>> {
    let of_card = |name: &&str| match card.get(*name)? {
        Json::Array(list) if *name == "license" => {
            Some(list.iter().filter_map(Json::as_str).collect::<Vec<_>>().join(","))
        }
        value => value.as_str().map(str::to_owned),
    };
    let mut said: Vec<Option<String>> =
        CARD.iter().map(|(_, names)| names.iter().find_map(of_card)).collect();
    // A path on a disk is not a name.
    let path =
        config.get("_name_or_path").and_then(Json::as_str).filter(|path| path.matches('/').count() <= 1);
    for id in path.map(str::to_owned).into_iter().chain([folder.name()]) {
        let name = ModelName::parse(&id, model.parameters);
        for ((key, _), value) in CARD.iter().zip(&mut said) {
            let guess = match *key {
                "name" => name.full.as_deref().map(title),
                "organization" => name.organization.as_deref().map(title),
                "basename" => name.base.clone(),
                "finetune" => name.finetune.clone(),
                "version" => name.version.clone(),
                "size_label" => name.size.clone(),
                _ => None,
            };
            if value.is_none() {
                *value = guess;
            }
        }
    }
    let size = CARD.iter().zip(&mut said).find(|((key, _), _)| *key == "size_label");
    if let Some((_, size)) = size.filter(|(_, size)| size.is_none() && model.parameters > 0) {
        *size = Some(model.label());
    }
    said
}

fn sampling(keys: &mut Keys, generation: &Object) {
    for (key, names, kind) in SAMPLING {
        let Some(value) = names.iter().find_map(|name| generation.get(*name)) else { continue };
        let value = match kind {
            Kind::Integer => value.as_i64().and_then(|x| i32::try_from(x).ok()).map(Value::I32),
            Kind::Float => value.as_f64().map(|x| Value::F32(x as f32)),
            Kind::Text => {
                value.as_str().filter(|text| !text.is_empty()).map(|text| Value::String(text.into()))
            }
        };
        if let Some(value) = value {
            keys.set(format!("general.sampling.{key}"), value);
        }
    }
}

/// What the model was made from: `general.base_model.*` or `general.dataset.*`.
fn origins(keys: &mut Keys, kind: &str, card: &Object, names: &[&str], parameters: u64) {
    let Some(value) = names.iter().find_map(|name| card.get(*name)) else { return };
    let entries: Vec<Object> = match value {
        Json::String(id) => vec![origin(id, parameters)],
        Json::Array(list) => list
            .iter()
            .map(|entry| match entry {
                Json::String(id) => origin(id, parameters),
                Json::Object(entry) => entry.clone(),
                _ => Object::new(),
            })
            .collect(),
        _ => Vec::new(),
    };
    keys.set(format!("general.{kind}.count"), Value::U32(entries.len() as u32));
    for (place, entry) in entries.iter().enumerate() {
        for part in ORIGIN {
            if let Some(text) = entry.get(*part).and_then(Json::as_str) {
                keys.text(format!("general.{kind}.{place}.{part}"), text);
            }
        }
    }
}

/// What an address or a name on Hugging Face tells of a model or data set.
fn origin(id: &str, parameters: u64) -> Object {
    let mut origin = Object::new();
    let mut put = |key: &str, value: String| drop(origin.insert(key.into(), Json::String(value)));
    let address = ["http://", "https://", "ssh://"].iter().any(|start| id.starts_with(start));
    let name = if address {
        put("repo_url", id.to_owned());
        on_hugging_face(id)
    } else {
        Some(id)
    };
    let Some(name) = name.map(|name| ModelName::parse(name, parameters)) else { return origin };
    if let (false, Some(organization), Some(full)) = (address, &name.organization, &name.full) {
        put("repo_url", format!("https://huggingface.co/{organization}/{full}"));
    }
    let named = [
        ("name", name.full.as_deref().map(title)),
        ("organization", name.organization.as_deref().map(title)),
        ("version", name.version),
    ];
    for (key, value) in named {
        if let Some(value) = value {
            put(key, value);
        }
    }
    origin
}

/// The `owner/name` of a model's or data set's page.
fn on_hugging_face(address: &str) -> Option<&str> {
    let rest = address.strip_prefix("http").map(|rest| rest.strip_prefix('s').unwrap_or(rest))?;
    let name = rest.strip_prefix("://huggingface.co/")?;
    let (owner, model) = name.split_once('/')?;
    (!owner.is_empty() && !model.is_empty() && !model.contains('/')).then_some(name)
}

/// A text, or the texts of a list.
fn texts(value: &Json) -> Vec<String> {
    match value {
        Json::String(text) => vec![text.clone()],
        Json::Array(list) => list.iter().filter_map(Json::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}
