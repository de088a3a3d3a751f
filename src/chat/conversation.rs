//! A conversation of a data file, checked.

use minijinja::value::{Value, ValueKind};

use super::generation;
use super::jinja::{self, kind, parse, size};
use super::message::Message;

/// A JSON text that is not a conversation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}; {help}")]
pub struct InvalidConversation {
    /// What is wrong.
    pub problem: String,
    /// How it should be.
    pub help: &'static str,
}

fn invalid(problem: impl Into<String>, help: &'static str) -> InvalidConversation {
    InvalidConversation { problem: problem.into(), help }
}

/// The variables of a template besides the messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variables {
    /// JSON schemas of the functions that the assistant may call; null if there are none.
    pub tools: Value,
    /// Documents for retrieval-augmented answers; null if there are none.
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

/// Variables that a rendering sets itself. Python would report that they are given twice.
const SET_BY_RENDERING: [&str; 7] = [
    "messages",
    "tools",
    "documents",
    "add_generation_prompt",
    jinja::ONE,
    generation::FUNCTION,
    generation::MARKS,
];
/// Arguments of transformers' `apply_chat_template`: a row that names them changes the call, and no template
/// sees them.
const CALL_ARGUMENTS: [&str; 11] = [
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conversation {
    /// The turns; at least one.
    pub messages: Vec<Message>,
    /// The template's other variables.
    pub variables: Variables,
}

impl Conversation {
    /// Parses a JSON object `{"messages", "tools", "documents", "chat_template_kwargs"}`, as TRL takes it;
    /// only `messages` is required. In its place there may be `conversations`, as ShareGPT has it (`from` and
    /// `value`, or `role` and `content`), or lists of messages as `prompt` and `completion`, of which the
    /// prompt is not learned. A text `system` is a system message before them. `tools` may be a text that
    /// holds the list as JSON, for data sets whose columns cannot hold lists of different objects.
    ///
    /// # Errors
    /// If the text is not such an object.
    pub fn from_json(text: &str) -> Result<Self, InvalidConversation> {
        let row = parse(text).map_err(|error| invalid(error.to_string(), "write one JSON object a line"))?;
        let part =
            |name: &str| row.get_attr(name).ok().filter(|part| !part.is_undefined() && !part.is_none());
        let mut turns = match (part("messages"), part("conversations"), part("prompt"), part("completion")) {
            (Some(list), ..) => messages("messages", &list, Message::from_object)?,
            (None, Some(list), ..) => messages("conversations", &list, Message::from_share_gpt)?,
            (None, None, Some(asked), Some(answer)) => {
                let unlearned = |value: &Value| Message::from_object(value).map(Message::unlearned);
                let mut turns = messages("prompt", &asked, unlearned)?;
                turns.extend(messages("completion", &answer, Message::from_object)?);
                turns
            }
            _ => messages("messages", &Value::UNDEFINED, Message::from_object)?,
        };
        let has_system = turns.iter().any(|turn| turn.role() == "system");
        if let Some(system) = part("system").filter(|_| !has_system)
            && let Some(text) = system.as_str().filter(|text| !text.is_empty())
        {
            turns.insert(0, Message::new("system", text));
        }
        Ok(Conversation {
            messages: turns,
            variables: Variables {
                tools: objects("tools", part("tools"))?,
                documents: objects("documents", part("documents"))?,
                others: others(&part("chat_template_kwargs").unwrap_or_default())?,
            },
        })
    }

    /// The same with texts in place of contents that are lists of texts, as OpenAI's format allows; `None` if
    /// there are none.
    pub fn with_joined_texts(&self) -> Option<Self> {
        let mut any = false;
        let joined = |message: &Message| {
            let joined = message.with_joined_text();
            any |= joined.is_some();
            joined.unwrap_or_else(|| message.clone())
        };
        let messages = self.messages.iter().map(joined).collect();
        any.then(|| Self { messages, variables: self.variables.clone() })
    }
}

/// The list of messages of this name, each read by `one`.
fn messages(
    name: &str,
    list: &Value,
    one: impl Fn(&Value) -> Result<Message, String>,
) -> Result<Vec<Message>, InvalidConversation> {
    let help = "make it a list of {\"role\", \"content\"} objects";
    if list.kind() != ValueKind::Seq {
        let is = if list.is_undefined() { "missing" } else { kind(list) };
        return Err(invalid(format!("\"{name}\" is {is}"), help));
    }
    let messages = list.try_iter().into_iter().flatten().enumerate();
    let messages = messages
        .map(|(i, message)| {
            one(&message).map_err(|problem| invalid(format!("\"{name}\"[{i}]{problem}"), help))
        })
        .collect::<Result<Vec<_>, _>>()?;
    if messages.is_empty() { Err(invalid(format!("\"{name}\" is empty"), help)) } else { Ok(messages) }
}

/// `"tools"` or `"documents"`: a list of objects, or null.
fn objects(name: &str, list: Option<Value>) -> Result<Value, InvalidConversation> {
    let mut list = list.unwrap_or_else(|| Value::from(()));
    if let (Some(text), "tools") = (list.as_str(), name) {
        list = parse(text).map_err(|_| {
            invalid(format!("\"{name}\" is a text, but not JSON"), "make it a list of JSON schemas")
        })?;
    }
    let all_objects = match list.kind() {
        ValueKind::None => true,
        ValueKind::Seq => list.try_iter().into_iter().flatten().all(|item| item.kind() == ValueKind::Map),
        _ => false,
    };
    if all_objects {
        Ok(list)
    } else {
        Err(invalid(format!("\"{name}\" is not a list of objects"), "make it one, or leave it out"))
    }
}

/// `"chat_template_kwargs"`: variables by name.
fn others(kwargs: &Value) -> Result<Vec<(String, Value)>, InvalidConversation> {
    let names = match kwargs.kind() {
        ValueKind::Undefined => None,
        ValueKind::Map => kwargs.try_iter().ok(),
        _ => {
            let problem = format!("\"chat_template_kwargs\" is {}", kind(kwargs));
            return Err(invalid(problem, "make it an object of variables"));
        }
    };
    let variable = |key: Value| {
        let value = kwargs.get_item(&key).unwrap_or_default();
        let name = key.as_str().unwrap_or_default().to_owned();
        let help = match name.as_str() {
            "tools" | "documents" => "put it beside \"messages\" instead",
            name if SET_BY_RENDERING.contains(&name) || CALL_ARGUMENTS.contains(&name) => "leave it out",
            _ => return Ok((name, value)),
        };
        let problem =
            format!("\"chat_template_kwargs\" has \"{name}\", which is not a variable of the template");
        Err(invalid(problem, help))
    };
    names.into_iter().flatten().map(variable).collect()
}
