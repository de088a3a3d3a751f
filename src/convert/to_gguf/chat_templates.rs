//! The chat template, or several by name.

use curmerge_formats::gguf::{Array, Value};
use serde_json::Value as Json;

use super::keys::Keys;
use crate::Result;
use crate::base::folder::{self, Folder, Object};

/// One template, or several with their names.
#[derive(Clone, Debug)]
pub(super) enum Templates {
    One(String),
    Named(Vec<(String, String)>),
}

/// The templates of a folder: those in tokenizer_config.json, or else those in files of their own.
pub(super) fn read(folder: Folder<'_>, tokenizer_config: &Object) -> Result<Option<Templates>> {
    match tokenizer_config.get("chat_template") {
        Some(value) => Ok(of_json(value)),
        None => of_files(folder),
    }
}

fn of_json(value: &Json) -> Option<Templates> {
    match value {
        Json::String(text) => Some(Templates::One(text.clone())),
        Json::Array(list) => {
            let text = |entry: &Json, part: &str| entry.get(part).and_then(Json::as_str).map(str::to_owned);
            let named = |entry| Some((text(entry, "name")?, text(entry, "template")?));
            Some(Templates::Named(list.iter().filter_map(named).collect()))
        }
        _ => None,
    }
}

fn of_files(folder: Folder<'_>) -> Result<Option<Templates>> {
    if let Some(text) = folder.text_with_newlines(folder::CHAT_TEMPLATE)? {
        let more = additional(folder)?;
        if more.is_empty() {
            return Ok(Some(Templates::One(text)));
        }
        return Ok(Some(Templates::Named([("default".to_owned(), text)].into_iter().chain(more).collect())));
    }
    let older = folder.object(folder::CHAT_TEMPLATE_JSON)?;
    Ok(older.and_then(|json| of_json(json.get("chat_template")?)))
}

/// `additional_chat_templates/NAME.jinja`, sorted by name.
fn additional(folder: Folder<'_>) -> Result<Vec<(String, String)>> {
    let mut templates = Vec::new();
    for name in folder.additional_chat_templates()? {
        if let Some(text) = folder.text_with_newlines(folder::additional_chat_template(&name))? {
            templates.push((name, text));
        }
    }
    Ok(templates)
}

impl Templates {
    /// Sets the keys. If several names remain, the converter lists them in the order of a Python set, which
    /// differs from run to run; here they are sorted.
    pub(super) fn set(&self, keys: &mut Keys) {
        let named = match self {
            Templates::One(text) => return keys.text("tokenizer.chat_template", text),
            Templates::Named(named) => named,
        };
        let mut default = None;
        let mut names = Vec::new();
        for (name, text) in named {
            let name: String =
                name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
            match name.as_str() {
                "" => {}
                "default" => default = Some(text),
                _ => {
                    keys.text(format!("tokenizer.chat_template.{name}"), text);
                    names.push(name);
                }
            }
        }
        names.sort();
        names.dedup();
        if !names.is_empty() {
            keys.set("tokenizer.chat_templates", Value::Array(Array::String(names)));
        }
        if let Some(text) = default {
            keys.text("tokenizer.chat_template", text);
        }
    }
}
