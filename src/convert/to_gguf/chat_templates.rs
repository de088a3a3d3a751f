//! The chat template, or several by name.

use curmerge_formats::gguf::{Array, Value};

use super::keys::Keys;
use crate::chat::Templates;

/// Sets the keys. If several names remain, the converter lists them in the order of a Python set, which
/// differs from run to run; here they are sorted. Where files of a folder hold different templates, the
/// converter takes that of tokenizer_config.json, and everything here that of chat_template.jinja, as
/// transformers does.
pub(super) fn set(templates: &Templates, keys: &mut Keys) {
    let mut default = None;
    let mut names = Vec::new();
    for (name, text) in templates.all() {
        let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
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
