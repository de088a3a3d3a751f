//! The values of templates: JSON with its keys in order.

use minijinja::value::{Serde, Value, ValueKind};
use serde::{Serialize, Serializer};

/// A map with its keys in the given order.
pub(in crate::chat) fn object(parts: Vec<(Value, Value)>) -> Value {
    struct Parts(Vec<(Value, Value)>);
    impl Serialize for Parts {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
        }
    }
    Value::from(Serde(Parts(parts)))
}

/// Parses JSON, keeping the order of keys.
///
/// # Errors
/// If the text is not JSON.
pub(in crate::chat) fn parse(text: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str(text).map(plain_numbers)
}

/// If a crate of the same build enables serde_json's `arbitrary_precision`, fractions arrive as objects with
/// one special key. This turns them back into numbers.
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

/// The approximate length of a value as JSON, in bytes.
pub(in crate::chat) fn size(value: &Value) -> usize {
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
pub(in crate::chat) fn kind(value: &Value) -> &'static str {
    match value.kind() {
        ValueKind::Bool => "true or false",
        ValueKind::Number => "a number",
        ValueKind::String => "a string",
        ValueKind::Seq => "a list",
        ValueKind::Map => "an object",
        _ => "null",
    }
}
