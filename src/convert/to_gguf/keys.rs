//! The metadata of the file to write, in the order in which keys were first set.

use curmerge_formats::gguf::{Array, Value};

/// Keys and values. A key that is set again keeps its place and gets the new value.
#[derive(Debug, Default)]
pub(super) struct Keys(Vec<(String, Value)>);

impl Keys {
    /// Sets a key.
    pub(super) fn set(&mut self, key: impl Into<String>, value: Value) {
        let key = key.into();
        match self.0.iter_mut().find(|(known, _)| *known == key) {
            Some((_, old)) => *old = value,
            None => self.0.push((key, value)),
        }
    }

    /// Sets a text. An empty one is left out.
    pub(super) fn text(&mut self, key: impl Into<String>, text: &str) {
        if !text.is_empty() {
            self.set(key, Value::String(text.to_owned()));
        }
    }

    /// Sets a list of texts. An empty one is left out.
    pub(super) fn texts(&mut self, key: impl Into<String>, texts: Vec<String>) {
        if !texts.is_empty() {
            self.set(key, Value::Array(Array::String(texts)));
        }
    }

    /// The keys and values.
    pub(super) fn into_inner(self) -> Vec<(String, Value)> {
        self.0
    }
}
