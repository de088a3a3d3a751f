//! Where a model keeps its chat template.

use std::io::ErrorKind;
use std::path::Path;

use curmerge_formats::gguf::{Gguf, Value};
use serde_json::Value as Json;

use super::template::ChatTemplate;
use crate::tokenizer::{Tokenizer, read_json};
use crate::{Error, Result};

impl ChatTemplate {
    /// The template in the metadata of a GGUF file, if it has one. `tokenizer` is that of the same file.
    pub fn from_gguf(gguf: &Gguf, tokenizer: &Tokenizer) -> Option<Self> {
        let source = gguf.get("tokenizer.chat_template").and_then(Value::as_str)?;
        Some(Self::for_tokenizer(source.to_owned(), tokenizer))
    }

    /// The template of a Hugging Face folder, if it has one: `chat_template.jinja`, or in `tokenizer_config.json` or
    /// `chat_template.json`. `tokenizer` is that of the same folder.
    ///
    /// # Errors
    /// If one of the files cannot be read.
    pub fn from_hf_folder(folder: &Path, tokenizer: &Tokenizer) -> Result<Option<Self>> {
        Ok(source_in_folder(folder)?.map(|source| Self::for_tokenizer(source, tokenizer)))
    }

    fn for_tokenizer(source: String, tokenizer: &Tokenizer) -> Self {
        let text = |id: Option<u32>| id.and_then(|id| tokenizer.token_text(id)).unwrap_or_default();
        Self::new(source, text(tokenizer.bos()), text(tokenizer.eos()))
    }
}

/// The template's own file takes precedence over the tokenizer's settings, which may hold several templates by name.
fn source_in_folder(folder: &Path) -> Result<Option<String>> {
    let path = folder.join("chat_template.jinja");
    match std::fs::read_to_string(&path) {
        Ok(source) => return Ok(Some(source)),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(Error::file(path, error.to_string(), "make it readable UTF-8 text")),
    }
    let config = read_json(&folder.join("tokenizer_config.json"))?;
    let older = read_json(&folder.join("chat_template.json"))?;
    Ok(match config.get("chat_template").or_else(|| older.get("chat_template")) {
        Some(Json::String(source)) => Some(source.clone()),
        Some(Json::Array(list)) => {
            let named =
                |name: &str| list.iter().find(|t| t.get("name").and_then(Json::as_str) == Some(name));
            let chosen = named("default").or_else(|| list.first());
            chosen.and_then(|t| t.get("template")).and_then(Json::as_str).map(str::to_owned)
        }
        _ => None,
    })
}
