//! The turns of a conversation, and what stands beside them, as a template sees them: JSON with its keys in order.

use minijinja::value::{Serde, Value, ValueKind};
use serde::{Serialize, Serializer};

use super::{generation, operations};

/// Names of a message's reasoning; templates read the first, older data and gpt-oss have the others. Transformers gives a
/// template the first two, whichever of them a message has.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// One turn of a conversation: an object with a `role`, and with `content`, `tool_calls` or what else the template
/// knows.
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

    /// A turn from an object. As in transformers, keys whose value is null are left out, and a message's reasoning gets
    /// the names by which templates know it.
    ///
    /// # Errors
    /// In a few words, what is missing: an object, or its role.
    pub fn from_object(value: &Value) -> Result<Self, String> {
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
            // First, as transformers has it.
            let thinking = thinking.map_or((REASONING[1].into(), reasoning), |at| parts.remove(at));
            parts.insert(0, thinking);
        }
        Ok(Message { role, value: object(parts) })
    }

    /// Who speaks: `system`, `user`, `assistant`, or what the template knows.
    pub fn role(&self) -> &str {
        &self.role
    }

    /// What is said, if it is a text.
    pub fn content(&self) -> Option<String> {
        self.value.get_attr("content").ok()?.as_str().map(str::to_owned)
    }

    /// What the template sees.
    pub(super) fn value(&self) -> Value {
        self.value.clone()
    }

    /// About how many bytes it has as JSON.
    pub(super) fn size(&self) -> usize {
        size(&self.value)
    }
}

impl Serialize for Message {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

/// What a template sees besides the messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variables {
    /// JSON schemas of functions that the assistant may call; null if there are none.
    pub tools: Value,
    /// Texts that it may draw on; null if there are none.
    pub documents: Value,
    /// Further variables by name, such as `enable_thinking`.
    pub others: Vec<(String, Value)>,
}

impl Default for Variables {
    fn default() -> Self {
        Variables { tools: Value::from(()), documents: Value::from(()), others: Vec::new() }
    }
}

impl Variables {
    pub(super) fn size(&self) -> usize {
        size(&self.tools)
            + size(&self.documents)
            + self.others.iter().map(|(_, value)| size(value)).sum::<usize>()
    }
}

/// A map with its keys in this order.
pub(super) fn object(parts: Vec<(Value, Value)>) -> Value {
    struct Parts(Vec<(Value, Value)>);
    impl Serialize for Parts {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
        }
    }
    Value::from(Serde(Parts(parts)))
}

/// JSON with its keys in order.
fn parse(text: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str(text).map(plain_numbers)
}

/// Where a crate of the same build turns serde_json's `arbitrary_precision` on, fractions come as objects with this one
/// key.
fn plain_numbers(value: Value) -> Value {
    const NUMBER: &str = "$serde_json::private::Number";
    match value.kind() {
        ValueKind::Seq => value.try_iter().into_iter().flatten().map(plain_numbers).collect(),
        ValueKind::Map => {
            let keys: Vec<Value> = value.try_iter().into_iter().flatten().collect();
            let part = |key: &Value| value.get_item(key).unwrap_or_default();
            if let [key] = &keys[..]
                && key.as_str() == Some(NUMBER)
                && let Some(number) = part(key).as_str().and_then(|text| text.parse::<f64>().ok())
            {
                return Value::from(number);
            }
            object(keys.iter().map(|key| (key.clone(), plain_numbers(part(key)))).collect())
        }
        _ => value,
    }
}

fn size(value: &Value) -> usize {
    match value.kind() {
        ValueKind::String => value.as_str().map_or(0, str::len),
        ValueKind::Seq => value.try_iter().into_iter().flatten().map(|item| size(&item)).sum(),
        ValueKind::Map => {
            let keys = value.try_iter().into_iter().flatten();
            keys.map(|key| size(&key) + size(&value.get_item(&key).unwrap_or_default())).sum()
        }
        _ => 8,
    }
}

/// What a JSON value is, for an error message.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value.kind() {
        ValueKind::Bool => "true or false",
        ValueKind::Number => "a number",
        ValueKind::String => "a string",
        ValueKind::Seq => "a list",
        ValueKind::Map => "an object",
        _ => "null",
    }
}

/// Variables that a rendering has of its own. Python would say that they are given twice.
const OWN: [&str; 7] = [
    "messages",
    "tools",
    "documents",
    "add_generation_prompt",
    operations::ONE,
    generation::FUNCTION,
    generation::MARKS,
];
/// What transformers takes for instructions where a line names them, and a template does not see.
const INSTRUCTIONS: [&str; 11] = [
    "conversation",
    "chat_template",
    "continue_final_message",
    "tokenize",
    "padding",
    "truncation",
    "max_length",
    "return_tensors",
    "return_dict",
    "return_assistant_tokens_mask",
    "tokenizer_kwargs",
];

/// A conversation: a row of a data file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversation {
    /// The turns; at least one.
    pub messages: Vec<Message>,
    /// What stands beside them.
    pub variables: Variables,
}

impl Conversation {
    /// Of an object in JSON, `{"messages", "tools", "documents", "chat_template_kwargs"}` as TRL takes it; only the first
    /// is needed. `tools` may be a text that holds the list as JSON, for data sets whose columns hold no lists of
    /// different objects.
    ///
    /// # Errors
    /// What is wrong, and how it should be.
    pub fn from_json(text: &str) -> Result<Self, (String, &'static str)> {
        let turns = "make it a list of {\"role\", \"content\"} objects";
        let row = parse(text).map_err(|error| (error.to_string(), "write one JSON object a line"))?;
        let part =
            |name: &str| row.get_attr(name).ok().filter(|part| !part.is_undefined() && !part.is_none());
        let list = part("messages").unwrap_or_default();
        if list.kind() != ValueKind::Seq {
            let is = if list.is_undefined() { "missing" } else { kind(&list) };
            return Err((format!("\"messages\" is {is}"), turns));
        }
        let messages = list.try_iter().into_iter().flatten().enumerate();
        let messages = messages
            .map(|(i, message)| {
                let message = Message::from_object(&message);
                message.map_err(|problem| (format!("\"messages\"[{i}]{problem}"), turns))
            })
            .collect::<Result<Vec<_>, _>>()?;
        if messages.is_empty() {
            return Err(("\"messages\" is empty".into(), turns));
        }
        let objects = |name: &str| {
            let mut list = part(name).unwrap_or_else(|| Value::from(()));
            if let (Some(text), "tools") = (list.as_str(), name) {
                let parsed = parse(text);
                list = parsed.map_err(|_| {
                    (format!("\"{name}\" is a text, but no JSON"), "make it a list of JSON schemas")
                })?;
            }
            let all_objects = match list.kind() {
                ValueKind::None => true,
                ValueKind::Seq => {
                    list.try_iter().into_iter().flatten().all(|item| item.kind() == ValueKind::Map)
                }
                _ => false,
            };
            if all_objects {
                Ok(list)
            } else {
                Err((format!("\"{name}\" is no list of objects"), "make it one, or leave it out"))
            }
        };
        let others = part("chat_template_kwargs").unwrap_or_default();
        let names = match others.kind() {
            ValueKind::Undefined => None,
            ValueKind::Map => others.try_iter().ok(),
            _ => {
                return Err((
                    format!("\"chat_template_kwargs\" is {}", kind(&others)),
                    "make it an object of variables",
                ));
            }
        };
        let named = |name: Value| {
            let value = others.get_item(&name).unwrap_or_default();
            let name = name.as_str().unwrap_or_default().to_owned();
            let help = match name.as_str() {
                "tools" | "documents" => "put it beside \"messages\" instead",
                own if OWN.contains(&own) || INSTRUCTIONS.contains(&own) => "leave it out",
                _ => return Ok((name, value)),
            };
            Err((
                format!("\"chat_template_kwargs\" has \"{name}\", which is no variable of the template's"),
                help,
            ))
        };
        let variables = Variables {
            tools: objects("tools")?,
            documents: objects("documents")?,
            others: names.into_iter().flatten().map(named).collect::<Result<_, _>>()?,
        };
        Ok(Conversation { messages, variables })
    }
}
