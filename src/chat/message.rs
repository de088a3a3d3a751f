//! The turns of a conversation, as a template sees them: JSON objects with their keys in order.

use minijinja::value::{Value, ValueKind};
use serde::{Serialize, Serializer};

use super::jinja::{kind, object, size};

/// The keys of a message's reasoning. Templates read the first; older data and gpt-oss have the others.
/// Transformers gives a template the first two, whichever of the three a message has.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// The key of an assistant's turn that says whether it is learned: 0 or 1, as in OpenAI's format.
const WEIGHT: &str = "weight";

/// One turn of a conversation: an object with a `role`, and with `content`, `tool_calls` or other keys that
/// the template reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    role: String,
    value: Value,
    /// Whether it is context alone, though it is the assistant's.
    unlearned: bool,
}

/// The speakers of ShareGPT and their roles.
const SHARE_GPT: [(&str, &str); 9] = [
    ("human", "user"),
    ("user", "user"),
    ("gpt", "assistant"),
    ("chatgpt", "assistant"),
    ("model", "assistant"),
    ("assistant", "assistant"),
    ("system", "system"),
    ("tool", "tool"),
    ("observation", "tool"),
];

impl Message {
    /// A turn from its parts.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        let role = role.into();
        let parts = [("role", role.clone()), ("content", content.into())];
        let value = object(parts.map(|(name, text)| (name.into(), text.into())).into());
        Message { role, value, unlearned: false }
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
        let weight = value.get_attr(WEIGHT).unwrap_or_default();
        if !weight.is_undefined() && !weight.is_none() && ![0, 1].map(Value::from).contains(&weight) {
            return Err(format!(".{WEIGHT} is {weight}, and must be 0 or 1"));
        }
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
        let unlearned = role == "assistant" && weight == Value::from(0);
        Ok(Message { role, value: object(parts), unlearned })
    }

    /// A turn from an object as ShareGPT writes it: `from` and `value`. One with `role` and `content` is taken
    /// as it is.
    ///
    /// # Errors
    /// Those of [`Self::from_object`]; a speaker whose role is not known.
    pub(super) fn from_share_gpt(value: &Value) -> Result<Self, String> {
        let from = value.get_attr("from").unwrap_or_default();
        let Some(from) = from.as_str() else { return Self::from_object(value) };
        let Some((_, role)) = SHARE_GPT.into_iter().find(|(name, _)| *name == from) else {
            return Err(format!(".from is \"{}\", whose role is not known", from.escape_debug()));
        };
        let renamed = [("role", Value::from(role)), ("content", value.get_attr("value").unwrap_or_default())];
        let weight = value.get_attr(WEIGHT).ok().filter(|weight| !weight.is_undefined());
        let parts = renamed.into_iter().chain(weight.map(|weight| (WEIGHT, weight)));
        Self::from_object(&object(parts.map(|(name, part)| (name.into(), part)).collect()))
    }

    /// The same as context alone.
    #[must_use]
    pub(super) fn unlearned(mut self) -> Self {
        self.unlearned = self.role == "assistant";
        self
    }

    /// The same with one text in place of a content that is a list of texts; `None` if it is something else.
    pub(super) fn with_joined_text(&self) -> Option<Self> {
        let content = self.value.get_attr("content").ok()?;
        if content.kind() != ValueKind::Seq {
            return None;
        }
        let text = |part: Value| {
            let is_text = part.get_attr("type").ok()?.as_str() == Some("text");
            part.get_attr("text").ok()?.as_str().filter(|_| is_text).map(str::to_owned)
        };
        let joined: String = content.try_iter().ok()?.map(text).collect::<Option<_>>()?;
        let keys = self.value.try_iter().ok()?;
        let part = |key: Value| {
            let own = self.value.get_item(&key).unwrap_or_default();
            let part = if key.as_str() == Some("content") { joined.as_str().into() } else { own };
            (key, part)
        };
        Some(Self { value: object(keys.map(part).collect()), ..self.clone() })
    }

    /// Who speaks: `system`, `user`, `assistant`, or another role that the template knows.
    pub fn role(&self) -> &str {
        &self.role
    }

    /// Whether the model is to learn it: a turn of the assistant, unless its weight is 0.
    pub fn is_learned(&self) -> bool {
        self.role == "assistant" && !self.unlearned
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
