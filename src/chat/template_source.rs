//! Where a model keeps its chat template.

use std::path::Path;

use curmerge_formats::gguf::{Gguf, Value};
use serde_json::Value as Json;

use super::template::ChatTemplate;
use crate::Result;
use crate::base::folder::{CHAT_TEMPLATE, CHAT_TEMPLATE_JSON, Folder, TOKENIZER_CONFIG};
use crate::tokenizer::Tokenizer;

impl ChatTemplate {
    /// The template in the metadata of a GGUF file, if it has one. `tokenizer` is that of the same file.
    pub fn from_gguf(gguf: &Gguf, tokenizer: &Tokenizer) -> Option<Self> {
        Some(Self::for_tokenizer(source_in_gguf(gguf)?, tokenizer))
    }

    /// The template of a Hugging Face folder, if it has one: `chat_template.jinja`, or in
    /// `tokenizer_config.json` or `chat_template.json`. `tokenizer` is that of the same folder.
    ///
    /// # Errors
    /// If one of the files cannot be read.
    pub fn from_hf_folder(folder: &Path, tokenizer: &Tokenizer) -> Result<Option<Self>> {
        Ok(source_in_folder(Folder::new(folder))?.map(|source| Self::for_tokenizer(source, tokenizer)))
    }

    fn for_tokenizer(source: String, tokenizer: &Tokenizer) -> Self {
        let text = |id: Option<u32>| id.and_then(|id| tokenizer.token_text(id)).unwrap_or_default();
        Self::new(source, text(tokenizer.bos()), text(tokenizer.eos()))
    }
}

/// The text of the chat template in the metadata of a GGUF file, if it has one.
pub fn source_in_gguf(gguf: &Gguf) -> Option<String> {
    gguf.get("tokenizer.chat_template").and_then(Value::as_str).map(str::to_owned)
}

/// The text of the chat template in a folder: of a model, or that a trainer saved beside an adapter. The
/// template's own file takes precedence over the tokenizer's settings, which may hold several templates by
/// name.
///
/// # Errors
/// A file that cannot be read.
pub fn source_in_folder(folder: Folder<'_>) -> Result<Option<String>> {
    if let Some(source) = folder.text(CHAT_TEMPLATE)? {
        return Ok(Some(source));
    }
    let config = folder.object(TOKENIZER_CONFIG)?.unwrap_or_default();
    let older = folder.object(CHAT_TEMPLATE_JSON)?.unwrap_or_default();
    Ok(match config.get("chat_template").or_else(|| older.get("chat_template")) {
        Some(Json::String(source)) => Some(source.clone()),
        Some(Json::Array(list)) => {
            let named = |name: &str| list.iter().find(|t| t.get("name").and_then(Json::as_str) == Some(name));
            let chosen = named("default").or_else(|| list.first());
            chosen.and_then(|t| t.get("template")).and_then(Json::as_str).map(str::to_owned)
        }
        _ => None,
    })
}
