//! The turns of a conversation, as a template sees them: JSON objects with their keys in order.

use minijinja::value::{Value, ValueKind};
use serde::{Serialize, Serializer};

use super::jinja::{kind, object, size};

/// The keys of a message's reasoning. Templates read the first; older data and gpt-oss have the others.
/// Transformers gives a template the first two, whichever of the three a message has.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// One turn of a conversation: an object with a `role`, and with `content`, `tool_calls` or other keys that
/// the template reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    role: String,
    value: Value,
}

impl Message {
    /// A turn from its parts.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        let role = role.into();
        let parts = [("role", role.clone()), ("content", content.into())];
        let value = object(parts.map(|(name, text)| (name.into(), text.into())).into());
        Message { role, value }
    }

    /// A turn from an object. As in transformers, keys with the value null are left out, and the reasoning
    /// gets the keys that templates read.
    ///
    /// # Errors
    /// If the value is not an object, or has no role. The error completes a sentence that begins with the
    /// message's place.
    pub(super) fn from_object(value: &Value) -> Result<Self, String> {
        let keys = (value.kind() == ValueKind::Map).then(|| value.try_iter().ok()).flatten();
        let Some(keys) = keys else { return Err(format!(" is {}", kind(value))) };
        let role = value.get_attr("role").unwrap_or_default();
        let Some(role) = role.as_str().map(str::to_owned) else {
            return Err(if role.is_undefined() {
                " has no \"role\"".into()
            } else {
                format!(".role is {}", kind(&role))
            });
        };
        let mut parts: Vec<(Value, Value)> = Vec::new();
        for key in keys {
            let part = value.get_item(&key).unwrap_or_default();
            if !part.is_none() {
                parts.push((key, part));
            }
        }
        let part = |name: &str| parts.iter().position(|(key, _)| key.as_str() == Some(name));
        if let Some(found) = REASONING.into_iter().find_map(part) {
            let reasoning = parts[found].1.clone();
            let (content, thinking) = (part(REASONING[0]), part(REASONING[1]));
            match content {
                Some(at) => parts[at].1 = reasoning.clone(),
                None => parts.push((REASONING[0].into(), reasoning.clone())),
            }
            // First, as in transformers.
            let thinking = thinking.map_or((REASONING[1].into(), reasoning), |at| parts.remove(at));
            parts.insert(0, thinking);
        }
        Ok(Message { role, value: object(parts) })
    }

    /// Who speaks: `system`, `user`, `assistant`, or another role that the template knows.
    pub fn role(&self) -> &str {
        &self.role
    }

    /// The content, if it is a text.
    pub fn content(&self) -> Option<String> {
        self.value.get_attr("content").ok()?.as_str().map(str::to_owned)
    }

    /// The object that the template sees.
    pub(super) fn value(&self) -> Value {
        self.value.clone()
    }

    /// Its approximate length as JSON, in bytes.
    pub(super) fn size(&self) -> usize {
        size(&self.value)
    }
}

impl Serialize for Message {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}
