//! The model card of a folder that is written: README.md, with the front matter that Hugging Face's hub reads.
//!
//! It says what the folder was made of, how, with which result, and how to load it. It holds no time, path or
//! host. The licence and the languages are those of the base's own card.

mod record;

use serde_json::Value as Json;

pub use record::{Record, of_adapter, of_training};

use crate::Result;
use crate::base::folder::{CONFIG, Folder, Object};
use crate::base::{Base, Files, model_card};
use crate::cur::fingerprint;

/// The file of the card.
pub const FILE: &str = "README.md";
/// Keys of the base's front matter that hold for what is made of it.
const INHERITED: &[&str] = &["license", "license_name", "license_link", "language"];
/// Names from files are cut to this many characters.
const LONGEST: usize = 200;

/// What a folder holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A model for transformers.
    Model,
    /// A LoRA for PEFT.
    Lora,
    /// A model for Ollama.
    Ollama,
}

/// What a card says.
#[derive(Clone, Debug)]
pub struct Card<'a> {
    /// What the folder holds.
    pub kind: Kind,
    /// The model that it was made of.
    pub base: &'a Base,
    /// How the folder was made of it.
    pub settings: Record,
    /// The adapters.
    pub adapters: Vec<Record>,
}

impl Card<'_> {
    /// The text of the file.
    ///
    /// # Errors
    /// A README.md of the base that cannot be read.
    pub fn text(&self) -> Result<String> {
        let repository = repository(self.base);
        let mut text = String::from("---\n");
        if let Some(repository) = &repository {
            text += &format!("base_model: {}\n", quoted(repository));
        }
        let (relation, library, loads) = match self.kind {
            Kind::Model => ("finetune", Some("transformers"), MODEL),
            Kind::Lora => ("adapter", Some("peft"), LORA),
            Kind::Ollama => ("finetune", None, OLLAMA),
        };
        if repository.is_some() {
            text += &format!("base_model_relation: {relation}\n");
        }
        text += &library.map(|library| format!("library_name: {library}\n")).unwrap_or_default();
        text += "pipeline_tag: text-generation\n";
        for (key, value) in inherited(self.base)? {
            text += &format!("{key}: {value}\n");
        }
        text += match self.kind {
            Kind::Model => "tags:\n- curmerge\n",
            Kind::Lora => "tags:\n- curmerge\n- lora\n",
            Kind::Ollama => "tags:\n- curmerge\n- gguf\n",
        };
        let name = repository.unwrap_or_else(|| self.base.name());
        let what = match self.kind {
            Kind::Model | Kind::Ollama => "A fine-tuned model",
            Kind::Lora => "A LoRA",
        };
        text += &format!("---\n\n# {what} of {}\n\nMade with curmerge.\n\n## Base\n\n", shown(&name));
        let architecture = self.base.architecture_name();
        let of_base = [
            ("Name", name.clone()),
            ("Architecture", architecture.to_owned()),
            ("Container", self.base.container().to_owned()),
            ("SHA-256 of the digests of its tensors", fingerprint::base_sha256(self.base)),
        ];
        text += &table(&of_base);
        for (number, adapter) in self.adapters.iter().enumerate().filter(|(_, adapter)| !adapter.is_empty()) {
            let heading = if self.adapters.len() > 1 { format!(" {}", number + 1) } else { String::new() };
            text += &format!("\n## Adapter{heading}\n\n{}", table(adapter));
        }
        if !self.settings.is_empty() {
            text += &format!("\n## How it was made\n\n{}", table(&self.settings));
        }
        text += &format!("\n## How to load it\n\n{loads}");
        Ok(text)
    }
}

const MODEL: &str = "```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(\"THIS FOLDER\")
tokenizer = AutoTokenizer.from_pretrained(\"THIS FOLDER\")
```
";

const LORA: &str = "```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(\"BASE\"), \"THIS FOLDER\")
```
";

const OLLAMA: &str = "```
ollama create NAME -f Modelfile
ollama run NAME
```
";

/// The base's repository at Hugging Face, if its files name one.
fn repository(base: &Base) -> Option<String> {
    let of_folder = || {
        let Files::HuggingFace(_) = base.files() else { return None };
        let config = Folder::new(base.path()).object(CONFIG).ok().flatten()?;
        let name = config.get("_name_or_path")?.as_str()?.to_owned();
        let part = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        };
        // A path on a disk is no repository.
        (name.split('/').count() == 2 && name.split('/').all(part)).then_some(name)
    };
    base.hugging_face_repository().or_else(of_folder)
}

/// What holds of the base's own card, as YAML.
fn inherited(base: &Base) -> Result<Vec<(&'static str, String)>> {
    let card: Object = match base.files() {
        Files::HuggingFace(_) => model_card::read(Folder::new(base.path()))?.0,
        Files::Gguf(_) | Files::Onnx(_) => Object::new(),
    };
    let of_list = |list: &[Json]| {
        let texts: Vec<String> = list.iter().filter_map(Json::as_str).map(quoted).collect();
        format!("[{}]", texts.join(", "))
    };
    let value = |key: &str| match card.get(key)? {
        Json::String(text) => Some(quoted(text)),
        Json::Array(list) => Some(of_list(list)),
        _ => None,
    };
    Ok(INHERITED.iter().filter_map(|key| Some((*key, value(key)?))).collect())
}

/// A text in YAML's double quotes, which are JSON's.
fn quoted(text: &str) -> String {
    Json::from(cut(text)).to_string()
}

fn cut(text: &str) -> String {
    text.chars().take(LONGEST).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A text in Markdown as it is.
fn shown(text: &str) -> String {
    let escape = |c: char| match c {
        '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#' | '!' => format!("\\{c}"),
        c => c.to_string(),
    };
    cut(text).chars().map(escape).collect()
}

/// A table of names and values.
fn table(record: &[(&'static str, String)]) -> String {
    let row = |(name, value): &(&str, String)| format!("| {name} | {} |\n", shown(value));
    "| | |\n|---|---|\n".to_owned() + &record.iter().map(row).collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_files_stay_texts() {
        assert_eq!(quoted("a\"b\n---\nc: d"), "\"a\\\"b --- c: d\"");
        assert_eq!(shown("a|b\n<x>_y_"), "a\\|b \\<x\\>\\_y\\_");
        assert_eq!(shown(&"x".repeat(1000)).len(), LONGEST);
    }
}
