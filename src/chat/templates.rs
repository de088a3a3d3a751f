//! Where a model keeps its chat templates, looked up by one rule.
//!
//! In a folder the first of these counts, as in transformers: `chat_template.jinja` (with those of
//! `additional_chat_templates/`), `tokenizer_config.json`, `chat_template.json`. A GGUF file has them in its
//! metadata. There may be several by name; `default` is the one that is used.

use std::path::Path;

use curmerge_formats::gguf::{Gguf, Value};
use curmerge_formats::output::OutputFolder;
use serde_json::Value as Json;

use super::template::ChatTemplate;
use crate::Result;
use crate::base::folder::{self, CHAT_TEMPLATE, CHAT_TEMPLATE_JSON, Folder, TOKENIZER_CONFIG};
use crate::tokenizer::Tokenizer;

/// The name of the template that is used.
const DEFAULT: &str = "default";
/// The key of GGUF and of JSON files.
const KEY: &str = "chat_template";

/// The chat templates of a model, or of a folder with an adapter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Templates {
    /// Names and texts, in the order of the file.
    named: Vec<(String, String)>,
    conflict: Option<String>,
}

impl ChatTemplate {
    /// The template in the metadata of a GGUF file, if it has one. `tokenizer` is that of the same file.
    pub fn from_gguf(gguf: &Gguf, tokenizer: &Tokenizer) -> Option<Self> {
        Some(Self::for_tokenizer(Templates::of_gguf(gguf).used()?.into(), tokenizer))
    }

    /// The template of a Hugging Face folder, if it has one. `tokenizer` is that of the same folder.
    ///
    /// # Errors
    /// If one of the files cannot be read.
    pub fn from_hf_folder(folder: &Path, tokenizer: &Tokenizer) -> Result<Option<Self>> {
        let templates = Templates::of_folder(Folder::new(folder))?;
        Ok(templates.used().map(|source| Self::for_tokenizer(source.into(), tokenizer)))
    }

    pub(super) fn for_tokenizer(source: String, tokenizer: &Tokenizer) -> Self {
        let text = |id: Option<u32>| id.and_then(|id| tokenizer.token_text(id)).unwrap_or_default();
        Self::new(source, text(tokenizer.bos()), text(tokenizer.eos()))
    }
}

/// Makes a template the one that is used, in the metadata of a GGUF file.
pub(crate) fn set_in_metadata(metadata: &mut Vec<(String, Value)>, source: &str) {
    let (name, value) = (format!("tokenizer.{KEY}"), Value::String(source.to_owned()));
    match metadata.iter_mut().find(|(key, _)| *key == name) {
        Some((_, own)) => *own = value,
        None => metadata.push((name, value)),
    }
}

/// Makes a template the one that is used, in every file of a folder that may have one.
///
/// # Errors
/// A file that cannot be read or written.
pub(crate) fn set_in_folder(folder: &OutputFolder, source: &str) -> Result<()> {
    folder.write(CHAT_TEMPLATE, source.as_bytes())?;
    for name in [TOKENIZER_CONFIG, CHAT_TEMPLATE_JSON] {
        let Some(mut json) = Folder::new(folder.path()).object(name)? else { continue };
        if json.contains_key(KEY) {
            json.insert(KEY.into(), source.into());
            folder.write(name, format!("{:#}\n", Json::from(json)).as_bytes())?;
        }
    }
    Ok(())
}

impl Templates {
    /// Those in the metadata of a GGUF file.
    pub fn of_gguf(gguf: &Gguf) -> Self {
        let text = |key: &str| gguf.get(key).and_then(Value::as_str).map(str::to_owned);
        let default = text(&format!("tokenizer.{KEY}")).map(|source| (DEFAULT.to_owned(), source));
        let start = format!("tokenizer.{KEY}.");
        let others = gguf.metadata().iter().filter_map(|(key, value)| {
            Some((key.strip_prefix(&start)?.to_owned(), value.as_str()?.to_owned()))
        });
        Self { named: default.into_iter().chain(others).collect(), conflict: None }
    }

    /// Those of a folder, of a model or one that a trainer saved beside an adapter.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn of_folder(folder: Folder<'_>) -> Result<Self> {
        let mut found: Vec<(&str, Vec<(String, String)>)> = Vec::new();
        if let Some(text) = folder.text_with_newlines(CHAT_TEMPLATE)? {
            let mut named = vec![(DEFAULT.to_owned(), text)];
            for name in folder.additional_chat_templates()? {
                let text = folder.text_with_newlines(folder::additional_chat_template(&name))?;
                named.extend(text.map(|text| (name, text)));
            }
            found.push((CHAT_TEMPLATE, named));
        }
        for file in [TOKENIZER_CONFIG, CHAT_TEMPLATE_JSON] {
            let json = folder.object(file)?.unwrap_or_default();
            let named = json.get(KEY).map(of_json).unwrap_or_default();
            if !named.is_empty() {
                found.push((file, named));
            }
        }
        let Some((used, _)) = found.first() else { return Ok(Self::default()) };
        let texts: Vec<_> = found.iter().map(|(file, named)| (file, used_of(named).map(unified))).collect();
        let other = texts.iter().find(|(_, text)| *text != texts[0].1).map(|(file, _)| file);
        let conflict = other.map(|other| {
            let path = folder.path().display();
            format!("{path}: {used} and {other} hold different chat templates; that of {used} is used")
        });
        Ok(Self { named: found.swap_remove(0).1, conflict })
    }

    /// The template that is used: the default one, or else the first.
    pub fn used(&self) -> Option<&str> {
        used_of(&self.named)
    }

    /// The template of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.named.iter().find(|(own, _)| own == name).map(|(_, source)| source.as_str())
    }

    /// Names and texts of all.
    pub fn all(&self) -> &[(String, String)] {
        &self.named
    }

    /// One line, if files of the folder hold different ones.
    pub fn conflict(&self) -> Option<&str> {
        self.conflict.as_deref()
    }

    /// Whether the template that is used is the same, but for the ends of its lines.
    pub fn agrees_with(&self, other: &Self) -> bool {
        self.used().map(unified) == other.used().map(unified)
    }
}

fn of_json(value: &Json) -> Vec<(String, String)> {
    let text = |entry: &Json, part: &str| entry.get(part).and_then(Json::as_str).map(str::to_owned);
    match value {
        Json::String(source) => vec![(DEFAULT.to_owned(), source.clone())],
        Json::Array(list) => {
            list.iter().filter_map(|entry| Some((text(entry, "name")?, text(entry, "template")?))).collect()
        }
        _ => Vec::new(),
    }
}

fn used_of(named: &[(String, String)]) -> Option<&str> {
    let default = named.iter().find(|(name, _)| name == DEFAULT);
    default.or(named.first()).map(|(_, source)| source.as_str())
}

/// A template without what files of it differ in: white space at the ends of lines.
fn unified(source: &str) -> String {
    source.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_file_counts_and_a_conflict_is_told() {
        let own = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(own.path().join(name), text).unwrap();
        let read = || Templates::of_folder(Folder::new(own.path())).unwrap();
        assert_eq!((read().used(), read().conflict()), (None, None));
        write(CHAT_TEMPLATE_JSON, r#"{"chat_template": "older"}"#);
        assert_eq!(read().used(), Some("older"));
        write(
            TOKENIZER_CONFIG,
            r#"{"chat_template": [{"name": "rag", "template": "r"}, {"name": "default", "template": "older"}]}"#,
        );
        assert_eq!((read().used(), read().get("rag"), read().conflict()), (Some("older"), Some("r"), None));
        write(CHAT_TEMPLATE, "newer\r\n");
        let templates = read();
        assert_eq!((templates.used(), templates.get("rag")), (Some("newer\n"), None));
        let line = templates.conflict().unwrap();
        assert!(line.contains("chat_template.jinja and tokenizer_config.json hold different"), "{line}");
        std::fs::create_dir(own.path().join("additional_chat_templates")).unwrap();
        write("additional_chat_templates/tools.jinja", "t");
        assert_eq!(read().get("tools"), Some("t"));
    }
}
