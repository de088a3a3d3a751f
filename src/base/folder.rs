//! The small files of a model's folder: configuration, tokenizer, chat templates, index.
//!
//! Every module that reads one of them reads it here, so that a file from the internet meets one size limit
//! and a damaged one gives one message. Weights are mapped by their container's reader instead.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use curmerge_formats::input;
use serde_json::{Map, Value as Json};

use super::json;
use crate::{Error, Result, hub};

/// The model's configuration, as transformers writes it.
pub const CONFIG: &str = "config.json";
/// Defaults for generating text: end tokens and sampling.
pub const GENERATION_CONFIG: &str = "generation_config.json";
/// The configuration of onnxruntime-genai.
pub const GENAI_CONFIG: &str = "genai_config.json";
/// The tokenizer of the `tokenizers` library.
pub const TOKENIZER: &str = "tokenizer.json";
/// A SentencePiece tokenizer.
pub const SENTENCEPIECE: &str = "tokenizer.model";
/// Special tokens, flags and perhaps the chat template.
pub const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// Special tokens by role, as older versions of transformers write them.
pub const SPECIAL_TOKENS_MAP: &str = "special_tokens_map.json";
/// Tokens added to a SentencePiece vocabulary, with their ids.
pub const ADDED_TOKENS: &str = "added_tokens.json";
/// The chat template in a file of its own (transformers 4.51 and later).
pub const CHAT_TEMPLATE: &str = "chat_template.jinja";
/// The chat template as processors of transformers before 4.51 write it.
pub const CHAT_TEMPLATE_JSON: &str = "chat_template.json";
/// The folder of further chat templates, `NAME.jinja` each.
pub const ADDITIONAL_CHAT_TEMPLATES: &str = "additional_chat_templates";
/// Which safetensors file holds which tensor.
pub const SAFETENSORS_INDEX: &str = curmerge_formats::safetensors::SHARD_INDEX;

/// The longest file that is read, in bytes. The largest tokenizer.json in use has about 33 MB (Gemma 3).
const MAX_BYTES: u64 = 1 << 27;

const REPLACE: &str = "replace it with an undamaged copy";

/// The object of a JSON file.
pub type Object = Map<String, Json>;

/// A model's folder.
#[derive(Clone, Copy, Debug)]
pub struct Folder<'a> {
    path: &'a Path,
    /// Replaces config.json.
    config: Option<&'a Object>,
}

impl<'a> Folder<'a> {
    /// The folder at this path. Nothing is read yet.
    pub fn new(path: &'a Path) -> Self {
        Self { path, config: None }
    }

    /// The folder at this path with `config` in place of its config.json.
    pub fn with_config(path: &'a Path, config: &'a Object) -> Self {
        Self { path, config: Some(config) }
    }

    /// The folder itself.
    pub fn path(&self) -> &'a Path {
        self.path
    }

    /// The path of one of its files.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Whether the folder has an ordinary file of this name.
    pub fn has(&self, name: impl AsRef<Path>) -> bool {
        self.join(name).is_file()
    }

    /// The folder's own name, also where its path is `.`. In the Hub's cache a folder is called by its commit: there
    /// it is the repository's name.
    pub fn name(&self) -> String {
        if let Some(repository) = hub::repository_of(self.path) {
            return repository.rsplit('/').next().unwrap_or_default().to_owned();
        }
        let own = || self.path.file_name().map(|name| name.to_string_lossy().into_owned());
        let real = || Some(self.path.canonicalize().ok()?.file_name()?.to_string_lossy().into_owned());
        own().or_else(real).unwrap_or_default()
    }

    /// The bytes of a file; `None` if there is none.
    ///
    /// # Errors
    /// The file is not an ordinary one, is longer than 128 MiB, or cannot be read.
    pub fn bytes(&self, name: impl AsRef<Path>) -> Result<Option<Vec<u8>>> {
        let path = self.join(name);
        let kind = match std::fs::metadata(&path) {
            Ok(kind) => kind,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(path, "read", error)),
        };
        // Opening a pipe may wait for ever.
        if !kind.is_file() {
            return Err(Error::file(path, "not an ordinary file", REPLACE));
        }
        if kind.len() > MAX_BYTES {
            let problem = format!("longer than {} MiB, which no such file is", MAX_BYTES >> 20);
            return Err(Error::file(path, problem, REPLACE));
        }
        input::read(&path, MAX_BYTES).map(Some).map_err(|error| Error::io(path, "read", error))
    }

    /// A file's text as it is; `None` if there is no such file.
    ///
    /// # Errors
    /// Those of [`Self::bytes`]; a file that is not UTF-8.
    pub fn text(&self, name: impl AsRef<Path>) -> Result<Option<String>> {
        let path = self.join(&name);
        let Some(bytes) = self.bytes(name)? else { return Ok(None) };
        String::from_utf8(bytes).map(Some).map_err(|_| Error::file(path, "not UTF-8 text", REPLACE))
    }

    /// [`Self::text`] with every line end as `\n`, as Python reads text files.
    ///
    /// # Errors
    /// Those of [`Self::text`].
    pub fn text_with_newlines(&self, name: impl AsRef<Path>) -> Result<Option<String>> {
        let unified = |text: String| match text.contains('\r') {
            true => text.replace("\r\n", "\n").replace('\r', "\n"),
            false => text,
        };
        Ok(self.text(name)?.map(unified))
    }

    /// The object of a JSON file; `None` if there is no such file.
    ///
    /// # Errors
    /// Those of [`Self::bytes`]; a file that is not a JSON object.
    pub fn object(&self, name: &str) -> Result<Option<Object>> {
        if let Some(config) = self.config.filter(|_| name == CONFIG) {
            return Ok(Some(config.clone()));
        }
        let Some(bytes) = self.bytes(name)? else { return Ok(None) };
        json::parse(&bytes).map(Some).map_err(|error| match error {
            json::Unread::TooMany => Error::file(self.join(name), error.to_string(), REPLACE),
            json::Unread::Json(error) => {
                let place = format!("line {}, column {}", error.line(), error.column());
                Error::input(self.join(name), place, "not a JSON object", REPLACE)
            }
        })
    }

    /// The object of config.json, which every model has.
    ///
    /// # Errors
    /// Those of [`Self::object`]; no such file.
    pub fn config(&self) -> Result<Object> {
        self.object(CONFIG)?.ok_or_else(|| Error::file(self.join(CONFIG), "missing", "put it there"))
    }

    /// The names of the files in [`ADDITIONAL_CHAT_TEMPLATES`] without `.jinja`, sorted.
    ///
    /// # Errors
    /// A folder that cannot be listed.
    pub fn additional_chat_templates(&self) -> Result<Vec<String>> {
        let path = self.join(ADDITIONAL_CHAT_TEMPLATES);
        if !path.is_dir() {
            return Ok(Vec::new());
        }
        let fail = |error| Error::io(&path, "list", error);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&path).map_err(fail)? {
            let name = entry.map_err(fail)?.file_name();
            names.extend(name.to_str().and_then(|name| name.strip_suffix(".jinja")).map(str::to_owned));
        }
        names.sort();
        Ok(names)
    }
}

/// The path of the additional chat template of this name, relative to the folder.
pub fn additional_chat_template(name: &str) -> PathBuf {
    Path::new(ADDITIONAL_CHAT_TEMPLATES).join(format!("{name}.jinja"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_files_are_read_or_refused() {
        let own = tempfile::tempdir().unwrap();
        let folder = Folder::new(own.path());
        let write = |name: &str, bytes: &[u8]| std::fs::write(own.path().join(name), bytes).unwrap();
        let refused = |name: &str| folder.object(name).unwrap_err().to_string();
        assert_eq!(folder.object(CONFIG).unwrap(), None);
        assert!(folder.config().unwrap_err().to_string().contains("config.json: missing"));
        write(CONFIG, b"{\"a\":\n[}");
        assert!(refused(CONFIG).contains("config.json: line 2, column 2: not a JSON object"));
        write(CONFIG, b"[1]");
        assert!(refused(CONFIG).contains("not a JSON object"));
        write("merges.txt", b"a b\r\nc d\r");
        assert_eq!(folder.text("merges.txt").unwrap().unwrap(), "a b\r\nc d\r");
        assert_eq!(folder.text_with_newlines("merges.txt").unwrap().unwrap(), "a b\nc d\n");
        write("merges.txt", b"\xff");
        assert!(folder.text("merges.txt").unwrap_err().to_string().contains("not UTF-8"));
        std::fs::create_dir(own.path().join(TOKENIZER)).unwrap();
        assert!(refused(TOKENIZER).contains("not an ordinary file"));
        // A sparse file takes no room on the disk.
        std::fs::File::create(own.path().join("long")).unwrap().set_len(MAX_BYTES + 1).unwrap();
        assert!(refused("long").contains("longer than 128 MiB"));
    }

    #[test]
    fn additional_chat_templates_are_sorted() {
        let own = tempfile::tempdir().unwrap();
        let within = own.path().join(ADDITIONAL_CHAT_TEMPLATES);
        assert!(Folder::new(own.path()).additional_chat_templates().unwrap().is_empty());
        std::fs::create_dir(&within).unwrap();
        for name in ["tools.jinja", "rag.jinja", "notes.txt"] {
            std::fs::write(within.join(name), "").unwrap();
        }
        assert_eq!(Folder::new(own.path()).additional_chat_templates().unwrap(), ["rag", "tools"]);
    }
}
