//! The small files of a Hugging Face folder.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json};

use crate::{Error, Result};

/// The object of a JSON file.
pub(super) type Object = Map<String, Json>;

/// A Hugging Face folder.
#[derive(Clone, Copy, Debug)]
pub(super) struct Folder<'a> {
    path: &'a Path,
    /// What is read instead of config.json.
    config: Option<&'a Object>,
}

impl<'a> Folder<'a> {
    pub(super) fn new(path: &'a Path) -> Self {
        Self { path, config: None }
    }

    /// The folder with this as its config.json.
    pub(super) fn with_config(path: &'a Path, config: &'a Object) -> Self {
        Self { path, config: Some(config) }
    }

    /// The folder itself.
    pub(super) fn path(&self) -> &'a Path {
        self.path
    }

    /// The path of one of its files.
    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// What the folder is called, of `.` too.
    pub(super) fn name(&self) -> String {
        let own = || self.path.file_name().map(|name| name.to_string_lossy().into_owned());
        let real = || Some(self.path.canonicalize().ok()?.file_name()?.to_string_lossy().into_owned());
        own().or_else(real).unwrap_or_default()
    }

    /// The bytes of a file; `None` if there is none.
    pub(super) fn bytes(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.join(name);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(path, "read", error)),
        }
    }

    /// A file's text; `None` if there is no such file.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>> {
        let Some(bytes) = self.bytes(name)? else { return Ok(None) };
        let not_text = |_| Error::file(self.join(name), "not UTF-8 text", "download the folder again");
        // Python reads line ends so.
        let text = String::from_utf8(bytes).map_err(not_text)?;
        Ok(Some(if text.contains('\r') { text.replace("\r\n", "\n").replace('\r', "\n") } else { text }))
    }

    /// The object of a JSON file; `None` if there is no such file.
    pub(super) fn object(&self, name: &str) -> Result<Option<Object>> {
        if let Some(config) = self.config.filter(|_| name == "config.json") {
            return Ok(Some(config.clone()));
        }
        let Some(bytes) = self.bytes(name)? else { return Ok(None) };
        let parsed: std::result::Result<Object, _> = serde_json::from_slice(&bytes);
        parsed.map(Some).map_err(|error| {
            let place = format!("line {}, column {}", error.line(), error.column());
            Error::input(self.join(name), place, "not a JSON object", "download the folder again")
        })
    }
}
